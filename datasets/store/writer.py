"""A recording on the disk while it grows: objects first, the commit mark last."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from repsim.datasets.store.elsewhere import remove_tree, told
from repsim.datasets.store.objects import (
    clear_objects,
    marks_array,
    write_block,
    write_coordinate,
    write_marks,
)
from repsim.datasets.store.places import Lock, check_name, is_aborted, refused
from repsim.datasets.store.sinks import (
    PARTIAL,
    Blocks,
    Gathering,
    Layer,
    marks,
    ordered,
    plain,
)
from repsim.datasets.store.worker import Worker
from repsim.datasets.store.zarr_format import (
    Array,
    Codec,
    block_rows,
    group_document,
    object_name,
    write_document,
)

FIRST_CAPACITY = 64


class Writer:
    """A sink that writes to a zarr group in the background."""

    _alone = True
    """Whether nobody else writes here, so that what was never complete is removed."""

    def __init__(
        self,
        path: Path,
        *,
        examples: int | None = None,
        capacity: int | None = None,
        codec: Codec | None = None,
        attrs: Mapping[str, Any] | None = None,
        lock: Lock | None = None,
    ) -> None:
        self.path = path
        self._lock = lock or Lock(path)
        self._head = dict(attrs or {})
        self._examples = examples
        self._codec = codec or Codec()
        self._capacity = capacity or FIRST_CAPACITY
        self._worker = Worker()
        self._gathering = Gathering(self._block_rows)
        self._arrays: dict[str, Array] = {}
        self._emitted: dict[str, int] = {}
        self._marks: list[int] = []
        self._committed: Sequence[int] = ()  # those that the background has written
        self._step: int | None = None
        self._index = 0
        self._attrs: dict[str, Any] | None = None

    @property
    def steps(self) -> list[int]:
        """The recorded steps, the pending ones included."""
        return list(self._marks)

    def adopt(
        self, arrays: Mapping[str, Array], steps: Sequence[int], attrs: dict[str, Any]
    ) -> None:
        """Continue a store that holds these layers and steps."""
        for name, array in arrays.items():
            tail = np.empty((0, *array.shape[2:]), array.dtype)
            self._gathering.layers[name] = Layer(tail, array.dims[1:], array.attrs)
            self._arrays[name] = array
            self._capacity, self._gathering.examples = array.shape[:2]
        self._marks, self._committed, self._attrs = list(steps), steps, attrs

    def begin(self, step: int | None) -> None:
        """Start a moment; the place of one with the same step is taken again."""
        self._step = step
        self._emitted = {}
        self._gathering.begin()
        self._index = len(self._marks)
        if step is not None and self._marks and self._marks[-1] == step:
            self._marks.pop()
            self._index -= 1
            self._submit_marks()
            self._clear(self._index)

    def _clear(self, index: int) -> None:
        for name in self._arrays:
            self._submit(partial(clear_objects, self.path / name, index))

    def put(
        self,
        name: str,
        rows: np.ndarray,
        dims: tuple[str, ...],
        attrs: Mapping[str, Any],
    ) -> None:
        """Append rows to a layer; full blocks are handed to the background."""
        check_name(name)
        blocks = self._gathering.put(name, rows, dims, attrs)
        while blocks.full:
            self._emit(name, blocks.full.pop(0), blocks.rows)

    def _block_rows(self, name: str, layer: Layer, _came: int) -> int:
        if name in self._arrays:
            return self._arrays[name].chunks[self._example_axis]
        return block_rows(layer.row_bytes, self._examples)

    @property
    def _example_axis(self) -> int:
        return 0 if self._step is None else 1

    def drop(self, name: str) -> None:
        """Forget one layer's rows in this moment, and what was written of them."""
        self._gathering.drop(name, self._arrays)
        if self._emitted.pop(name, 0):
            self._submit(partial(clear_objects, self.path / name, self._index))

    def mark(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to a layer; its document follows with the commit."""
        self._gathering.mark(name, attrs)

    def abandon(self) -> None:
        """Forget the moment; its objects carry no commit mark."""
        self._gathering.abandon(self._arrays)

    def commit(
        self,
        order: Sequence[str],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Complete the moment: documents of new layers, then the commit mark."""
        self._gathering.check(len(coords["example"]))
        moment = self._gathering.blocks
        for name, blocks in moment.items():
            self._complete(name, blocks)
        self._enter(moment, order, coords, attrs)

    def _enter(
        self,
        moment: Mapping[str, Blocks],
        order: Sequence[str],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Write the documents of what is new, and at last the commit mark."""
        if self._step is not None and self._index >= self._capacity:
            self._grow()
        fresh = self._described(moment)
        if self._attrs is None:
            self._submit_coords(coords)
        if fresh or self._attrs is None:
            names = ordered(self._arrays, order)
            self._attrs = {**attrs, "complete": 0, "layers": plain(names)}
            extra = [name for name in coords if name not in ("step", "example")]
            if extra:
                self._attrs["coordinates"] = " ".join(extra)
            self._submit_attrs()
        if self._step is not None:
            self._marks.append(self._step)
            self._submit_marks()
        self._gathering.begin()

    def _described(self, moment: Mapping[str, Blocks]) -> list[str]:
        """Write the documents of layers that are new or missed; return the new."""
        fresh = [name for name in moment if name not in self._arrays]
        missed = [name for name in self._arrays if name not in moment]
        for name in fresh:
            self._arrays[name] = self._array(name, moment[name])
        changed = dict.fromkeys(fresh)
        new = {name: marks(self._gathering.layers[name].attrs) for name in moment}
        for name in [*missed, *(fresh if self._index else [])]:
            new[name] = {**new.get(name, {}), **PARTIAL}
        for name, attrs in new.items():
            array = self._arrays[name]
            if not array.attrs.keys() >= attrs.keys():
                attrs = {**attrs, **array.attrs}
                self._arrays[name] = replace(array, attrs=attrs)
                changed[name] = None
        for name in changed:
            self._submit_document(name, self._arrays[name])
        return fresh

    def _complete(self, name: str, blocks: Blocks) -> None:
        rest = blocks.rest()
        if rest is None:
            return
        if name not in self._arrays and self._emitted.get(name, 0) == 0:
            blocks.rows = len(rest)
        self._emit(name, rest, blocks.rows)

    def finish(self, complete: int = 1) -> None:
        """Write what waits, pack small objects into shards, mark it complete."""
        from repsim.datasets.store.compaction import compact

        self.flush()
        if self._attrs is None:
            self._attrs = {**self._head, "layers": []}
        elif self._arrays:
            try:
                compact(self.path)
            except OSError as error:
                raise self._told(error) from error
        self._attrs["complete"] = complete
        self._submit_attrs()
        self.close()

    def close(self) -> None:
        """Write what waits and end the background thread."""
        try:
            self.flush()
        finally:
            self._worker.close()
            self._lock.release()
            if self._alone and is_aborted(self.path):
                remove_tree(self.path)  # nothing was ever complete

    def dataset(self) -> xr.Dataset:
        """Return the complete moments, opened lazily."""
        from repsim.datasets.store.reader import read

        self.flush()
        if self._attrs is None:
            return xr.Dataset(attrs={**self._head, "layers": [], "complete": 0})
        return read(self.path)

    def flush(self) -> None:
        """Wait until all is written, or raise what the system refused."""
        try:
            self._worker.flush()
        except OSError as error:
            raise self._told(error) from error

    # What follows runs in the background, one job after another.

    def _submit(self, job: Callable[[], None], size: int = 0) -> None:
        try:
            self._worker.submit(told(self.path, job), size)
        except OSError as error:
            raise self._told(error) from error

    def _told(self, error: OSError) -> OSError:
        return refused(error, self.path, self._kept())

    def _kept(self) -> str:
        if not self._committed:
            return "nothing of it was complete"
        held, last = len(self._committed), self._committed[-1]
        return f"{held} complete steps are kept, and resume=True, start={last} goes on"

    @property
    def _moment(self) -> tuple[int, ...]:
        return (self._index,) if self._step is not None else ()

    def _place(self, rows: int, place: int) -> tuple[int, ...]:
        """Return where a block of so many rows stands among all of the moment."""
        return (place,)

    def _emit(self, name: str, block: np.ndarray, rows: int) -> None:
        place = self._emitted.get(name, 0)
        self._emitted[name] = place + 1
        at = (*self._moment, *self._place(rows, place), *(0,) * (block.ndim - 1))
        target = self.path / name / object_name(at)
        codec = self._codec
        self._submit(lambda: write_block(target, block, rows, codec), block.nbytes)

    def _array(self, name: str, blocks: Blocks) -> Array:
        layer = self._gathering.layers[name]
        dims, shape = layer.dims, (blocks.total, *layer.tail)
        chunks = (max(1, blocks.rows), *(max(1, n) for n in layer.tail))
        if self._step is not None:
            dims, shape, chunks = (
                ("step", *dims),
                (self._capacity, *shape),
                (1, *chunks),
            )
        level = self._codec.level
        attrs = dict(layer.attrs)  # the layer's own may be marked later
        return Array(dims, shape, chunks, layer.dtype, attrs=attrs, level=level)

    def _submit_document(self, name: str, array: Array) -> None:
        self._submit(lambda: write_document(self.path / name, array.document()))

    def _submit_attrs(self) -> None:
        document = group_document({**(self._attrs or {}), "repsim_store": 1})
        self._submit(lambda: write_document(self.path, document))

    def _submit_marks(self) -> None:
        marks = self.steps
        self._submit(lambda: self._write_marks(marks))

    def _grow(self) -> None:
        while self._capacity <= self._index:
            self._capacity *= 2
        for name, array in self._arrays.items():
            shape = (self._capacity, *array.shape[1:])
            self._arrays[name] = replace(array, shape=shape)
            self._submit_document(name, self._arrays[name])
        self._submit_document("step", marks_array(self._capacity))

    def _submit_coords(self, coords: Mapping[str, np.ndarray]) -> None:
        for name, values in coords.items():
            folder, held = self.path / name, values.copy()
            self._submit(partial(write_coordinate, folder, held))
        if self._step is not None:
            self._submit_document("step", marks_array(self._capacity))

    def _write_marks(self, marks: Sequence[int]) -> None:
        write_marks(self.path / "step", marks)
        self._committed = marks
