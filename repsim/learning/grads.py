"""Gradients in closed form, accumulated as autograd does."""

import torch
from torch import Tensor


def add_grad(parameter: Tensor, grad: Tensor) -> None:
    """Accumulate a gradient as autograd does.

    Parameters
    ----------
    parameter : Tensor
        Its `.grad` is set or added to.
    grad : Tensor
        Of its shape; becomes its own.
    """
    if parameter.grad is None:
        parameter.grad = grad
    else:
        parameter.grad += grad


def add_product(parameter: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """Accumulate the gradient scale · leftᵀ right in one pass.

    Parameters
    ----------
    parameter : Tensor, shape ([m,] a, b)
        Its `.grad` is set or added to.
    left : Tensor, shape ([m,] n, a)
        One factor.
    right : Tensor, shape ([m,] n, b)
        The other.
    scale : float
        What the product is multiplied by.

    Examples
    --------
    >>> weight = torch.zeros(1, 2)
    >>> add_product(weight, torch.ones(3, 1), torch.ones(3, 2), 0.5)
    >>> weight.grad
    tensor([[1.5000, 1.5000]])
    """
    product = torch.addmm if parameter.ndim == 2 else torch.baddbmm
    into, keep = parameter.grad, 1
    if into is None:
        into, keep = torch.empty_like(parameter), 0
    left = left.transpose(-1, -2)
    parameter.grad = product(into, left, right, beta=keep, alpha=scale, out=into)
