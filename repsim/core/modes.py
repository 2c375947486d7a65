"""Training and evaluation mode of a network's modules, kept and given back."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def kept_modes(model: nn.Module, training: bool | None = None) -> Iterator[None]:
    """Give every module its own `training` flag back at the end.

    Inside, all are in the mode that is asked for; None leaves them as they are. Flags
    are set one by one: `Module.train` may be a user's method that does more.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        if training is not None:
            for module, _ in flags:
                module.training = training
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put a network's buffers back: one pass alone moves running statistics."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, old in before:
            buffer.copy_(old)
