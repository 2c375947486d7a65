"""Where activations go: the interface of a sink, and a moment as it arrives."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import xarray as xr

from repsim.core.files import NOT_FINITE


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

    def drop(self, name: str) -> None:
        """Forget what was put of one layer since `begin`: NaN in this moment."""

    def mark(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to a layer; what it has already stays."""

    def abandon(self) -> None:
        """Forget what was put since `begin`."""

    def commit(
        self,
        order: Sequence[str],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Complete the moment; `order` is the layers', coords lie on `example`."""

    def flush(self) -> None:
        """Wait until all is written, or raise what the system refused."""

    def finish(self) -> None:
        """Close in order: the recording is complete."""

    def close(self) -> None:
        """Close as it stands."""

    def dataset(self) -> xr.Dataset:
        """Return the complete moments."""


class Nowhere:
    """A sink that keeps nothing: another process writes the same moments."""

    def begin(self, step: int | None) -> None:
        """Nothing starts."""

    def put(
        self,
        name: str,
        rows: np.ndarray,
        dims: tuple[str, ...],
        attrs: Mapping[str, Any],
    ) -> None:
        """Nothing is kept."""

    def drop(self, name: str) -> None:
        """Nothing was kept."""

    def mark(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Nothing is marked."""

    def abandon(self) -> None:
        """Nothing was begun."""

    def commit(
        self,
        order: Sequence[str],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Nothing is written."""

    def flush(self) -> None:
        """Nothing waits."""

    def finish(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""

    def dataset(self) -> xr.Dataset:
        """Return an empty recording."""
        return xr.Dataset(attrs={"layers": []})


PARTIAL = {"partial": 1}
"""Attribute of a layer that some recorded passes did not reach: NaN in those."""


def marks(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return those attributes of a layer that may come after its first moment."""
    return {k: v for k, v in attrs.items() if k in (*PARTIAL, NOT_FINITE)}


class Layer:
    """What is known of a layer once its first rows have come."""

    def __init__(
        self, rows: np.ndarray, dims: tuple[str, ...], attrs: Mapping[str, Any]
    ) -> None:
        self.tail = rows.shape[1:]
        self.dtype = rows.dtype
        self.dims = dims
        self.attrs = dict(attrs)

    @property
    def row_bytes(self) -> int:
        """Bytes of one example."""
        return int(np.prod(self.tail, dtype=np.int64)) * self.dtype.itemsize

    def check(self, name: str, rows: np.ndarray) -> None:
        """Refuse rows of another shape or dtype than the first ones."""
        if rows.shape[1:] != self.tail or rows.dtype != self.dtype:
            msg = (
                f"Expected layer {name!r} to give {self.tail} {self.dtype} for each "
                f"example as before, but got {rows.shape[1:]} {rows.dtype}; pad inputs "
                "to one length, or pass `reduce`."
            )
            raise ValueError(msg)


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


class Gathering:
    """The layers of a recording, and the rows of the moment that is being recorded."""

    def __init__(self, block_rows: Callable[[str, Layer, int], int]) -> None:
        self.layers: dict[str, Layer] = {}
        self.blocks: dict[str, Blocks] = {}
        self.examples: int | None = None  # once a moment is complete
        self._block_rows = block_rows

    def begin(self) -> None:
        """Start a moment."""
        self.blocks = {}

    def put(
        self,
        name: str,
        rows: np.ndarray,
        dims: tuple[str, ...],
        attrs: Mapping[str, Any],
    ) -> Blocks:
        """Append rows to a layer once their shape is checked; return its blocks."""
        layer = self.layers.setdefault(name, Layer(rows, dims, attrs))
        layer.check(name, rows)
        if name not in self.blocks:
            self.blocks[name] = Blocks(self._block_rows(name, layer, len(rows)))
        self.blocks[name].put(rows)
        return self.blocks[name]

    def drop(self, name: str, known: Collection[str]) -> None:
        """Forget the moment of one layer, and the layer if this was its first."""
        self.blocks.pop(name, None)
        if name not in known:
            self.layers.pop(name, None)

    def mark(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to a layer; what it has already stays."""
        if name in self.layers:
            layer = self.layers[name]
            layer.attrs = {**attrs, **layer.attrs}

    def check(self, examples: int) -> None:
        """Refuse a moment in which a layer saw other than all the examples."""
        totals = {name: blocks.total for name, blocks in self.blocks.items()}
        short = [name for name, total in totals.items() if total != examples]
        if short:
            msg = (
                f"Expected layer {short[0]!r} to give one row for each of {examples} "
                f"examples, but it gave {totals[short[0]]}: some batches passed it by. "
                "Leave it out with `layers`, or record those examples apart."
            )
            raise ValueError(msg)
        if self.examples not in (None, examples):
            msg = (
                f"Expected {self.examples} examples as before, but got {examples}; "
                "record other examples into another place."
            )
            raise ValueError(msg)
        self.examples = examples

    def abandon(self, known: Collection[str]) -> None:
        """Forget the moment, and layers that are not known from another one."""
        self.blocks = {}
        self.layers = {n: layer for n, layer in self.layers.items() if n in known}


def ordered(
    names: Mapping[str, Any] | Sequence[str], order: Sequence[str]
) -> list[str]:
    """Return the names in this order; a name with `@` follows its layer."""
    place = {name: i for i, name in enumerate(order)}
    fallback = len(place)
    known = list(names)
    return sorted(
        known,
        key=lambda n: (
            place.get(n, place.get(n.partition("@")[0], fallback)),
            "@" in n,
        ),
    )


def plain(names: Sequence[str]) -> list[str]:
    """Return the names that stand for layers, error signals left out."""
    return [n for n in names if not n.endswith(("@error", "@true_error"))]
