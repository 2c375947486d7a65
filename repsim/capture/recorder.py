"""The recorder: a network's answers to fixed examples while it is trained."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, cast

import torch
import xarray as xr
from torch import Tensor, nn

from repsim.capture.axes import AxesSaid
from repsim.capture.batches import (
    Batch,
    Forward,
    as_array,
    batches_of,
    inputs_axis,
    inputs_hash,
    known_rows,
)
from repsim.capture.distributed import part_of, shard_again
from repsim.capture.errors import Signals, needed_labels, of_loss, of_rule
from repsim.capture.header import Header
from repsim.capture.isolation import same_random_numbers, undisturbed
from repsim.capture.learnt import (
    TRAINING,
    LearntBatches,
    Reduction,
    as_errors,
    check_watchable,
)
from repsim.capture.masks import MaskSaid
from repsim.capture.opening import Place
from repsim.capture.origin import provenance
from repsim.capture.rows import Reduce
from repsim.capture.schedule import Schedule
from repsim.capture.selection import Choice, Layers, select, unwrap
from repsim.capture.session import (
    OnError,
    Session,
    check_names,
    check_ready,
    network_of,
)
from repsim.core.messages import whole
from repsim.datasets.pooling import check_how, how_named
from repsim.datasets.store.reader import read
from repsim.datasets.store.shared import SharedSink
from repsim.datasets.store.sinks import Sink
from repsim.datasets.store.zarr_format import Codec

Errors = Literal[True, "mean", "sum"] | Callable[[Any, Any], Tensor] | None


class Recorder:
    """Record a network's layers on fixed examples while any loop trains it.

    Training is not disturbed: weights, random numbers, buffers, modes and flags are
    bit for bit what they would have been.

    Parameters
    ----------
    model : Module
        Any network, or a learning rule (its `network` is recorded).
    inputs : tensor, dict, iterable of batches, or "training"
        The fixed examples, as for `record`; or "training": the very batches that are
        learnt, as training's own passes compute them, at step k those of update k + 1.
    layers : str, iterable of str or predicate
        As for `tap`.
    labels : array of shape (example,) or None
        Labels, where the batches carry none.
    examples : array of shape (example,) or None
        Ids in the source data; 0, 1, … by default.
    every : int
        Record before the first update and after each `every` updates.
    steps : iterable of int, predicate or None
        Exactly those numbers of updates instead.
    last : bool
        Record on leaving the block, too.
    store : str, Path, zarr store or None
        A zarr store, written in the background, also elsewhere ("s3://…", "gs://…");
        None keeps it in memory.
    group : str or None
        A place in the store, `"bp/0"`.
    resume : bool
        Continue what lies in the store; start anew where nothing does.
    start : int or None
        The number of updates already made. Recorded steps after it are replaced.
    reduce : {"flatten", "mean", "last", "first", "tokens"}, callable or None
        What becomes of maps and tokens, as for `record`.
    forward : callable or None
        `forward(model, batch) -> output` for models that need more than a call.
    batch_size : int
        Examples that pass through the network at once.
    errors : True, callable, "mean", "sum" or None
        Also record the error at each layer, per sample: True with a learning rule
        (the error it uses and the true one), or a loss `f(output, labels)`. With
        inputs="training" how the training's loss joins the examples of a pass:
        gradients as they come ("sum"), or times the number of examples ("mean").
    attrs : mapping or None
        Further attributes: `seed`, `init_seed`, `dataset`, …
    axes : mapping or None
        Which axis of an output is what, by pattern, as for `record`.
    mask : array (example, token), callable or None
        Which tokens count, as for `record`.
    on_error : {"raise", "skip"}
        What a layer that cannot be recorded does before the first moment is complete:
        raise, or be left out with a warning. Later it is NaN in that moment.
    level : int
        Of zstd, in the store.
    storage_options : mapping or None
        What fsspec needs for a store elsewhere: keys, an endpoint.
    log : callable or None
        Called with the number of updates and the moment after each is recorded:
        `repsim.callbacks.TextLog()`, `TensorBoardLog`, `WandbLog`, or your own.

    Attributes
    ----------
    failure : Exception or None
        What ended the recording while training went on, such as a disk that is full.

    Raises
    ------
    FileExistsError
        If the place in the store is taken and `resume` is False.
    ValueError
        If layers, inputs, labels or steps do not fit.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> with Recorder(net, torch.ones(5, 4), every=2) as recorder:
    ...     for update in range(4):
    ...         recorder.step()
    >>> recorder.dataset()["step"].values.tolist()
    [0, 2, 4]
    """

    def __init__(
        self,
        model: Any,
        inputs: Any,
        layers: Layers = "*",
        labels: Any = None,
        examples: Any = None,
        every: int = 100,
        steps: Iterable[int] | Callable[[int], bool] | None = None,
        last: bool = False,
        store: Any = None,
        group: str | None = None,
        resume: bool = False,
        start: int | None = None,
        reduce: Reduce = None,
        forward: Forward | None = None,
        batch_size: int = 256,
        errors: Errors = None,
        attrs: Mapping[str, Any] | None = None,
        *,
        axes: AxesSaid = None,
        mask: MaskSaid = None,
        on_error: OnError = "raise",
        level: int = 1,
        storage_options: Mapping[str, Any] | None = None,
        log: Callable[[int, xr.Dataset], Any] | None = None,
    ) -> None:
        self._network: nn.Module = unwrap(network_of(model))
        choices = select(self._network, layers)
        check_ready(self._network)
        self._schedule = Schedule(every, steps)
        self._last = last
        start = None if start is None else whole(start, "start")
        self._count = start or 0
        batch_size = whole(batch_size, "batch_size", 1)
        check_how(reduce, "reduce", optional=True)
        self._learns = isinstance(inputs, str) and inputs == TRAINING
        if self._learns:
            check_watchable(model, self._network)
            _check_learnable(labels, examples, last, forward, mask, reduce)
            self._batches: list[Batch] = []
        else:
            with same_random_numbers():  # inputs may be a shuffling DataLoader
                axis = inputs_axis(inputs, axes, labels, examples)
                self._batches = list(
                    batches_of(
                        inputs, whole=forward is not None, size=batch_size, axis=axis
                    )
                )
        head = provenance(model, self._network, reduce=reduce, attrs=attrs, axes=axes)
        if self._learns:
            head["batches"] = TRAINING
        else:
            head["inputs_sha256"] = inputs_hash(self._batches)
        self._header = Header(labels, examples, head)
        if labels is not None:
            _spread(labels, self._batches)
        known = None if self._learns else known_rows(self._batches, reduce)
        self._session = Session(
            self._network,
            choices,
            reduce=reduce,
            forward=forward,
            signals=self._signals(model, choices, errors, forward),
            axes=axes,
            mask=mask,
            on_error=on_error,
        )
        self._learnt = self._session.watching(errors) if self._learns else None
        self._part = part_of(
            model, self._network, passes=not self._learns, stored=store is not None
        )
        check_names(choices, stored=store is not None)
        self._place = Place(
            store,
            group,
            storage_options,
            due=self._schedule.due if resume else None,
            start=start,
            codec=Codec(level),
        )
        self._sink: Sink
        if self._part == "shares":
            rows = known if log is None else None
            self._sink, shared = self._place.shared(
                self._session, self._header, None if log else self._batches, rows
            )
            self._batches = list(shared or self._batches)
        else:
            self._sink = self._place.sink(
                self._part, self._session, self._header, known
            )
        self._log = log
        self._shared: SharedSink | None = None
        if log is not None and self._writes:
            self._sink = self._shared = SharedSink(self._sink)
        self._session.use(self._sink)
        self._recorded: int | None = None
        self._open = self._closed = self._under_way = False
        self.failure: Exception | None = None

    @property
    def _writes(self) -> bool:
        """Whether this process is the one that completes the recording."""
        return self._part == "writes" or (
            self._part == "shares" and torch.distributed.get_rank() == 0
        )

    def __repr__(self) -> str:
        """Return network, layers, updates and whether it is open, in a line."""
        state = "open" if self._open else "closed" if self._closed else "not started"
        last = "" if self._recorded is None else f", last recorded {self._recorded}"
        n, done = len(self._session.choices), self._count
        return (
            f"<repsim.Recorder of {type(self._network).__name__}: {n} "
            f"layer{'s' * (n != 1)}, {state} after {done} update{'s' * (done != 1)}"
            f"{last}>"
        )

    def __enter__(self) -> Self:
        """Start; leaving the block closes."""
        return self.start()

    def start(self) -> Self:
        """Open the recording, and record where step 0 (or `start`) is due.

        For a training in several cells of a notebook: `recorder.start()` in one,
        `recorder.step()` in the loop, `recorder.close()` at last. `with` does both.

        Returns
        -------
        Recorder
            This one.

        Raises
        ------
        ValueError
            If it was closed before, or something cannot be recorded: said before the
            first update, also where the first moment is due later.
        """
        if self._closed:
            msg = (
                "Expected a new recorder, but this one was closed; go on with another "
                "one: Recorder(..., resume=True, start=...) continues a store."
            )
            raise ValueError(msg)
        self._open = True
        try:
            due = self._schedule.due(self._count)
            if self._learnt is not None:
                self._watch(due)
                if not due:
                    self._session.trust()
            elif due:
                self.snapshot()
            elif self._part != "rests":
                with undisturbed(self._network):
                    self._session.rehearse(self._batches, self._header)
            self._sink.flush()  # a disk that refuses does so now
        except BaseException:
            self.close(complete=False)
            raise
        self._under_way = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the recording, complete unless an exception passes through."""
        self.close(complete=kind is None)

    def step(self) -> None:
        """Count one update, and record where one is due."""
        self.advance(1)

    def advance(self, updates: int) -> None:
        """Count several updates made at once, and record where one of them is due.

        Parameters
        ----------
        updates : int
            How many; one moment at most is recorded, as of the last of them (with
            inputs="training", the batches since the one before).

        Raises
        ------
        ValueError
            If the recorder is not open, or `updates` is negative.
        """
        self._check_open()
        updates, due = whole(updates, "updates"), False
        if updates and self._learnt is not None and self._learnt.watching:
            self._record(self._seen(self._learnt))
        for _ in range(updates):
            self._count += 1
            due = self._schedule.due(self._count) or due
        if self._learnt is not None:
            self._watch(due or self._learnt.watching)
        elif due:
            self.snapshot()

    def due(self, updates: int) -> bool:
        """Return whether the network is recorded after so many updates.

        Parameters
        ----------
        updates : int
            The number of updates made since the start of training.

        Returns
        -------
        bool
            What `every` or `steps` says; `last` is not looked at.
        """
        return self._schedule.due(updates)

    def snapshot(self) -> None:
        """Record now, whatever the schedule says.

        Raises
        ------
        ValueError
            If the recorder is not open, or waits for the batches of a training.
        """
        self._check_open()
        if self._learns:
            msg = (
                'Expected fixed examples for a snapshot, but inputs="training" records '
                "the batches that are learnt; make another recorder for those examples."
            )
            raise ValueError(msg)
        self._record(self._batches)

    def _record(self, batches: Sequence[Batch] | Iterator[Batch]) -> None:
        if self.failure is not None:
            return
        if self._part != "rests":
            with self._surviving(), undisturbed(self._network):
                self._session.record(batches, self._count, self._header)
                shard_again(self._network)
        self._recorded = self._count
        if self._log is not None and self._shared is not None:
            if self._shared.moment is not None:  # None: its pass failed, with a warning
                self._logged(self._log, self._shared.moment)

    def _logged(
        self, log: Callable[[int, xr.Dataset], Any], moment: xr.Dataset
    ) -> None:
        try:
            log(self._count, moment)
        except Exception as error:
            if not self._under_way:
                raise
            msg = (
                f"The moment after {self._count} updates was recorded but not logged "
                f"({type(error).__name__}: {error}); training goes on."
            )
            warnings.warn(msg, UserWarning, stacklevel=4)

    @contextmanager
    def _surviving(self, *kinds: type[Exception]) -> Iterator[None]:
        """End the recording and not the training where the system refuses to write."""
        refusals: tuple[type[Exception], ...] = (OSError, *kinds)
        try:
            yield
        except refusals as error:
            if not self._under_way:
                raise
            if self.failure is None:
                self.failure = error
                msg = (
                    f"Nothing more is recorded after {self._count} updates, and "
                    f"training goes on: {error}"
                )
                warnings.warn(msg, UserWarning, stacklevel=6)

    def _watch(self, due: bool) -> None:
        """Let hooks see the batches of the next update, where those are due."""
        if due and self._learnt is not None and self._part == "writes":
            self._learnt.watch()

    def _seen(self, learnt: LearntBatches) -> Iterator[Batch]:
        """Yield the batches of the update just made; the first tell what came."""
        learnt.rest()
        batches = list(learnt.taken())
        self._header.attrs.setdefault("inputs_sha256", inputs_hash(batches))
        yield from batches

    def close(self, *, complete: bool = True) -> None:
        """Close the recording; in order, and so complete, unless told otherwise.

        Parameters
        ----------
        complete : bool
            Record the last moment where `last` asks for it, and mark the recording
            complete. False closes it as it stands.
        """
        if not self._open:
            return
        try:
            if complete and self._last and self._recorded != self._count:
                self.snapshot()
            if complete and self.failure is None:
                with self._surviving(Exception):
                    self._sink.finish()
        finally:
            self._open, self._closed = False, True
            if self._learnt is not None:
                self._learnt.rest()
            with self._surviving(Exception):
                self._sink.close()
        if complete:
            self._session.warn_unreached()
            if self._header.attrs.get("errors", "rule") != "rule":
                self._session.warn_without_error()

    def dataset(self) -> xr.Dataset:
        """Return what was recorded so far; lazily where there is a store.

        Returns
        -------
        Dataset
            The complete moments, along `step`.
        """
        path = self._place.path
        if path is None or (self._writes and self.failure is None):
            return self._sink.dataset()
        return read(path)

    def _signals(
        self,
        model: Any,
        choices: Mapping[str, Choice],
        errors: Errors,
        forward: Forward | None,
    ) -> Signals | None:
        if errors is None:
            return None
        if self._learns != (errors in ("mean", "sum")):
            msg = (
                "Expected `errors` to be 'mean' or 'sum' with inputs=\"training\" and "
                f"only there, as its own loss joins the examples, but got {errors!r}."
            )
            raise ValueError(msg)
        if self._learns:
            self._header.attrs["errors"] = f"training, {errors}"
            return partial(as_errors, cast(Reduction, errors))
        for batch in self._batches:
            needed_labels(batch)
        if callable(errors):
            self._header.attrs["errors"] = how_named(errors)
            return of_loss(self._network, choices, errors, forward)
        if errors is True and callable(getattr(model, "errors", None)):
            self._header.attrs["errors"] = "rule"
            return of_rule(model, choices)
        msg = (
            "Expected `errors` to be a loss f(output, labels), or True with a learning "
            f"rule of repsim.learning, but got {errors!r} with {type(model).__name__}."
        )
        raise ValueError(msg)

    def _check_open(self) -> None:
        if not self._open:
            msg = (
                "Expected the recorder to be open, but it is not; use it as `with "
                "Recorder(...) as recorder:` around the training loop, or call its "
                "start() before and its close() after."
            )
            raise ValueError(msg)


def _check_learnable(
    labels: Any, examples: Any, last: bool, forward: Any, mask: Any, reduce: Any
) -> None:
    """Refuse what asks for the same examples at every step, or for a pass."""
    given = {
        "labels": labels is not None,
        "examples": examples is not None,
        "last": last,
        "forward": forward is not None,
        "mask as an array": mask is not None and not callable(mask),
        "reduce='tokens'": reduce == "tokens",
    }
    for name, there in given.items():
        if there:
            msg = (
                f'Expected no {name} with inputs="training", whose batches are others '
                "at every step; leave it out, or give fixed examples."
            )
            raise ValueError(msg)


def _spread(labels: Any, batches: list[Batch]) -> None:
    """Give each batch its part of labels that came apart from the inputs."""
    values = as_array(labels)
    if values.dtype.kind not in "iufb" or any(b.size is None for b in batches):
        return
    start = 0
    for batch in batches:
        stop = start + (batch.size or 0)
        batch.labels = torch.from_numpy(values[start:stop])
        start = stop
