"""Where to compute, and how a device multiplies."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from repsim.core.messages import Misuse


def device_named(name: str | torch.device) -> torch.device:
    """Return the device of a name, checked by putting a number there."""
    if name == "auto":
        return torch.device(_accelerator())
    try:
        device = torch.device(name)
        if device.type != "mps":
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        msg = (
            f"Expected `device` to work here, but got {str(name)!r}, which torch "
            "cannot use here; auto takes an accelerator where there is one, or the CPU."
        )
        raise ValueError(Misuse(msg)) from error
    if device.type == "mps":
        msg = (
            "Expected `device` to have float64, in which sums are added up, but got "
            "'mps', which has not; take 'cpu'."
        )
        raise ValueError(Misuse(msg))
    return device


def _accelerator() -> str:
    """Return the accelerator that torch finds here, or the CPU: MPS has no float64."""
    if torch.cuda.is_available():
        return "cuda"
    xpu = getattr(torch, "xpu", None)
    return "xpu" if xpu is not None and xpu.is_available() else "cpu"


def free_on(device: str | torch.device) -> int | None:
    """Return the bytes that are free on an accelerator; None where torch can't say."""
    where = torch.device(device)
    asked = getattr(getattr(torch, where.type, None), "mem_get_info", None)
    return None if asked is None else int(asked(where)[0])


def devices_of(device: str) -> list[str]:
    """Return the devices that share a work: of CUDA without a number all of them."""
    count = torch.cuda.device_count() if device == "cuda" else 1
    return [f"cuda:{i}" for i in range(count)] if count > 1 else [device]


_ONE = threading.RLock()
"""How a GPU multiplies is a switch of the whole process."""


@contextmanager
def multiplying(precision: str, device: str | torch.device) -> Iterator[None]:
    """Let a GPU multiply float32 as TF32 if that was asked for, and else as float32.

    Whatever the process has set, which it has again afterwards.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    switch = torch.backends.cuda.matmul
    new = hasattr(switch, "fp32_precision")  # torch 2.9; the two must not be mixed
    name = "fp32_precision" if new else "allow_tf32"
    asked = precision == "tf32"
    with _ONE:
        before = getattr(switch, name)
        setattr(switch, name, ("tf32" if asked else "ieee") if new else asked)
        try:
            yield
        finally:
            setattr(switch, name, before)


def to_tf32(x: torch.Tensor) -> torch.Tensor:
    """Round to the 10 bits of TF32's fraction, ties to even, and keep the dtype."""
    bits = x.float().contiguous().view(torch.int32)
    kept = bits + 0xFFF + ((bits >> 13) & 1)
    return (kept & ~0x1FFF).view(torch.float32).to(x.dtype)
