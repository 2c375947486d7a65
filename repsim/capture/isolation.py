"""A pass through a network that leaves no trace in it or in the program."""

import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from repsim.capture.plain_attributes import same_attributes
from repsim.core.interrupts import interrupted_later
from repsim.core.modes import kept_modes
from repsim.core.switches import Shared


@contextmanager
def same_random_numbers(*devices: torch.device) -> Iterator[None]:
    """Give back every random state on leaving: Python, NumPy, torch, accelerators."""
    modules = [
        (torch.get_device_module(d), d)
        for d in dict.fromkeys(devices)
        if d.type not in ("cpu", "meta")
    ]
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    cpu = torch.get_rng_state()
    kept = [(m, d, m.get_rng_state(d)) for m, d in modules]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        for module, device, state in kept:
            module.set_rng_state(state, device)


@contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """Give back buffers that a forward pass changed in place or replaced."""
    kept: list[tuple[dict[str, Tensor | None], str, Tensor | None, int, Tensor]] = []
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                copy = buffer.detach().clone()
                kept.append((module._buffers, name, buffer, _version(buffer), copy))
    try:
        yield
    finally:
        with torch.no_grad():
            for owner, name, buffer, version, copy in kept:
                owner[name] = buffer
                if buffer is not None and _version(buffer) != version:
                    buffer.copy_(copy)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


@contextmanager
def _plain_autocast() -> Iterator[None]:
    # Weights cast under no_grad and kept by autocast would reach the training pass
    # without their graph.
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Keep torch's transformer from taking one kernel for many modules in eval mode.

    That one gives nested tensors where there is a padding mask; training never takes
    it.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _uncompiled() -> AbstractContextManager[object]:
    """Run compiled modules as plain Python, so that hooks are called."""
    stance = getattr(torch.compiler, "set_stance", None)
    if stance is None or "torch._dynamo" not in sys.modules:
        return nullcontext()
    turned: AbstractContextManager[object] = stance("force_eager")
    return turned


_module_by_module = Shared(_no_fast_path)
eager = Shared(_uncompiled)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run the block in eval mode and without gradients, and leave no trace.

    Weights are never written; random states, `training` flags, buffers and the
    autocast cache are afterwards what they were before, also after an exception.
    """
    devices = {tensor.device for tensor in model.parameters()}
    with (
        interrupted_later(),
        same_random_numbers(*devices),
        same_buffers(model),
        kept_modes(model, training=False),
        same_attributes(model),
        _plain_autocast(),
        _module_by_module,
        eager,
        torch.no_grad(),
    ):
        yield
