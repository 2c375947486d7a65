"""Inputs of every accepted form as batches with labels, a size and a hash."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from repsim.capture.axes import INPUTS, AxesSaid, parsed

Forward = Callable[[nn.Module, Any], Any]


def _as_it_is(inputs: Any) -> Any:
    return inputs


@dataclass
class Batch:
    """One batch: what the network takes, what came, and what is known of it."""

    whole: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    labels: Any = None
    size: int | None = None
    inputs: dict[str, Tensor] = field(default_factory=dict)  # what is hashed
    axis: int = 0  # of the inputs, the one that holds the examples
    convert: Callable[[Any], Any] = _as_it_is  # into what a trainer gives its model

    def run(self, model: nn.Module, forward: Forward | None) -> Any:
        """Return the network's output for a copy of this batch, on its device.

        A copy, because a network may begin with an operation in place.
        """
        device = device_of(model)
        if forward is not None:
            return forward(model, self.convert(moved(self.whole, device)))
        args = self.convert(moved(self.args, device))
        return model(*args, **self.convert(moved(self.kwargs, device)))

    def part(self, rows: slice, axis: int) -> "Batch":
        """Return some examples, those along an axis of the inputs."""
        size = next((_length(t, axis) for t in self.inputs.values()), None)
        if size is None:
            msg = "Expected inputs that can be cut into examples, but got none."
            raise ValueError(msg)
        whole, args, kwargs, inputs = (
            _cut(value, rows, size, axis)
            for value in (self.whole, self.args, self.kwargs, self.inputs)
        )
        return Batch(whole, args, kwargs, inputs=inputs, convert=self.convert)

    def along(self, axis: int) -> int | None:
        """Return how many examples there are if they lie along an axis."""
        return _size(self.args or self.kwargs or self.inputs, axis)

    def mapping(self) -> Mapping[str, Any]:
        """Return the batch as a mapping, an empty one where it is none."""
        if self.kwargs:
            return self.kwargs
        for value in (self.whole, *(self.whole if _is_pair(self.whole) else ())):
            if _is_dict(value):
                return value  # type: ignore[no-any-return]
        return {}


def as_array(values: Any) -> np.ndarray:
    """Return labels or ids of any kind as a NumPy array."""
    if isinstance(values, Tensor):
        return np.asarray(values.detach().cpu().numpy())
    return np.asarray(values)


def device_of(model: nn.Module) -> torch.device | None:
    """Return the device of a network's first parameter or buffer."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return None


def moved(value: Any, device: torch.device | None) -> Any:
    """Return a copy on the device, of tensors in tuples, lists and mappings too."""
    if isinstance(value, Tensor):
        if device is None or value.device == device:
            return value.detach().clone()
        return value.detach().to(device)
    if isinstance(value, PackedSequence):  # its sizes stay on the CPU
        return PackedSequence(
            moved(value.data, device),
            value.batch_sizes,
            moved(value.sorted_indices, device),
            moved(value.unsorted_indices, device),
        )
    if isinstance(value, Mapping):
        return _rebuilt(value, {k: moved(v, device) for k, v in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(v, device) for v in value))
    if isinstance(value, tuple | list):
        return type(value)(moved(v, device) for v in value)
    return value


def _rebuilt(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Keep a mapping's own type where it is made from a dict."""
    if type(value) is dict:
        return items
    try:
        return type(value)(items)  # type: ignore[call-arg]
    except TypeError:
        return items


def batches_of(
    data: Any, *, whole: bool = False, size: int | None = None, axis: int = 0
) -> Iterator[Batch]:
    """Yield the batches of a tensor, a dict, or an iterable of inputs."""
    if isinstance(data, PackedSequence):
        data = [data]
    if isinstance(data, tuple):
        msg = (
            "Expected batches, but got a bare tuple, which may mean (inputs, labels) "
            "or several batches; write [(x, y)] for one batch with labels, or [x, y] "
            "for two batches."
        )
        raise ValueError(msg)
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(data)
    if isinstance(data, Tensor) or _is_dict(data):
        yield from (_batch(piece, whole, axis) for piece in _pieces(data, size, axis))
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping):
        yield from (_batch(item, whole, axis) for item in data)
    else:
        msg = (
            "Expected a tensor, a dict of tensors, or an iterable of batches, but got "
            f"{type(data).__name__}; repsim.datasets.to_tensors turns a dataset into "
            "tensors."
        )
        raise TypeError(msg)


def inputs_axis(data: Any, axes: AxesSaid, *known: Any) -> int:
    """Return which axis of the inputs holds the examples: said, or told by labels."""
    said = parsed(axes).get(INPUTS)
    if said is not None:
        return said.index("example")
    lengths = {len(as_array(k)) for k in known if k is not None}
    if len(lengths) == 1 and (isinstance(data, Tensor | np.ndarray) or _is_dict(data)):
        return _turned(data, *lengths)
    return 0


def _turned(inputs: Any, rows: int) -> int:
    """Return 1 where the second axis alone has so many rows."""
    return int(_size(inputs) != rows == _size(inputs, 1))


def _is_dict(data: object) -> bool:
    # An xarray.Dataset is a Mapping too, and no batch.
    return isinstance(data, Mapping) and not hasattr(data, "data_vars")


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _pieces(data: Any, size: int | None, axis: int) -> Iterator[Any]:
    rows = _size(data, axis)
    if size is None or rows is None or rows <= size or _is_ragged(data):
        yield data
        return
    for start in range(0, rows, size):
        yield _cut(data, slice(start, start + size), rows, axis)


def _is_ragged(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_nested


def _length(tensor: Any, axis: int) -> int | None:
    """Return the examples of a tensor; a vector has them on its one axis."""
    if not tensor.ndim:
        return None
    return int(tensor.size(min(axis, tensor.ndim - 1)) if axis else tensor.size(0))


def _cut(value: Any, part: slice, rows: int, axis: int) -> Any:
    """Return some examples of every tensor in a value that has so many rows."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        return value[part] if len(value) == rows else value
    if isinstance(value, Tensor | np.ndarray):
        if not value.ndim:
            return value
        along = min(axis, value.ndim - 1)
        if value.shape[along] != rows:
            return value
        return value[(slice(None),) * along + (part,)]
    if isinstance(value, Mapping):
        items = {k: _cut(v, part, rows, axis) for k, v in value.items()}
        return _rebuilt(value, items)
    if type(value) in (tuple, list):
        return type(value)(_cut(v, part, rows, axis) for v in value)
    if isinstance(value, Tensor | str | int | float | type(None)):
        return value
    msg = f"Expected inputs that can be cut, but got {type(value).__name__}."
    raise ValueError(msg)


def _batch(item: Any, whole: bool, axis: int = 0) -> Batch:
    if type(item) in (list, tuple) and len(item) == 1:
        item = item[0]
    if isinstance(item, np.ndarray):
        item = torch.from_numpy(item)
    labels: Any = None
    inputs = item
    if isinstance(item, list | tuple) and len(item) == 2:
        inputs, labels = item
    if isinstance(inputs, np.ndarray):
        inputs = torch.from_numpy(inputs)
    batch = Batch(item, labels=labels, axis=axis)
    if isinstance(inputs, Tensor | PackedSequence):
        batch.args = (inputs,)
    elif _is_dict(inputs):
        if not whole:
            _check_collated(inputs)
        batch.kwargs = {str(k): v for k, v in inputs.items()}
        if labels is None:
            batch.labels = _integer_labels(inputs.get("labels"))
    elif isinstance(inputs, tuple | list) and labels is not None:
        batch.args = tuple(inputs)
    elif not whole:
        msg = (
            "Expected each batch to be a tensor, a dict, or (inputs, labels), but got "
            f"{type(item).__name__}"
            + (f" of length {len(item)}" if hasattr(item, "__len__") else "")
            + "; pass `forward`, a function (model, batch) -> output, for other kinds."
        )
        raise ValueError(msg)
    batch.inputs = dict(_named_tensors(inputs))
    if _is_dict(inputs):
        batch.inputs.pop("labels", None)
    if not axis and labels is not None and np.ndim(labels) > 0:
        batch.axis = _turned(inputs, len(labels))
    batch.size = _size(inputs, batch.axis)
    return batch


def learnt_batch(
    kind: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], axis: int
) -> Any:
    """Return what a module was called with as a batch of this kind, copied."""
    args, kwargs = moved(args, None), moved(kwargs, None)
    inputs = dict(_named_tensors({**{str(i): a for i, a in enumerate(args)}, **kwargs}))
    inputs.pop("labels", None)
    came = kwargs or (args[0] if len(args) == 1 else args)
    size = _size(args or inputs, axis)
    return kind(came, args, kwargs, size=size, inputs=inputs, axis=axis)


def _check_collated(inputs: Mapping[str, Any]) -> None:
    """Refuse a row of a data set, whose values are lists or have no batch."""
    for key, value in inputs.items():
        row = isinstance(value, list) and value and isinstance(value[0], int | float)
        words = key == "input_ids" and getattr(value, "ndim", 2) < 2
        if row or words:
            msg = (
                "Expected batches of tensors, but got single rows of a data set "
                f"({key!r} holds {len(value)} numbers and no batch); collate them, as "
                'in [tokenizer.pad(rows, return_tensors="pt")].'
            )
            raise ValueError(msg)


def _integer_labels(labels: Any) -> Any:
    if labels is None:
        return None
    array = as_array(labels)
    return array if array.ndim in (1, 2) and array.dtype.kind in "iub" else None


def _named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, np.ndarray) and value.dtype.kind in "iufb":
        yield name, torch.from_numpy(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named_tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _named_tensors(item, f"{name}.{index}" if name else str(index))


def _size(inputs: Any, axis: int = 0) -> int | None:
    if isinstance(inputs, tuple | list) and len(inputs) == 1:
        inputs = inputs[0]
    if isinstance(inputs, PackedSequence):
        return int(inputs.batch_sizes[0])
    for _, tensor in _named_tensors(inputs):
        if tensor.ndim:
            return _length(tensor, axis)
    return None


class InputsHash:
    """SHA-256 of inputs, the same however they were cut into batches."""

    def __init__(self) -> None:
        self._hashes: dict[str, Any] = {}

    def update(self, inputs: Mapping[str, Tensor]) -> None:
        """Take in the inputs of one more batch."""
        for name, tensor in inputs.items():
            rows = tensor.values() if tensor.is_nested else tensor
            rows = rows.detach().cpu().contiguous()
            if name not in self._hashes:
                head = f"{name} {rows.dtype} {tuple(rows.shape[1:])}"
                self._hashes[name] = hashlib.sha256(head.encode())
            if rows.numel():
                flat = rows.reshape(-1).view(torch.uint8)
                self._hashes[name].update(flat.numpy().data)

    def hexdigest(self) -> str:
        """Return the hash, or an empty string where no tensor was seen."""
        if not self._hashes:
            return ""
        parts = [f"{k} {h.hexdigest()}" for k, h in sorted(self._hashes.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def inputs_hash(batches: Iterable[Batch]) -> str:
    """Return the hash of all inputs of some batches."""
    digest = InputsHash()
    for batch in batches:
        digest.update(batch.inputs)
    return digest.hexdigest()


def known_rows(batches: Sequence[Batch] | None, reduce: object) -> int | None:
    """Return how many rows the batches will give, or None where only passes tell."""
    sizes = [None] if batches is None else [b.size for b in batches]
    if None in sizes or reduce == "tokens":
        return None
    return sum(size for size in sizes if size is not None)
