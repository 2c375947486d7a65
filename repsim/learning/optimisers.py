"""Optimisers made by a factory, fused Adam where none is given."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from repsim.core.messages import number, require

Factory = Callable[..., torch.optim.Optimizer]

FUSED = ("cpu", "cuda", "xpu", "mps")


def rate(value: Any, name: str) -> float:
    """Return a learning rate, or refuse what is none."""
    lr = number(value, name)
    if not 0 < lr < float("inf"):
        msg = f"Expected `{name}` to be a positive learning rate, but got {value}."
        raise ValueError(msg)
    return lr


def not_negative(value: Any, name: str) -> float:
    """Return a finite number that is at least zero."""
    amount = number(value, name)
    if not 0 <= amount < float("inf"):
        msg = f"Expected `{name}` to be finite and at least 0, but got {value}."
        raise ValueError(msg)
    return amount


def make_optimizer(
    parameters: Iterable[Tensor], lr: float, factory: Factory | None = None
) -> torch.optim.Optimizer:
    """Return an optimiser over some parameters."""
    trained = list(parameters)
    if not trained:
        msg = "Expected a network with trainable parameters, but got none."
        raise ValueError(msg)
    rate(lr, "lr")
    if factory is None:
        fused = all(p.device.type in FUSED and p.is_floating_point() for p in trained)
        return torch.optim.Adam(trained, lr=lr, fused=fused)
    wanted = "`optimizer` to be a factory f(parameters, lr=…), such as torch.optim.SGD"
    require(callable(factory), factory, wanted)
    made = factory(trained, lr=lr) if _takes_lr(factory) else factory(trained)
    right = isinstance(made, torch.optim.Optimizer)
    require(right, made, "the factory `optimizer` to return a torch.optim.Optimizer")
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        msg = (
            "Expected an `optimizer` that steps along given gradients, but "
            f"{type(made).__name__} evaluates the loss again in each step; use "
            "torch.optim.Adam or torch.optim.SGD."
        )
        raise ValueError(msg)
    return made


def name_of(factory: Factory | None) -> str | None:
    """Return a factory's name for provenance."""
    if factory is None:
        return None
    return str(getattr(factory, "__name__", type(factory).__name__))


def _takes_lr(factory: Factory) -> bool:
    kinds = inspect.signature(factory).parameters
    return "lr" in kinds or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in kinds.values()
    )
