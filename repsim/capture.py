"""Forward hooks → activations: look at a pass, or record a network once."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from repsim.batches import Batch, Forward, InputsHash, as_array, batches_of
from repsim.datasets.memory import Memory, Sink
from repsim.datasets.store import locate
from repsim.datasets.writer import Writer, prepare
from repsim.privacy import eager, undisturbed
from repsim.provenance import provenance
from repsim.selection import Choice, Layers, select, unwrap

Reduce = Literal["flatten", "mean"] | Callable[[Tensor], Tensor] | None

_recording: ContextVar[object | None] = ContextVar("repsim_recording", default=None)


class Hooks:
    """Forward hooks on the chosen modules; off again on leaving the block.

    Parameters
    ----------
    choices : dict
        Path -> choice, from `select`.
    emit : callable
        Called as `emit(name, tensor)`, with the layer's own output.
    """

    def __init__(
        self, choices: Mapping[str, Choice], emit: Callable[[str, Tensor], None]
    ) -> None:
        self._choices = choices
        self._emit = emit
        self._calls: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []
        self.counting = True
        self.private = False  # part of a recording, whoever records

    def __enter__(self) -> "Hooks":
        """Put the hooks on."""
        try:
            for path, choice in self._choices.items():
                hook = self._hook(path, choice)
                self._handles.append(choice.module.register_forward_hook(hook))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Take the hooks off."""
        while self._handles:
            self._handles.pop().remove()

    def begin(self) -> None:
        """Count the calls of each module anew: a pass begins."""
        self._calls.clear()

    def _hook(self, path: str, choice: Choice) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            # A recorder's private pass is not what another tap wants to see.
            if not self.private and _recording.get() not in (None, self):
                return
            call = self._calls.get(path, 0) + 1 if self.counting else 1
            self._calls[path] = call
            for name, tensor in choice.take(path, call, output):
                self._emit(name, tensor)

        return hook


@contextmanager
def tap(
    model: nn.Module, layers: Layers = "*", *, detach: bool = True
) -> Iterator[dict[str, Tensor]]:
    """See the outputs of layers in every forward pass of the block.

    Parameters
    ----------
    model : Module
        Any module; its mode and gradients are left as they are.
    layers : str, iterable of str or predicate
        A glob (`*` stays within one path segment, `**` crosses dots; the default
        means direct children), names, or `f(name, module) -> bool`.
    detach : bool
        Give copies without a graph; False gives copies that gradients reach.

    Yields
    ------
    dict of str to Tensor
        Layer -> its output in the last forward pass, a copy that later operations
        in place do not change. A module called again gives `<layer>@call2`.

    Raises
    ------
    ValueError
        If a name or pattern matches nothing; the names that exist are listed.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> with tap(net, ["0", "2"]) as seen:
    ...     out = net(torch.ones(5, 4))
    >>> {name: tuple(tensor.shape) for name, tensor in seen.items()}
    {'0': (5, 3), '2': (5, 2)}
    """
    seen: dict[str, Tensor] = {}
    inner = unwrap(network_of(model))

    def emit(name: str, tensor: Tensor) -> None:
        seen[name] = (tensor.detach() if detach else tensor).clone()

    hooks = Hooks(select(inner, layers), emit)
    hooks.counting = False  # outside a pass of the whole network nothing is "again"

    def enter(*_: object) -> None:
        if _recording.get() is None:
            hooks.begin()
            hooks.counting = True
            seen.clear()

    def leave(*_: object) -> None:
        hooks.counting = False

    around = [inner.register_forward_pre_hook(enter)]
    around.append(inner.register_forward_hook(leave, always_call=True))
    try:
        with hooks, eager():
            yield seen
    finally:
        for handle in around:
            handle.remove()


def record(
    model: Any,
    batches: Any,
    layers: Layers = "*",
    *,
    labels: Any = None,
    examples: Any = None,
    store: Any = None,
    group: str | None = None,
    reduce: Reduce = None,
    forward: Forward | None = None,
    step: int | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Record what the layers of a network answer to a set of examples.

    In eval mode, without gradients, and without a trace in the network, its mode
    or any random state.

    Parameters
    ----------
    model : Module
        Any network, or a learning rule (its `network` is recorded).
    batches : tensor, dict, or iterable
        A tensor; inputs or (inputs, labels) batch by batch, a `DataLoader` for one;
        dicts are passed as `model(**batch)`.
    layers : str, iterable of str or predicate
        As for `tap`.
    labels : array of shape (example,) or None
        Labels, where the batches carry none.
    examples : array of shape (example,) or None
        Ids in the source data; 0, 1, … by default.
    store : str, Path or None
        A new zarr store, written batch by batch; None keeps it in memory.
    group : str or None
        A place in the store, `"bp/0"`.
    reduce : "flatten", "mean", callable or None
        What becomes of maps and tokens: None keeps them as named dims, a callable
        maps a tensor (n, …) to (n, units).
    forward : callable or None
        `forward(model, batch) -> output` for models that need more than a call.
    step : int or None
        The number of updates made; gives the recording a `step` dim of length 1.
    attrs : mapping or None
        Further attributes: `seed`, `init_seed`, `dataset`, …

    Returns
    -------
    Dataset
        A recording: one variable a layer, dims ([step,] example, <layer>_unit).

    Raises
    ------
    FileExistsError
        If the place in the store is taken.
    ValueError
        If layers, batches or labels do not fit.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> run = record(net, torch.ones(5, 4), layers=["0", "2"])
    >>> dict(run.sizes)
    {'example': 5, '0_unit': 3, '2_unit': 2}
    """
    network = unwrap(network_of(model))
    choices = select(network, layers)
    check_ready(network)
    known = None if labels is None else len(as_array(labels))
    head = provenance(model, network, reduce=reduce, attrs=attrs)
    sink = open_sink(store, group, attrs=head, examples=known)
    session = Session(network, choices, sink, reduce=reduce, forward=forward)
    try:
        with undisturbed(network):  # a shuffling DataLoader draws numbers, too
            batch_stream = batches_of(batches, whole=forward is not None)
            session.record(batch_stream, step, Header(labels, examples, head))
        session.warn_unreached()
        sink.finish()
    finally:
        sink.close()
    return sink.dataset()


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
        coords = {"example": ids.astype(np.int64)}
        return coords if given is None else {**coords, "label": given}


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
        self._reduce = check_reduce(reduce)
        self._forward = forward
        self._signals = signals
        self._size: int | None = None
        self._passes = 0
        self._names: set[str] = set()
        self._hooks = Hooks(choices, self._take)

    def record(
        self, batches: Iterator[Batch] | Sequence[Batch], step: int | None, head: Header
    ) -> None:
        """Record one moment; to be called inside `undisturbed`."""
        digest, labels, rows = InputsHash(), [], 0
        self._sink.begin(step)
        token = _recording.set(self._hooks)
        try:
            for batch in batches:
                rows += self._pass(batch)
                labels.append(batch.coordinate())
                if "inputs_sha256" not in head.attrs:
                    digest.update(batch.inputs)
            if not rows:
                raise ValueError("Expected at least one example, but got no batches.")
            attrs = {"inputs_sha256": digest.hexdigest(), **head.attrs}
            found = [v for v in labels if v is not None and len(v)]
            joined = np.concatenate(found) if len(found) == len(labels) else None
            coords = head.coords(rows, joined)
            self._sink.commit(list(self._choices), coords, attrs)
        except BaseException:
            self._sink.abandon()
            raise
        finally:
            _recording.reset(token)

    def _pass(self, batch: Batch) -> int:
        self._size = batch.size
        self._passes += 1
        with self._hooks:
            self._hooks.begin()
            batch.run(self._network, self._forward)
        if self._signals is not None:
            for name, tensor in self._signals(batch).items():
                self._put(name, tensor)
        return self._size or 0

    def _take(self, name: str, tensor: Tensor) -> None:
        self._names.add(name)
        self._put(name, tensor)

    def _put(self, name: str, tensor: Tensor) -> None:
        if self._size is None and tensor.ndim:
            self._size = len(tensor)
        if tensor.ndim == 0 or len(tensor) != self._size:
            msg = (
                f"Expected layer {name!r} to give one row for each of {self._size} "
                f"examples, but its output has shape {tuple(tensor.shape)}; leave it "
                "out with `layers`, or put the batch first."
            )
            raise ValueError(msg)
        rows = reduced(name, tensor.detach(), self._reduce)
        values, attrs = as_rows(name, rows)
        self._sink.put(name, values, dims_of(name, values.ndim), attrs)

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
    for name, parameter in network.named_parameters():
        if nn.parameter.is_lazy(parameter):
            msg = (
                f"Expected a network with all its weights, but {name!r} is still "
                "uninitialised; run one batch through it first."
            )
            raise ValueError(msg)


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
    out = reduce(rows)
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


def open_sink(
    store: Any,
    group: str | None,
    *,
    attrs: Mapping[str, Any],
    examples: int | None,
) -> Sink:
    """Return a sink in memory, or one that writes to a new place in a store."""
    if store is None:
        if group is not None:
            msg = f"Expected `store` along with `group`, but got only {group!r}."
            raise ValueError(msg)
        return Memory(examples, attrs)
    path, root = locate(store, group)
    prepare(path, root)
    return Writer(path, examples=examples, attrs=attrs)
