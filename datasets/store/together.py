"""One recording on the disk, written by several processes, each its own examples."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from repsim.datasets.store.agreement import (
    Apart,
    Ranks,
    Talk,
    as_text,
    joined,
    share_of,
)
from repsim.datasets.store.elsewhere import is_elsewhere
from repsim.datasets.store.places import NoLock
from repsim.datasets.store.sinks import PARTIAL, Blocks, Layer, marks
from repsim.datasets.store.writer import Writer
from repsim.datasets.store.zarr_format import Array, Codec, block_rows, object_name


def opened_together(
    ranks: Ranks,
    path: Path,
    opened: Callable[[Callable[..., "Together"]], Writer],
    *,
    rows: int | None,
    same: Mapping[str, Any],
    codec: Codec | None = None,
) -> "Together":
    """Return this rank's writer of a place that the first rank opens for all.

    `rows` is the number of examples, None where they cannot be divided: the first
    rank writes all of them. `same` must be equal on every rank.
    """
    make = partial(Together, ranks=ranks)
    first: Together | None = None
    said: dict[str, Any] = {"same": {"store": str(path), **same}}
    if ranks.rank == 0:
        try:
            first = opened(make)  # type: ignore[assignment]
            assert isinstance(first, Together)
            said |= first.state(rows)
        except Exception as error:
            ranks.say(json.dumps({"error": [type(error).__name__, str(error)]}))
            raise
    heard = [
        json.loads(text) for text in ranks.exchange(json.dumps(said), opening=True)
    ]
    if "error" in heard[0]:
        kind, sentence = heard[0]["error"]
        kinds = {"FileExistsError": FileExistsError, "OSError": OSError}
        raise kinds.get(kind, ValueError)(sentence)
    wrong = _other_than_first(heard)
    if not wrong:
        there = is_elsewhere(path) or path.is_dir()
        seen = ranks.exchange("there" if there else "not there", opening=True)
        blind = [rank for rank, text in enumerate(seen) if text != "there"]
        if blind:
            wrong = (
                f"Expected every rank to see the folder {path}, but rank {blind[0]} "
                "does not; give a place that all share."
            )
    if wrong:
        if first is not None:
            first.close()
        raise ValueError(wrong)
    writer = first or make(path, examples=rows, codec=codec, lock=NoLock())
    writer.divide(rows, heard[0])
    return writer


def _other_than_first(heard: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong where a rank was given other things than the first."""
    for rank, other in enumerate(heard):
        for what, value in heard[0]["same"].items():
            if other["same"][what] != value:
                return (
                    f"Expected the same {what} on every rank, as each records a part, "
                    f"but rank {rank} has others than rank 0; give all ranks the same."
                )
    return ""


class Together(Writer):
    """A writer of some of the examples; the first rank writes documents and marks.

    A moment carries its commit mark once every rank has written its objects of it, so
    that whichever process dies, the store shows moments that are whole.
    """

    _alone = False  # another rank may still be writing: whoever opens next clears it

    def __init__(self, path: Path, *, ranks: Ranks, **options: Any) -> None:
        super().__init__(path, **options)
        self._ranks = ranks
        self._first = ranks.rank == 0
        self._rows: int | None = None
        self._share: int | None = None
        self._moments = 0
        self._trouble: OSError | None = None
        self._talk = Talk(ranks)
        self._came: dict[str, int] = {}

    def state(self, rows: int | None) -> dict[str, Any]:
        """Return what the other ranks must know of what lies there."""
        chunks = [a.chunks[1] for a in self._arrays.values()]
        return {
            "share": None
            if rows is None
            else share_of(rows, self._ranks.world, chunks),
            "arrays": {n: a.document() for n, a in self._arrays.items()},
            "steps": self.steps,
            "attrs": self._attrs,
        }

    def divide(self, rows: int | None, state: Mapping[str, Any]) -> None:
        """Take up this rank's share of so many examples, as the first rank says."""
        self._rows, self._share = rows, state["share"]
        if state["arrays"] and not self._first:
            arrays = {n: Array.parse(d) for n, d in state["arrays"].items()}
            self.adopt(arrays, state["steps"], state["attrs"])
        self._gathering.examples = None  # those of a moment are this rank's

    @property
    def _divided(self) -> bool:
        return self._share is not None and self._share < (self._rows or 0)

    @property
    def span(self) -> slice | None:
        """The examples that this rank must pass, as many as every other; None: all.

        Equal numbers make equal passes, which a network in shards depends on. The last
        ranks pass some that an earlier one writes.
        """
        if self._share is None or self._rows is None or not self._divided:
            return None
        start = min(self._ranks.rank * self._share, self._rows - self._share)
        return slice(start, start + self._share)

    @property
    def _skip(self) -> int | None:
        """How many of the passed examples other ranks write; None: all."""
        if self._first:
            return 0
        span = self.span
        if span is None or self._share is None:
            return None
        skip = self._ranks.rank * self._share - span.start
        return skip if skip < self._share else None

    # what comes of this rank's pass

    def begin(self, step: int | None) -> None:
        """Start a moment."""
        self._talk.begin(step)
        self._came = {}
        super().begin(step)

    def put(
        self,
        name: str,
        rows: np.ndarray,
        dims: tuple[str, ...],
        attrs: Mapping[str, Any],
    ) -> None:
        """Append this rank's rows to a layer."""
        came = self._came.get(name, 0)
        self._came[name] = came + len(rows)
        skip = len(rows) if self._skip is None else max(0, self._skip - came)
        super().put(name, rows[skip:], dims, attrs)

    def drop(self, name: str) -> None:
        """Forget one layer's rows in this moment, and the objects of this rank."""
        if not self._divided:
            super().drop(name)
            return
        self._came.pop(name, None)
        written = self._emitted.pop(name, 0)
        if written:
            blocks = self._gathering.blocks[name]
            tail = (0,) * len(self._gathering.layers[name].tail)
            for place in range(written):
                at = self._place(blocks.rows, place)
                file = self.path / name / object_name((*self._moment, *at, *tail))
                self._submit(partial(file.unlink, missing_ok=True))
        self._gathering.drop(name, self._arrays)

    def abandon(self) -> None:
        """Forget the moment, and let the others know."""
        super().abandon()
        self._talk.give_up()

    def commit(
        self,
        order: Sequence[str],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Complete this rank's part, and the moment once all ranks have."""
        skip = len(coords["example"]) if self._skip is None else self._skip
        own = {name: values[skip:] for name, values in coords.items()}
        self._gathering.check(len(own["example"]))
        heard = self._exchanged(own)
        for name, blocks in self._gathering.blocks.items():
            self._complete(name, blocks)
        self._moments += 1
        self._submit(self._ranks.wrote)
        if self._first:
            self._submit(partial(self._ranks.await_written, self._moments))
        moment: Mapping[str, Blocks] = self._gathering.blocks
        if self._divided:
            moment = self._merged(heard)
            if self._attrs is None:
                coords = {name: joined(name, heard) for name in own}
        elif not self._first:
            moment = {}
        self._enter(moment, order, coords, attrs)

    # what the ranks tell each other

    def _exchanged(self, own: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """Return what each rank has of this moment; an error where one has nothing."""
        facts: dict[str, Any] = {"rows": len(own["example"]), "layers": {}}
        if self._trouble is not None:
            facts = {"lost": str(self._trouble.__cause__ or self._trouble)}
        elif self._divided:
            for name, blocks in self._gathering.blocks.items():
                layer = self._gathering.layers[name]
                facts["layers"][name] = {
                    "tail": layer.tail,
                    "dtype": layer.dtype.str,
                    "dims": layer.dims,
                    "attrs": layer.attrs,
                    "chunk": blocks.rows,
                }
            if self._attrs is None:
                facts["coords"] = {name: as_text(v) for name, v in own.items()}
        try:
            return self._talk.exchange(facts)
        except Apart as error:
            if self._trouble is not None:
                raise self._trouble from error
            with suppress(OSError):  # what is under way is told as complete or not
                self._worker.flush()
            raise self._told(error) from error

    def _merged(self, heard: list[dict[str, Any]]) -> dict[str, Blocks]:
        """Return the moment of all ranks: a layer that one lacks is NaN there."""
        moment: dict[str, Blocks] = {}
        writing = [facts for facts in heard if facts["rows"]]
        for facts in writing:
            for name, told in facts["layers"].items():
                empty = np.empty((0, *told["tail"]), told["dtype"])
                fresh = Layer(empty, tuple(told["dims"]), told["attrs"])
                layer = self._gathering.layers.setdefault(name, fresh)
                lacks = any(name not in other["layers"] for other in writing)
                new = marks(told["attrs"]) | (PARTIAL if lacks else {})
                layer.attrs = {**new, **layer.attrs}
                moment[name] = Blocks(told["chunk"])
                moment[name].total = self._rows or 0
        return moment

    # where what is written goes

    def _block_rows(self, name: str, layer: Layer, came: int) -> int:
        if not self._divided or name in self._arrays or self._share is None:
            return super()._block_rows(name, layer, came)
        most = block_rows(layer.row_bytes, self._share)
        return max(d for d in range(1, most + 1) if self._share % d == 0)

    def _complete(self, name: str, blocks: Blocks) -> None:
        if not self._divided:
            super()._complete(name, blocks)
            return
        rest = blocks.rest()
        if rest is not None:
            self._emit(name, rest, blocks.rows)

    def _place(self, rows: int, place: int) -> tuple[int, ...]:
        before = self._ranks.rank * (self._share or 0) if self._divided else 0
        return (before // rows + place,)

    def _clear(self, index: int) -> None:
        """Nothing: the others write there already, and all is written over."""

    def _submit(self, job: Callable[[], None], size: int = 0) -> None:
        try:
            super()._submit(job, size)
        except OSError as error:  # said in the next moment, to all ranks at once
            self._trouble = self._trouble or error

    def _submit_document(self, name: str, array: Array) -> None:
        if self._first:
            super()._submit_document(name, array)

    def _submit_attrs(self) -> None:
        if self._first:
            super()._submit_attrs()

    def _submit_coords(self, coords: Mapping[str, np.ndarray]) -> None:
        if self._first:
            super()._submit_coords(coords)

    def _submit_marks(self) -> None:
        if self._first:
            super()._submit_marks()
        else:
            self._committed = self.steps

    def _told(self, error: OSError) -> OSError:
        if not isinstance(error, Apart):
            return super()._told(error)
        return Apart(
            f"Expected all ranks to write the recording at {self.path} together, but "
            f"{error}; {self._kept()}."
        )

    def finish(self, complete: int = 1) -> None:
        """Write what waits; the first rank packs and marks it complete."""
        if self._first:
            super().finish(complete)
        else:
            self.close()

    def close(self) -> None:
        """Write what waits and end the background thread."""
        if self._first:
            super().close()
            return
        try:
            self.flush()
        except OSError:
            self._ranks.lost()
            raise
        finally:
            self._worker.close()
