"""A layer's output as rows of a recording: reduced, named dims, NumPy."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Reduce = Literal["flatten", "mean"] | Callable[[Tensor], Tensor] | None


def check_reduce(reduce: Reduce) -> Reduce:
    """Return a valid `reduce`."""
    if reduce is None or callable(reduce) or reduce in ("flatten", "mean"):
        return reduce
    msg = (
        f"Expected `reduce` to be None, 'flatten', 'mean' or a callable, but got "
        f"{reduce!r}."
    )
    raise ValueError(msg)


def reduced(name: str, rows: Tensor, reduce: Reduce) -> Tensor:
    """Return rows (n, …) as `reduce` wants them."""
    if reduce is None:
        return rows
    if reduce == "flatten":
        return rows.flatten(1) if rows.ndim > 2 else rows
    if reduce == "mean":
        if rows.ndim == 3:
            return rows.mean(1)
        return rows.mean(tuple(range(2, rows.ndim))) if rows.ndim > 3 else rows
    try:
        out = reduce(rows)
    except Exception as error:
        error.add_note(
            f"(`reduce` was called with layer {name!r}, {tuple(rows.shape)})"
        )
        raise
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(rows):
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        msg = (
            f"Expected `reduce` to map layer {name!r} from {tuple(rows.shape)} to (n, "
            f"units), but got {got}."
        )
        raise ValueError(msg)
    return out


def as_rows(name: str, rows: Tensor) -> tuple[np.ndarray, dict[str, Any]]:
    """Return rows as a NumPy array that may share memory with them.

    NumPy has no bfloat16: such values are kept exactly, as float32; integers as
    float64. The attribute `torch_dtype` says so.
    """
    kind = str(rows.dtype).removeprefix("torch.")
    if rows.layout is not torch.strided or rows.is_nested:
        msg = (
            f"Expected layer {name!r} to give a dense tensor, but got a sparse or "
            "nested one; pass `reduce`, a callable that makes it dense."
        )
        raise ValueError(msg)
    if rows.ndim == 1:
        rows = rows[:, None]
    attrs: dict[str, Any] = {}
    if kind not in ("float64", "float32", "float16", "complex64", "complex128"):
        attrs["torch_dtype"] = kind
        wide = not rows.is_floating_point() and rows.dtype is not torch.bool
        rows = rows.to(torch.float64 if wide else torch.float32)
    rows = rows.resolve_conj().resolve_neg()
    return rows.cpu().numpy(), attrs


def dims_of(name: str, ndim: int) -> tuple[str, ...]:
    """Return the dims of a layer's rows: units, tokens or maps."""
    inner = {
        2: ("unit",),
        3: ("token", "unit"),
        4: ("channel", "y", "x"),
        5: ("channel", "z", "y", "x"),
    }.get(ndim, tuple(f"axis{i}" for i in range(1, ndim)))
    layer = name.removesuffix("@error").removesuffix("@true_error")
    return ("example", *(f"{layer}_{dim}" for dim in inner))
