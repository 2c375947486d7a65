"""Some of the examples of batches, for a rank that records a share of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.capture.batches import Batch, as_array


def divisible(batches: Sequence[Batch]) -> bool:
    """Whether batches can be cut into examples and put together in other ways."""
    if any(not b.size or not b.inputs for b in batches):
        return False
    try:
        forms = [_form(b.whole, b) for b in batches]
        _taken(batches[0], slice(0, 1))
    except (ValueError, TypeError, RuntimeError):
        return False
    return len({b.axis for b in batches}) == 1 and all(f == forms[0] for f in forms)


def rows_of(batches: Sequence[Batch], rows: slice) -> list[Batch]:
    """Return these of the examples, in batches as large as the largest one was."""
    parts, start = [], 0
    most = max(b.size or 0 for b in batches)
    for batch in batches:
        size = batch.size or 0
        part = slice(max(rows.start - start, 0), min(rows.stop - start, size))
        start += size
        if part.start < part.stop:
            parts.append(_taken(batch, part))
    return list(_cut_anew(parts, most))


def _cut_anew(parts: list[Batch], most: int) -> Iterator[Batch]:
    joined = _joined(parts) if len(parts) > 1 else parts[0]
    count = joined.size or 0
    for start in range(0, count, most):
        yield _taken(joined, slice(start, min(start + most, count)))


def _taken(batch: Batch, rows: slice) -> Batch:
    """Return some examples of a batch, with their labels."""
    part = batch.part(rows, batch.axis)
    part.axis, part.size = batch.axis, rows.stop - rows.start
    part.labels = None if batch.labels is None else batch.labels[rows]
    return part


def _joined(parts: list[Batch]) -> Batch:
    """Return one batch of the examples of several."""
    first = parts[0]

    def join(values: list[Any]) -> Any:
        return _together(values, parts)

    labels: Any = None
    if first.labels is not None:
        labels = join([b.labels for b in parts])
    return Batch(
        join([b.whole for b in parts]),
        join([b.args for b in parts]),
        join([b.kwargs for b in parts]),
        labels=labels,
        size=sum(b.size or 0 for b in parts),
        inputs=join([b.inputs for b in parts]),
        axis=first.axis,
        convert=first.convert,
    )


def _together(values: list[Any], parts: list[Batch]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return {k: _together([v[k] for v in values], parts) for k in first}
    if isinstance(first, tuple | list):
        columns = zip(*values, strict=True)
        return type(first)(_together(list(column), parts) for column in columns)
    if isinstance(first, Tensor | np.ndarray):
        along = _along(first, parts[0])
        if along is None:
            return first
        if isinstance(first, Tensor):
            return torch.cat(values, along)
        return np.concatenate(values, along)
    return first


def _along(value: Any, batch: Batch) -> int | None:
    """Return the axis of a tensor that holds the batch's examples."""
    if not value.ndim:
        return None
    along = min(batch.axis, value.ndim - 1)
    return along if value.shape[along] == batch.size else None


def _form(value: Any, batch: Batch) -> Any:
    """Return what must be equal in batches that are put together."""
    if isinstance(value, Mapping):
        return {k: _form(v, batch) for k, v in value.items()}
    if type(value) in (tuple, list):
        return [_form(v, batch) for v in value]
    if isinstance(value, Tensor | np.ndarray):
        along = _along(value, batch)
        shape = [n for i, n in enumerate(value.shape) if i != along]
        fixed = as_array(value).tolist() if along is None else None
        return shape, str(value.dtype), along, fixed
    if isinstance(value, str | int | float | type(None)):
        return value
    msg = f"Expected inputs that can be cut, but got {type(value).__name__}."
    raise ValueError(msg)
