"""One network recorded into one sink, moment by moment."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from repsim.capture.batches import Batch, Forward, InputsHash, as_array
from repsim.capture.hooks import Hooks, recording
from repsim.capture.rows import Reduce, as_rows, dims_of, reduced
from repsim.capture.selection import Choice
from repsim.datasets.store.attributes import coordinate
from repsim.datasets.store.memory import Memory
from repsim.datasets.store.places import locate, prepare
from repsim.datasets.store.sinks import Sink
from repsim.datasets.store.writer import Writer
from repsim.datasets.store.zarr_format import Codec


class Header:
    """What a recording says of itself beside its layers."""

    def __init__(self, labels: Any, examples: Any, attrs: dict[str, Any]) -> None:
        self._labels = None if labels is None else as_array(labels)
        self._examples = None if examples is None else as_array(examples)
        self.attrs = attrs

    def coords(self, rows: int, labels: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return the coordinates on `example`, after a check of their lengths."""
        ids = self._examples
        if ids is None:
            ids = np.arange(rows)
        given = self._labels if self._labels is not None else labels
        for what, values in (("examples", ids), ("labels", given)):
            if values is not None and values.shape != (rows,):
                msg = (
                    f"Expected `{what}` to have one value for each of {rows} examples, "
                    f"but got shape {values.shape}."
                )
                raise ValueError(msg)
        if ids.dtype.kind not in "iu":
            msg = (
                "Expected `examples` to hold integers, the examples' ids in the source "
                f"data, but got {ids.dtype}."
            )
            raise TypeError(msg)
        coords = {"example": ids.astype(np.int64)}
        if given is None:
            return coords
        return {**coords, "label": coordinate("labels", given)}


class Session:
    """Records one network into one sink, moment by moment."""

    def __init__(
        self,
        network: nn.Module,
        choices: Mapping[str, Choice],
        sink: Sink,
        *,
        reduce: Reduce,
        forward: Forward | None,
        signals: Callable[[Batch], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self._network = network
        self._choices = choices
        self._sink = sink
        self._reduce = reduce
        self._forward = forward
        self._signals = signals
        self._size: int | None = None
        self._passes = 0
        self._names: set[str] = set()
        self._signalled: set[str] = set()
        self._shared: set[str] = set()
        self._hooks = Hooks(choices, self._take)

    def record(
        self, batches: Iterator[Batch] | Sequence[Batch], step: int | None, head: Header
    ) -> None:
        """Record one moment; to be called inside `undisturbed`."""
        digest, labels, rows = InputsHash(), [], 0
        self._sink.begin(step)
        token = recording.set(self._hooks)
        try:
            for batch in batches:
                rows += self._pass(batch)
                labels.append(batch.coordinate())
                if "inputs_sha256" not in head.attrs:
                    digest.update(batch.inputs)
            if not rows:
                came = "only empty batches" if labels else "no batches"
                msg = f"Expected at least one example to record, but got {came}."
                raise ValueError(msg)
            attrs = {"inputs_sha256": digest.hexdigest(), **head.attrs}
            found = [v for v in labels if v is not None and len(v)]
            joined = np.concatenate(found) if len(found) == len(labels) else None
            coords = head.coords(rows, joined)
            self._sink.commit(list(self._choices), coords, attrs)
        except BaseException:
            self._sink.abandon()
            raise
        finally:
            recording.reset(token)

    def _pass(self, batch: Batch) -> int:
        self._size = batch.size
        self._passes += 1
        with self._hooks:
            self._hooks.begin()
            batch.run(self._network, self._forward)
        if self._signals is not None:
            for name, tensor in self._signals(batch).items():
                # Of a layer that is the same for all examples (positions) there is
                # no error per sample.
                if not tensor.ndim or len(tensor) != self._size:
                    self._shared.add(name)
                if name not in self._shared:
                    self._put(name, tensor)
                self._signalled.add(name.rpartition("@")[0])
        return self._size or 0

    def _take(self, name: str, tensor: Tensor) -> None:
        self._names.add(name)
        self._put(name, tensor)

    def _put(self, name: str, tensor: Tensor) -> None:
        if self._size is None and tensor.ndim:
            self._size = len(tensor)
        if tensor.ndim > 1 and len(tensor) == 1 and self._size is not None:
            tensor = tensor.expand(self._size, *tensor.shape[1:])  # the same for all
        if tensor.ndim == 0 or len(tensor) != self._size:
            msg = (
                f"Expected layer {name!r} to give one row for each of {self._size} "
                f"examples, but its output has shape {tuple(tensor.shape)}; leave it "
                "out with `layers`, or put the batch first."
            )
            raise ValueError(msg)
        rows = reduced(name, tensor.detach(), self._reduce)
        try:
            values, attrs = as_rows(name, rows)
            self._sink.put(name, values, dims_of(name, values.ndim), attrs)
        except MemoryError as error:
            size = rows.numel() * rows.element_size() / 1e12
            msg = (
                f"Expected layer {name!r} to fit into memory, but its output for "
                f"{self._size} examples takes {size:.1f} TB; leave it out with "
                "`layers`, or pass `reduce`."
            )
            raise ValueError(msg) from error

    def warn_unreached(self) -> None:
        """Name the layers that never gave anything."""
        if not self._passes:
            return
        missing = [
            path
            for path in self._choices
            if not any(n.partition("@")[0] == path for n in self._names)
        ]
        if missing:
            msg = (
                f"Nothing was recorded of {', '.join(missing)}: the forward pass never "
                "called them as modules, or they gave no tensor."
            )
            warnings.warn(msg, UserWarning, stacklevel=3)

    def warn_without_error(self) -> None:
        """Name the layers that no gradient of the loss ever reached."""
        silent = sorted(self._names - self._signalled) if self._passes else []
        if silent:
            msg = (
                f"No error was recorded at {', '.join(silent)}: the loss does not "
                "depend on them, or their gradients are cut off (integers, `detach`, "
                "reentrant checkpoints)."
            )
            warnings.warn(msg, UserWarning, stacklevel=3)


def network_of(model: Any) -> nn.Module:
    """Return the module itself, or the `network` of a learning rule."""
    if isinstance(model, nn.Module):
        return model
    network = getattr(model, "network", None)
    if isinstance(network, nn.Module):
        return network
    msg = (
        "Expected a torch.nn.Module or a learning rule with a `network`, but got "
        f"{type(model).__name__}."
    )
    raise TypeError(msg)


def check_ready(network: nn.Module) -> None:
    """Refuse a network whose first pass would still draw its weights."""
    for name, parameter in (*network.named_parameters(), *network.named_buffers()):
        if nn.parameter.is_lazy(parameter):
            msg = (
                f"Expected a network with all its weights, but {name!r} is still "
                "uninitialised; run one batch through it first."
            )
            raise ValueError(msg)


def open_sink(
    store: Any,
    group: str | None,
    *,
    attrs: Mapping[str, Any],
    examples: int | None,
    codec: Codec | None = None,
) -> Sink:
    """Return a sink in memory, or one that writes to a new place in a store."""
    if store is None:
        if group is not None:
            msg = f"Expected `store` along with `group`, but got only {group!r}."
            raise ValueError(msg)
        return Memory(examples, attrs)
    path, root = locate(store, group)
    prepare(path, root)
    return Writer(path, examples=examples, attrs=attrs, codec=codec)
