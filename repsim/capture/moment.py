"""Outputs of one batch after another, brought into rows and into the sink."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.capture.axes import SHARED, Axes, Order, misfit
from repsim.capture.batches import Batch
from repsim.capture.copies import Copies
from repsim.capture.masks import Masks, is_ragged, matched, padded
from repsim.capture.rows import Reduce, as_rows, dims_of
from repsim.capture.selection import Choice, Found
from repsim.core.files import NOT_FINITE
from repsim.datasets.pooling import by_position, pooled, positions
from repsim.datasets.store.sinks import PARTIAL, Sink

Stack = list[tuple[str, Tensor | None]]


class Moment:
    """The rows of one moment: how many came of which layer, and what went wrong."""

    def __init__(
        self,
        sink: Sink,
        axes: Axes,
        masks: Masks,
        reduce: Reduce,
        choices: Mapping[str, Choice],
        taken: frozenset[str],
    ) -> None:
        self.sink, self._axes, self._masks = sink, axes, masks
        self._reduce, self._choices, self._taken = reduce, choices, taken
        self.lenient = False
        self.names: set[str] = set()
        self._examples: set[str] = set()  # matrices whose rows are the examples
        self._routed: set[str] = set()  # those whose rows are some of the tokens
        self.begin()

    def begin(self) -> None:
        """Forget the moment before."""
        self.seen = 0  # examples of the batches before
        self.done = 0  # rows of the batches before
        self.size: int | None = None
        self.failed: dict[str, Exception] = {}
        self.partial: dict[str, None] = {}
        self.not_finite: dict[str, int] = {}  # how many values
        self.without: dict[str, None] = {}
        self.widths: set[int] = set()
        self.tokens: list[np.ndarray] = []
        self.masks: dict[str, list[np.ndarray]] = {}
        self._counts: dict[str, int] = {}
        self._last: dict[str, tuple[Any, ...]] = {}
        self._open: list[tuple[str, Tensor]] = []
        self._copies = Copies()
        self._batch: Batch | None = None
        self._chosen: Tensor | None = None

    def begin_batch(self, batch: Batch, size: int | None) -> None:
        """Take up the next batch."""
        self._batch, self.size, self._chosen = batch, size, None
        self._masks.begin(batch, self.seen, size)

    def end_batch(self) -> None:
        """Count what the batch brought."""
        self._copies.wait()
        rows = self.size or 0
        if self._reduce == "tokens" and rows:
            if self._chosen is None:
                names = ", ".join(self._choices)
                msg = (
                    "Expected layers with tokens for reduce='tokens', but got none in "
                    f"{names}."
                )
                raise ValueError(msg)
            self.tokens.append(self._chosen.numpy())
            rows = int(self._chosen.sum())
        elif self._masks.now is not None:
            self.masks.setdefault("mask", []).append(self._masks.now.numpy())
        self.seen += self.size or 0
        self.done += rows

    def complete(self, step: int | None) -> None:
        """Fill with NaN what some batches passed by, and mark what is not finite."""
        self._copies.wait()
        for name, count in list(self._counts.items()):
            if count < self.done:
                self._guarded(name, partial(self._fill, name))
        for name in self.not_finite:
            self.sink.mark(name, {NOT_FINITE: step or 0})

    def joined_masks(self) -> dict[str, np.ndarray]:
        """Return the masks (example, token) that every batch had."""
        return {
            name: np.concatenate(parts)
            for name, parts in self.masks.items()
            if sum(map(len, parts)) == self.seen
            and len({part.shape[1] for part in parts}) == 1
        }

    def take(self, name: str, found: Found, stack: Stack) -> None:
        """Take an output, or hold it back where its axes are still unknown."""
        self.names.add(name)
        self._guarded(name, partial(self._place, name, found, stack))

    def refuse(self, name: str, error: Exception) -> None:
        """Take the news that there is no output of a layer."""

        def fail() -> None:
            raise error

        self.names.add(name)
        self._guarded(name, fail)

    def take_signal(self, name: str, tensor: Tensor) -> None:
        """Take an error signal, whose axes are its layer's."""
        if name.rpartition("@")[0] in self._routed:
            return  # of some tokens, as many as there are examples only by chance
        order = self._axes.known.get(name.rpartition("@")[0], Order(0, ("unit",)))
        if len(order.rest) != tensor.ndim - 1 and order.example != SHARED:
            order = self._axes.with_example(name, tuple(tensor.shape), 0)
        # Of a layer that is the same for all examples there is no error per sample.
        if order.example == SHARED or tensor.shape[order.example] != self.size:
            return
        rows = tensor.movedim(order.example, 0)
        self._guarded(name, partial(self._put, name, rows, order.rest))

    def settle(self, followed: Callable[[], Mapping[str, int | None]]) -> None:
        """Place what was held back, by the axes that follow the examples."""
        held, self._open = self._open, []
        if held:
            axes = followed()
            for name, tensor in held:
                self._guarded(name, partial(self._settle_one, name, tensor, axes))

    def _settle_one(
        self, name: str, tensor: Tensor, axes: Mapping[str, int | None]
    ) -> None:
        shape, size = tuple(tensor.shape), self.size or 0
        axis = axes.get(name)
        lone = len(shape) > 1 and shape[0] == 1 != size
        if name not in axes:
            if not shape or shape[0] != size:
                raise ValueError(misfit(name, shape, size, 0))
            axis = 0
            if len(shape) > 2:
                self._axes.doubtful[name] = ("example",)
        if axis is None or (axis == SHARED and not lone):
            raise ValueError(misfit(name, shape, size, None))
        if axis != SHARED and shape[axis] != size:
            raise ValueError(misfit(name, shape, size, axis))
        self._put_ordered(name, tensor, self._axes.with_example(name, shape, axis))

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """Let what one layer does end nothing once a training depends on it."""
        if name in self.failed:
            return
        try:
            work()
        except OSError:
            raise
        except Exception as error:
            if not self.lenient:
                raise
            self.failed[name] = error
            self.sink.drop(name)
            self._counts.pop(name, None)
            self.not_finite.pop(name, None)

    def _place(self, name: str, found: Found, stack: Stack) -> None:
        if is_ragged(found):
            tensor, mask = padded(found)
            self.size = len(tensor) if self.size is None else self.size
            self._axes.known[name] = Order(0, ("token", "unit")[: tensor.ndim - 1])
            self._put(name, tensor.detach(), self._axes.known[name].rest, mask)
            return
        assert isinstance(found, Tensor)
        tensor = found.detach()
        if self.size is None and tensor.ndim:
            self.size = len(tensor)
        size = self.size or 0
        route = self._route(name, tensor, size, stack)
        if route is not None:
            self._put_routed(name, tensor, *route)
            return
        if not tensor.ndim:
            raise ValueError(misfit(name, (), size, None))
        order = self._axes.decide(name, tuple(tensor.shape), size)
        if order is None:
            self._open.append((name, tensor.clone()))
        else:
            self._put_ordered(name, tensor, order)

    def _put_ordered(self, name: str, tensor: Tensor, order: Order) -> None:
        if order.example == SHARED:
            rows = tensor.expand(self.size or 1, *tensor.shape[1:])
        else:
            rows = tensor.movedim(order.example, 0)
        self._put(name, rows, order.rest)

    # rows that are some of the tokens

    def _route(
        self, name: str, tensor: Tensor, size: int, stack: Stack
    ) -> tuple[Tensor, tuple[int, ...]] | None:
        """Return which tokens a router sent here, found by their values.

        An expert's rows are rows of what a module around it was given.
        """
        own = stack[-1][1] if stack else None
        if tensor.ndim != 2 or own is None or own.ndim != 2 or len(own) != len(tensor):
            return None
        if name in self._examples or self._axes.said(name) is not None:
            return None
        for _, given in reversed(stack[:-1]):
            if given is None or given.ndim < 2 or given.shape[-1] != own.shape[-1]:
                continue
            if given.shape[0] != size or (given.ndim == 2 and len(own) == size):
                continue
            index = matched(own, given.flatten(0, -2))
            if index is None:
                continue
            inner = tuple(given.shape[1:-1])
            source = index // max(1, int(np.prod(inner, dtype=np.int64)))
            once = len(own) == size and torch.equal(source, torch.arange(size))
            if once and name not in self._routed:
                break  # one token of each: a class token, the last one
            self._routed.add(name)
            return index, inner
        if len(own) == size and name not in self._routed:
            self._examples.add(name)
        return None

    def _put_routed(
        self, name: str, tensor: Tensor, index: Tensor, inner: tuple[int, ...]
    ) -> None:
        size = self.size or 0
        count = size * int(np.prod(inner, dtype=np.int64))
        plain = tensor if tensor.is_floating_point() else tensor.double()
        rows = plain.new_full((count, tensor.shape[1]), torch.nan)
        rows[index.to(rows.device)] = plain
        there = torch.zeros(count, dtype=torch.bool)
        there[index] = True
        axes = {0: ("unit",), 1: ("token", "unit"), 2: ("y", "x", "channel")}
        names = axes.get(len(inner), tuple(f"axis{i}" for i in range(len(inner) + 1)))
        rows = rows.reshape(size, *inner, -1)
        received = there.reshape(size, -1) if inner else None
        self._put(name, rows, names, received=received)
        self._look(name, as_rows(name, tensor)[0])  # rows are NaN where none was sent
        if not bool(there.all()):
            self._mark(name)

    # into the sink

    def _put(
        self,
        name: str,
        rows: Tensor,
        axes: tuple[str, ...],
        mask: Tensor | None = None,
        *,
        received: Tensor | None = None,
    ) -> None:
        shape, places = rows.shape[1:], axes
        inner = self._mask_of(name, rows, axes, mask)
        if self._reduce == "tokens":
            if not positions(axes):
                self.without[name] = None
                self.sink.drop(name)
                return
            count = by_position(rows[:0], axes).shape[1]
            inner = self._tokens_of(name, inner, count)
        if received is not None and self._reduce == "mean":
            inner = received if inner is None else inner & received
        try:
            if self._reduce is not None:
                whole = None if self._batch is None else self._batch.whole
                rows = pooled(name, rows, axes, self._reduce, inner, whole)
                axes = ("unit",)
            elif "token" in axes:
                self.widths.add(rows.shape[1 + axes.index("token")])
                self._say_the_cost(name, rows)
            values, attrs = as_rows(name, rows, self._copies.start)
            dims = dims_of(name, axes or ("unit",), self._taken)
            self._last[name] = values.shape[1:], values.dtype, dims, attrs
            self._fill(name)

            def put() -> None:
                self.sink.put(name, values, dims, attrs)
                if name not in self._routed:
                    self._look(name, values, shape, places, inner)

            if self._copies.under_way:
                self._copies.then(partial(self._guarded, name, put))
            else:
                put()
        except MemoryError as error:
            size = rows.numel() * rows.element_size() / 1e12
            msg = (
                f"Expected layer {name!r} to fit into memory, but its output for "
                f"{self.size} examples takes {size:.1f} TB; leave it out with "
                "`layers`, or pass `reduce`."
            )
            raise ValueError(msg) from error
        self._counts[name] = self._counts.get(name, 0) + len(values)

    def _look(
        self,
        name: str,
        values: np.ndarray,
        shape: Sequence[int] = (),
        axes: tuple[str, ...] = (),
        mask: Tensor | None = None,
    ) -> None:
        """Count what is NaN or infinite; masked tokens aside, and rows without any.

        `shape` and `axes` are those of an example before it was pooled.
        """
        # One such value makes the sum one, too, and a sum costs a tenth of the rest;
        # the other way round it may only have overflown.
        wide = np.float32 if values.dtype == np.float16 else None
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(values.sum(dtype=wide)):
                return
        wrong = torch.from_numpy(~np.isfinite(values))
        if mask is not None and self._reduce in (None, "flatten"):
            wrong = by_position(wrong.reshape(-1, *shape), axes)[mask.cpu()]
        elif mask is not None and self._reduce in ("mean", "last", "first"):
            wrong = wrong[mask.any(1).cpu()]
        if count := int(wrong.sum()):
            self.not_finite[name] = self.not_finite.get(name, 0) + count

    def _say_the_cost(self, name: str, rows: Tensor) -> None:
        """Warn of a vocabulary of logits for every token, before the first is kept."""
        choice = self._choices.get(name)
        if choice is None or choice.named or name in self._counts or self.lenient:
            return
        if rows.shape[-1] in self._axes.vocabularies:
            each = rows[0].numel() * rows.element_size() / 2**20
            warnings.warn(
                f"Layer {name!r} gives {rows.shape[-1]} values, a vocabulary, for each "
                f"token: {each:.1f} MiB for each example at each recorded step. "
                f"Leave it out with layers=[…, '!{name}'], reduce it (reduce='last'), "
                "or name it in `layers` to keep it.",
                UserWarning,
                stacklevel=2,
            )

    def _fill(self, name: str) -> None:
        """Put NaN for the examples before, which passed this layer by."""
        missing = self.done - self._counts.get(name, 0)
        if missing > 0:
            tail, dtype, dims, attrs = self._last[name]
            self.sink.put(name, np.full((missing, *tail), np.nan, dtype), dims, attrs)
            self._counts[name] = self.done
            self._mark(name)
            if name not in self._routed:
                self.partial[name] = None

    def _mark(self, name: str) -> None:
        self.sink.mark(name, PARTIAL)

    def _mask_of(
        self, name: str, rows: Tensor, axes: tuple[str, ...], own: Tensor | None
    ) -> Tensor | None:
        places = positions(axes)
        if not places:
            return None
        count = int(np.prod([rows.shape[1 + i] for i in places], dtype=np.int64))
        if own is not None:
            key = f"{name}_mask"
            if self._reduce is None:
                self.masks.setdefault(key, []).append(own.numpy())
            return own
        return self._masks.of(name, count, tokens="token" in axes)

    def _tokens_of(self, name: str, mask: Tensor | None, count: int) -> Tensor:
        """Return which tokens are rows: the same in every layer of a batch."""
        if mask is None:
            mask = torch.ones((self.size or 0, count), dtype=torch.bool)
        self.widths.add(count)
        if self._chosen is None:
            self._chosen = mask
        elif self._chosen.shape != mask.shape or not torch.equal(self._chosen, mask):
            msg = (
                "Expected every layer to have the same tokens for reduce='tokens', but "
                f"{name!r} has {int(mask.sum())} in {tuple(mask.shape)}, those before "
                f"it {int(self._chosen.sum())} in {tuple(self._chosen.shape)}; choose "
                "layers of one tower with `layers`."
            )
            raise ValueError(msg)
        return mask
