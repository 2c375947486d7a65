"""A layer's output as rows of a recording: named dims, NumPy."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.datasets.pooling import How

Reduce = How | None


def as_rows(
    name: str, rows: Tensor, copy: Callable[[Tensor], Tensor] = Tensor.cpu
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return rows as a NumPy array that may share memory with them.

    NumPy has no bfloat16: such values are kept exactly, as float32; integers as
    float64. The attribute `torch_dtype` says so.
    """
    kind = str(rows.dtype).removeprefix("torch.")
    if rows.layout is not torch.strided:
        msg = (
            f"Expected layer {name!r} to give a dense tensor, but got a sparse one; "
            "pass `reduce`, a callable that makes it dense."
        )
        raise ValueError(msg)
    if rows.is_quantized:
        rows = rows.dequantize()
    if rows.ndim == 1:
        rows = rows[:, None]
    attrs: dict[str, Any] = {}
    if kind not in ("float64", "float32", "float16", "complex64", "complex128"):
        attrs["torch_dtype"] = kind
        wide = not rows.is_floating_point() and rows.dtype is not torch.bool
        rows = rows.to(torch.float64 if wide else torch.float32)
    rows = rows.resolve_conj().resolve_neg()
    return copy(rows).numpy(), attrs


def dims_of(name: str, axes: Sequence[str], taken: Collection[str]) -> tuple[str, ...]:
    """Return the dims of a layer's rows, none of them another variable's name."""
    layer = name.removesuffix("@error").removesuffix("@true_error")
    dims = [f"{layer}_{axis}" for axis in axes]
    while clash := [i for i, dim in enumerate(dims) if dim in taken]:
        dims[clash[0]] += "_"
    return ("example", *dims)
