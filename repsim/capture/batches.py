"""Inputs of every accepted form as batches with labels, a size and a hash."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Forward = Callable[[nn.Module, Any], Any]


@dataclass
class Batch:
    """One batch: what the network takes, what came, and what is known of it."""

    whole: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    labels: Any = None
    size: int | None = None
    inputs: dict[str, Tensor] = field(default_factory=dict)  # what is hashed

    def run(self, model: nn.Module, forward: Forward | None) -> Any:
        """Return the network's output for a copy of this batch, on its device.

        A copy, because a network may begin with an operation in place.
        """
        device = device_of(model)
        if forward is not None:
            return forward(model, moved(self.whole, device))
        args = moved(self.args, device)
        return model(*args, **moved(self.kwargs, device))

    def coordinate(self) -> np.ndarray | None:
        """Return the labels where they are one value for each example."""
        if self.labels is None:
            return None
        array = as_array(self.labels)
        return array if array.ndim == 1 else None


def as_array(values: Any) -> np.ndarray:
    """Return labels or ids of any kind as a NumPy array."""
    if isinstance(values, Tensor):
        return np.asarray(values.detach().cpu().numpy())
    return np.asarray(values)


def device_of(model: nn.Module) -> torch.device | None:
    """Return the device of a network's first parameter or buffer."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return None


def moved(value: Any, device: torch.device | None) -> Any:
    """Return a copy on the device, of tensors in tuples, lists and mappings too."""
    if isinstance(value, Tensor):
        if device is None or value.device == device:
            return value.detach().clone()
        return value.detach().to(device)
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
    data: Any, *, whole: bool = False, size: int | None = None
) -> Iterator[Batch]:
    """Yield the batches of a tensor, a dict, or an iterable of inputs."""
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
        yield from (_batch(piece, whole) for piece in _pieces(data, size))
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping):
        yield from (_batch(item, whole) for item in data)
    else:
        msg = (
            "Expected a tensor, a dict of tensors, or an iterable of batches, but got "
            f"{type(data).__name__}; repsim.datasets.to_tensors turns a dataset into "
            "tensors."
        )
        raise TypeError(msg)


def _is_dict(data: object) -> bool:
    # An xarray.Dataset is a Mapping too, and no batch.
    return isinstance(data, Mapping) and not hasattr(data, "data_vars")


def _pieces(data: Any, size: int | None) -> Iterator[Any]:
    rows = _size(data)
    if size is None or rows is None or rows <= size:
        yield data
        return
    for start in range(0, rows, size):
        part = slice(start, start + size)
        if isinstance(data, Tensor):
            yield data[part]
        else:
            yield _rebuilt(data, {k: _cut(v, part, rows) for k, v in data.items()})


def _cut(value: Any, part: slice, rows: int) -> Any:
    if isinstance(value, Tensor | np.ndarray) and value.ndim and len(value) == rows:
        return value[part]
    return value


def _batch(item: Any, whole: bool) -> Batch:
    if isinstance(item, list | tuple) and len(item) == 1:
        item = item[0]
    if isinstance(item, np.ndarray):
        item = torch.from_numpy(item)
    labels: Any = None
    inputs = item
    if isinstance(item, list | tuple) and len(item) == 2:
        inputs, labels = item
    if isinstance(inputs, np.ndarray):
        inputs = torch.from_numpy(inputs)
    batch = Batch(item, labels=labels)
    if isinstance(inputs, Tensor):
        batch.args = (inputs,)
    elif _is_dict(inputs):
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
    batch.size = _size(inputs)
    return batch


def _integer_labels(labels: Any) -> Any:
    if labels is None:
        return None
    array = as_array(labels)
    return array if array.ndim == 1 and array.dtype.kind in "iub" else None


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


def _size(inputs: Any) -> int | None:
    for _, tensor in _named_tensors(inputs):
        if tensor.ndim:
            return len(tensor)
    return None


class InputsHash:
    """SHA-256 of inputs, the same however they were cut into batches."""

    def __init__(self) -> None:
        self._hashes: dict[str, Any] = {}

    def update(self, inputs: Mapping[str, Tensor]) -> None:
        """Take in the inputs of one more batch."""
        for name, tensor in inputs.items():
            rows = tensor.detach().cpu().contiguous()
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
