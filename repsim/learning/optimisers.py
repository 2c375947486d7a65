"""Optimisers made by a factory, fused Adam where none is given."""

import inspect
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from repsim.learning.checks import require

Factory = Callable[..., torch.optim.Optimizer]

FUSED = ("cpu", "cuda", "xpu", "mps")


def make_optimizer(
    parameters: Iterable[Tensor], lr: float, factory: Factory | None = None
) -> torch.optim.Optimizer:
    """Return an optimiser over some parameters.

    Parameters
    ----------
    parameters : iterable of Tensor
        What to train.
    lr : float
        Learning rate, positive.
    factory : callable or None
        f(parameters, lr=lr), or f(parameters) where it takes no `lr`; None is Adam,
        fused where the device has it.

    Returns
    -------
    Optimizer
        The optimiser.

    Raises
    ------
    ValueError
        If `lr` is not positive and finite, or there is nothing to train.
    TypeError
        If the factory returns something else.

    Examples
    --------
    >>> weight = torch.zeros(2, requires_grad=True)
    >>> make_optimizer([weight], 0.1, torch.optim.SGD).param_groups[0]["lr"]
    0.1
    """
    trained = list(parameters)
    if not trained:
        msg = "Expected a network with trainable parameters, but got none."
        raise ValueError(msg)
    if not 0 < lr < float("inf"):
        msg = f"Expected a positive learning rate, but got {lr}."
        raise ValueError(msg)
    if factory is None:
        fused = all(p.device.type in FUSED and p.is_floating_point() for p in trained)
        return torch.optim.Adam(trained, lr=lr, fused=fused)
    wanted = "`optimizer` to be a factory f(parameters, lr=…), such as torch.optim.SGD"
    require(callable(factory), factory, wanted)
    made = factory(trained, lr=lr) if _takes_lr(factory) else factory(trained)
    right = isinstance(made, torch.optim.Optimizer)
    require(right, made, "the factory `optimizer` to return a torch.optim.Optimizer")
    return made


def _takes_lr(factory: Factory) -> bool:
    kinds = inspect.signature(factory).parameters
    return "lr" in kinds or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in kinds.values()
    )
