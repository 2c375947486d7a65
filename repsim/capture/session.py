"""One network recorded into one sink, moment by moment."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import xarray as xr
from torch import Tensor, nn

from repsim.capture.axes import Axes, AxesSaid, told_axis
from repsim.capture.batches import Batch, Forward, InputsHash
from repsim.capture.distributed import is_sharded
from repsim.capture.header import Header
from repsim.capture.hooks import Hooks, recording
from repsim.capture.learnt import LearntBatch, LearntBatches
from repsim.capture.masks import Masks, MaskSaid
from repsim.capture.moment import Moment
from repsim.capture.rows import Reduce
from repsim.capture.selection import Choice, Found, named_layers
from repsim.capture.trial import followed
from repsim.core.files import NOT_FINITE
from repsim.core.messages import unknown
from repsim.datasets.store.attributes import mask_hash
from repsim.datasets.store.memory import MemorySink
from repsim.datasets.store.places import RESERVED, check_name
from repsim.datasets.store.sinks import Sink

OnError = Literal["raise", "skip"]


class Session:
    """Records one network into one sink, moment by moment.

    Until a moment is complete, what cannot be recorded is raised (or the layer left
    out, with `on_error="skip"`). From then on a training depends on it: a layer that
    fails is NaN in that moment, a pass that fails leaves a gap, both with one warning.
    """

    def __init__(
        self,
        network: nn.Module,
        choices: Mapping[str, Choice],
        *,
        reduce: Reduce,
        forward: Forward | None,
        signals: Callable[[Batch], Mapping[str, Tensor]] | None = None,
        axes: AxesSaid = None,
        mask: MaskSaid = None,
        on_error: OnError = "raise",
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(unknown("on_error", on_error, ["raise", "skip"]))
        modules = {"": network, **named_layers(network)[0]}
        self._network, self.choices = network, choices
        self._sink: Sink = MemorySink()
        self._forward, self._reduce, self._signals = forward, reduce, signals
        self._skips = on_error == "skip"
        self._axes = Axes(axes, modules, choices)
        self._masks = Masks(mask, network)
        self._moment = Moment(
            self._sink, self._axes, self._masks, reduce, choices, frozenset(choices)
        )
        self._around = {p: modules[p] for path in choices for p in _prefixes(path)}
        self._hooks = Hooks(choices, self._take, self._around)
        # What a trainer does around its own passes: types of inputs, autocast.
        self.convert: Callable[[Any], Any] | None = None
        self.context: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._axis: int | None = None  # of the inputs, where modules tell it
        self._passes = 0
        self._mask_hash: str | None = None  # of all examples, where these are some
        self._signalled: set[str] = set()
        self._told: set[str] = set()

    def use(self, sink: Sink) -> None:
        """Record into another sink from now on."""
        self._sink = self._moment.sink = sink

    @property
    def sequences_first(self) -> bool:
        """Whether inputs may have their examples second, as those of a module do."""
        modules = (path for path in self._axes.modules if path)
        return self._axes.inputs is None and any(
            told_axis(self._axes, path) == 1 for path in modules
        )

    def cut(self, rows: slice, batches: Sequence[Batch]) -> None:
        """Record some of the examples only; `batches` are those of all."""
        self._mask_hash = self._masks.hash_of(batches)
        self._masks.cut(rows)

    def outputs(self, batch: Batch) -> xr.Dataset:
        """Return what the layers say of one batch; inside `undisturbed`."""
        self.use(MemorySink())
        self.record([batch], None, Header(None, None, {"inputs_sha256": ""}))
        return self._sink.dataset()

    def watching(self, errors: object) -> LearntBatches:
        """Return what sees a training's own batches in place of passes over others."""
        axes = self._axes.inputs
        axis = 0 if axes is None else axes.index("example")
        return LearntBatches(
            self._network,
            self.choices,
            self._around,
            axis=axis,
            errors=errors is not None,
        )

    def trust(self) -> None:
        """Let nothing be raised from now on: a training is under way."""
        self._moment.lenient = True

    def rehearse(self, batches: Sequence[Batch], head: Header) -> None:
        """Record one moment and forget it: what cannot be is said now."""
        sink = self._sink
        self.use(MemorySink())
        try:
            self.record(batches, 0, head)
        finally:
            self.use(sink)

    def record(
        self, batches: Iterator[Batch] | Sequence[Batch], step: int | None, head: Header
    ) -> None:
        """Record one moment; to be called inside `undisturbed`."""
        moment = self._moment
        safe = moment.lenient
        moment.lenient = safe or self._skips
        moment.begin()
        self._sink.begin(step)
        token = recording.set(self._hooks)
        try:
            self._fill(batches, head, step)
        except BaseException as error:
            self._sink.abandon()
            if safe and isinstance(error, Exception) and not isinstance(error, OSError):
                self._tell(
                    f"{type(error).__name__} {str(error)[:20]}",
                    f"Nothing was recorded after {step} updates, as the pass failed "
                    f"({type(error).__name__}: {error}); training goes on.",
                )
                return
            raise
        finally:
            recording.reset(token)
            moment.lenient = safe
        moment.lenient = True
        self._warn(step)

    def _fill(
        self, batches: Iterator[Batch] | Sequence[Batch], head: Header, step: int | None
    ) -> None:
        digest, labels, moment = InputsHash(), [], self._moment
        for batch in batches:
            batch.convert = self.convert or batch.convert
            with self.context():
                self._pass(batch)
            labels.append(batch.labels)
            if "inputs_sha256" not in head.attrs:
                digest.update(batch.inputs)
        if not moment.seen:
            came = "only empty batches" if labels else "no batches"
            msg = f"Expected at least one example to record, but got {came}."
            raise ValueError(msg)
        moment.complete(step)
        attrs = {"inputs_sha256": digest.hexdigest(), **head.attrs}
        masks = moment.joined_masks()
        if "mask" in masks:
            attrs["mask_sha256"] = self._mask_hash or mask_hash(masks["mask"])
        if self._reduce is not None or not moment.widths:
            masks = {}
        if masks and "batches" in head.attrs:
            msg = (
                "Expected `reduce` where the batches of a training have masks, as a "
                'recording keeps one for all steps; pass reduce="last" or "mean".'
            )
            raise ValueError(msg)
        tokens = moment.tokens if self._reduce == "tokens" else None
        coords = head.coords(moment.seen, labels, masks, tokens, moment.widths)
        clash = sorted(coords.keys() & moment.names)
        if clash:
            raise ValueError(_reserved(clash[0]))
        self._sink.commit(list(self.choices), coords, attrs)

    def _pass(self, batch: Batch) -> None:
        self._moment.begin_batch(batch, self._size(batch))
        self._passes += 1
        if isinstance(batch, LearntBatch):
            for name, error in batch.failed.items():
                self._moment.refuse(name, error)
            for name, found, stack in batch.outputs:
                self._moment.take(name, found, stack)
        else:
            with self._hooks:
                self._hooks.begin()
                batch.run(self._network, self._forward)
        self._moment.settle(lambda: self._followed(self.choices, batch, self._axis))
        if self._signals is not None:
            for name, tensor in self._signals(batch).items():
                self._signalled.add(name.rpartition("@")[0])
                self._moment.take_signal(name, tensor)
        self._moment.end_batch()

    def _take(self, name: str, found: Found) -> None:
        self._moment.take(name, found, self._hooks.stack)

    def _size(self, batch: Batch) -> int | None:
        """Return how many examples a batch holds, along the axis that holds them."""
        if batch.size is None or self._axes.inputs is not None:
            return batch.size
        if self._axis is None:
            self._axis = self._axis_of(batch)
        return batch.along(self._axis) if self._axis != batch.axis else batch.size

    def _axis_of(self, batch: Batch) -> int:
        """Return the inputs' axis of the examples: what modules say of theirs tells."""
        told = {
            path: Choice(module, first=True)
            for path, module in self._axes.modules.items()
            if path and told_axis(self._axes, path) == 1
        }
        follow = self._followed(told, batch, batch.axis) if told else {}
        axes = {axis for axis in follow.values() if axis is not None}
        return 1 if axes == {0} and not batch.axis else batch.axis

    def _followed(
        self, choices: Mapping[str, Choice], batch: Batch, axis: int | None
    ) -> dict[str, int | None]:
        if isinstance(batch, LearntBatch) and is_sharded(self._network):
            return {}  # a pass of this rank alone would wait for the others
        at = batch.axis if axis is None else axis
        return followed(self._network, choices, batch, at, self._forward)

    def _tell(self, key: str, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            warnings.warn(text, UserWarning, stacklevel=5)

    def _warn(self, step: int | None) -> None:
        """Say once of each layer what was not as it should be."""
        moment = self._moment
        when = "" if step is None else f" after {step} updates"
        for name, error in moment.failed.items():
            text = f"Layer {name!r} was not recorded{when} and is NaN there: {error}"
            self._tell(name, text)
        if moment.not_finite:
            # Once in all: what diverges soon takes every layer with it.
            those = ", ".join(moment.not_finite)
            self._tell(
                NOT_FINITE,
                f"NaN or infinite values were recorded{when} in {those}: the network "
                "or its inputs hold such, and no measure can compare those layers "
                f"from there on (each has the attribute `{NOT_FINITE}`).",
            )
        for names, text in (
            (
                moment.partial,
                "Some batches did not reach {}: NaN for their examples (the attribute "
                "`partial` says so).",
            ),
            (moment.without, "Left out by reduce='tokens', as they hold none: {}."),
            (
                self._masks.other,
                "The mask has other positions than {}: all of theirs are used.",
            ),
            (
                self._axes.doubtful,
                "The axes of {} were not told by any module, and are taken as "
                f"{self._assumed()}; where that is wrong, say so as in "
                "axes={{'name': 'example y x channel'}}.",
            ),
        ):
            new = [n for n in names if f"{text[:20]}{n}" not in self._told]
            self._told |= {f"{text[:20]}{n}" for n in new}
            if new:
                self._tell(f"{text[:20]}{new}", text.format(", ".join(new)))

    def _assumed(self) -> str:
        names = {self._axes.known[n].rest for n in self._axes.doubtful}
        return " or ".join(f"(example, {', '.join(rest)})" for rest in sorted(names))

    def warn_unreached(self) -> None:
        """Name the layers that never gave anything."""
        if not self._passes:
            return
        missing = [
            path
            for path in self.choices
            if not any(n.partition("@")[0] == path for n in self._moment.names)
        ]
        if missing:
            msg = (
                f"Nothing was recorded of {', '.join(missing)}: the forward pass never "
                "called them as modules, or they gave no tensor."
            )
            warnings.warn(msg, UserWarning, stacklevel=3)

    def warn_without_error(self) -> None:
        """Name the layers that no gradient of the loss ever reached."""
        silent = sorted(self._moment.names - self._signalled) if self._passes else []
        if silent:
            msg = (
                f"No error was recorded at {', '.join(silent)}: the loss does not "
                "depend on them, or their gradients are cut off (integers, `detach`, "
                "reentrant checkpoints)."
            )
            warnings.warn(msg, UserWarning, stacklevel=3)


def _prefixes(path: str) -> Iterator[str]:
    """Yield a path and all paths around it, the network's own empty one at last."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def check_names(names: Mapping[str, Choice], *, stored: bool) -> None:
    """Refuse layers whose names a recording or a store uses otherwise."""
    for name in names:
        if name in RESERVED:
            raise ValueError(_reserved(name))
        if stored:
            check_name(name)


def _reserved(name: str) -> str:
    return (
        f"Expected layers with names of their own, but {name!r} is a coordinate of "
        f"every recording; rename the module, or leave it out with '!{name}'."
    )


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
