"""Where a recording gathers: the interface of a sink, and the one in memory."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import xarray as xr


class Sink(Protocol):
    """What takes activations, batch by batch and moment by moment.

    One moment is `begin`, any number of `put` (rows appended to a layer, copied at
    once), and `commit`; an exception in between is followed by `abandon`.
    """

    def begin(self, step: int | None) -> None:
        """Start the moment after `step` updates (None: a recording without steps)."""

    def put(
        self,
        name: str,
        rows: np.ndarray,
        dims: tuple[str, ...],
        attrs: Mapping[str, Any],
    ) -> None:
        """Append rows (example, …) to a layer; they are copied before it returns."""

    def abandon(self) -> None:
        """Forget what was put since `begin`."""

    def commit(
        self,
        order: Sequence[str],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Complete the moment; `order` is the layers', coords lie on `example`."""

    def finish(self) -> None:
        """Close in order: the recording is complete."""

    def close(self) -> None:
        """Close as it stands."""

    def dataset(self) -> xr.Dataset:
        """Return the complete moments."""


class Blocks:
    """Rows of one layer that arrive batch by batch, gathered into blocks."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.total = 0
        self.full: list[np.ndarray] = []
        self._block: np.ndarray | None = None
        self._filled = 0

    def put(self, values: np.ndarray) -> None:
        """Copy rows; blocks that are full wait in `full`."""
        self.total += len(values)
        while len(values):
            if self._block is None:
                shape = (self.rows, *values.shape[1:])
                self._block = np.empty(shape, values.dtype)
            taken = min(self.rows - self._filled, len(values))
            self._block[self._filled : self._filled + taken] = values[:taken]
            self._filled += taken
            values = values[taken:]
            if self._filled == self.rows:
                self.full.append(self._block)
                self._block, self._filled = None, 0

    def rest(self) -> np.ndarray | None:
        """Return the last block, cut to what it holds, or None."""
        if self._block is None:
            return None
        rest = self._block[: self._filled]
        self._block, self._filled = None, 0
        return rest


class Layer:
    """What is known of a layer once its first rows have come."""

    def __init__(
        self, rows: np.ndarray, dims: tuple[str, ...], attrs: Mapping[str, Any]
    ) -> None:
        self.tail = rows.shape[1:]
        self.dtype = rows.dtype
        self.dims = dims
        self.attrs = dict(attrs)

    def check(self, name: str, rows: np.ndarray) -> None:
        """Refuse rows of another shape or dtype than the first ones."""
        if rows.shape[1:] != self.tail or rows.dtype != self.dtype:
            msg = (
                f"Expected layer {name!r} to give {self.tail} {self.dtype} for each "
                f"example as before, but got {rows.shape[1:]} {rows.dtype}; pad inputs "
                "to one length, or pass `reduce`."
            )
            raise ValueError(msg)


class Memory:
    """A sink that keeps everything in memory.

    Parameters
    ----------
    examples : int or None
        The number of examples, where known beforehand.
    attrs : mapping or None
        What the recording says of itself where no moment is ever recorded.
    """

    def __init__(
        self,
        examples: int | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self._examples = examples
        self._layers: dict[str, Layer] = {}
        self._moments: list[dict[str, np.ndarray]] = []
        self._steps: list[int] = []
        self._step: int | None = None
        self._moment: dict[str, Blocks] = {}
        self._order: list[str] = []
        self._coords: dict[str, np.ndarray] = {}
        self._attrs: dict[str, Any] = {**(attrs or {}), "complete": 0}

    def begin(self, step: int | None) -> None:
        """Start a moment."""
        self._step, self._moment = step, {}

    def put(
        self,
        name: str,
        rows: np.ndarray,
        dims: tuple[str, ...],
        attrs: Mapping[str, Any],
    ) -> None:
        """Append rows to a layer."""
        layer = self._layers.setdefault(name, Layer(rows, dims, attrs))
        layer.check(name, rows)
        if name not in self._moment:
            self._moment[name] = Blocks(self._examples or max(1, len(rows)))
        self._moment[name].put(rows)

    def abandon(self) -> None:
        """Forget the moment, and layers that were seen in it alone."""
        self._moment = {}
        seen = {name for moment in self._moments for name in moment}
        self._layers = {n: s for n, s in self._layers.items() if n in seen}

    def commit(
        self,
        order: Sequence[str],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Complete the moment, or replace the last one where its step is the same."""
        moment = {}
        for name, blocks in self._moment.items():
            rest = blocks.rest()
            parts = [*blocks.full, *([] if rest is None else [rest])]
            moment[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self._steps and self._step == self._steps[-1]:
            self._moments[-1] = moment
        else:
            self._moments.append(moment)
            if self._step is not None:
                self._steps.append(self._step)
        self._order, self._coords = list(order), dict(coords)
        self._attrs, self._moment = {**attrs, "complete": 0}, {}

    def finish(self) -> None:
        """Mark the recording complete."""
        self._attrs["complete"] = 1

    def close(self) -> None:
        """Nothing is open."""

    def dataset(self) -> xr.Dataset:
        """Return the moments so far as one Dataset."""
        names = ordered(self._layers, self._order)
        variables = {}
        for name in names:
            layer = self._layers[name]
            dims = ("step", *layer.dims) if self._steps else layer.dims
            variables[name] = (dims, self._stack(name), layer.attrs)
        coords: dict[str, Any] = {}
        if self._steps:
            coords["step"] = ("step", np.array(self._steps, np.int64))
        coords |= {k: ("example", v) for k, v in self._coords.items()}
        return xr.Dataset(variables, coords, {**self._attrs, "layers": plain(names)})

    def _stack(self, name: str) -> np.ndarray:
        if not self._steps:
            return self._moments[0][name]
        first = next(m[name] for m in self._moments if name in m)
        stacked = np.empty((len(self._moments), *first.shape), first.dtype)
        for i, moment in enumerate(self._moments):
            stacked[i] = moment.get(name, np.nan)
            if name in moment:
                # A view from now on, so that the peak is one layer above the total.
                moment[name] = stacked[i]
        return stacked


def ordered(
    names: Mapping[str, Any] | Sequence[str], order: Sequence[str]
) -> list[str]:
    """Return the names in this order; a name with `@` follows its layer."""
    place = {name: i for i, name in enumerate(order)}
    fallback = len(place)
    known = list(names)
    return sorted(
        known,
        key=lambda n: place.get(n, place.get(n.partition("@")[0], fallback)),
    )


def plain(names: Sequence[str]) -> list[str]:
    """Return the names that stand for layers, error signals left out."""
    return [n for n in names if not n.endswith(("@error", "@true_error"))]
