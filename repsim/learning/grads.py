"""Gradients in closed form, accumulated as autograd does."""

import torch
from torch import Tensor


def add_grad(parameter: Tensor, grad: Tensor) -> None:
    """Accumulate a gradient as autograd does."""
    if parameter.grad is None:
        parameter.grad = grad
    else:
        parameter.grad += grad


def add_product(parameter: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """Accumulate the gradient scale · leftᵀ right in one pass."""
    product = torch.addmm if parameter.ndim == 2 else torch.baddbmm
    into, keep = parameter.grad, 1
    if into is None:
        into, keep = torch.empty_like(parameter), 0
    left = left.transpose(-1, -2)
    parameter.grad = product(into, left, right, beta=keep, alpha=scale, out=into)
