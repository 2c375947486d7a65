"""Many small objects into shards of up to 64 MiB, without decoding them."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count, product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zarr

from repsim.core.files import DOCUMENT
from repsim.datasets.store.elsewhere import (
    make_folder,
    put,
    reader_of,
    remove_files,
    remove_tree,
)
from repsim.datasets.store.guarded import guarded
from repsim.datasets.store.reader import described
from repsim.datasets.store.zarr_format import (
    Array,
    checksum,
    object_name,
    read_document,
    write_document,
)

Sources = Iterator[tuple[tuple[int, ...], str]]

SHARD_BYTES = 64 * 2**20
_OVERHEAD = 16 + 16  # of one object in the index, and of an incompressible block
_MISSING = 2**64 - 1


def compact(path: Path) -> None:
    """Pack a recording's live objects into shards and swap.

    Shards are written under other names than the live objects, one layer after
    another. Replacing a layer's document swaps it in one move, and only then its live
    objects are deleted: a process that dies in between leaves either form whole.
    """
    layers = dict(arrays_of(path))
    marks = layers.pop(path / "step", None)
    if marks is not None:
        steps = committed(path / "step").size
        for folder, array in layers.items():
            layers[folder] = replace(array, shape=(steps, *array.shape[1:]))
            write_document(folder, layers[folder].document())
        write_document(path / "step", replace(marks, shape=(steps,)).document())
    for folder, array in layers.items():
        if array.shards is None:
            _pack(folder, array)
        if (folder / "c").is_dir():
            remove_files(folder, "c.")


def arrays_of(path: Path) -> Iterator[tuple[Path, Array]]:
    """Yield the layers of a recording, and `step`; coordinates are left aside."""
    attrs = read_document(path).get("attributes", {})
    aside = {"example", *str(attrs.get("coordinates", "")).split()}
    for folder in sorted(p.parent for p in path.glob(f"*/{DOCUMENT}")):
        document = read_document(folder)
        if document["node_type"] != "array":
            continue
        described(folder, document)
        if folder.name not in aside:
            yield folder, parsed(folder, document)


def parsed(folder: Path, document: Mapping[str, Any]) -> Array:
    """Return the array that a document describes, which must be one of ours."""
    try:
        return Array.parse(document)
    except (LookupError, TypeError, ValueError) as error:
        msg = (
            f"Expected {folder / DOCUMENT} to describe an array as repsim writes it, "
            f"but it does not ({error!r}); copy the recording with "
            "repsim.save_recording, and record into the copy."
        )
        raise ValueError(msg) from error


def committed(folder: Path) -> np.ndarray:
    """Return the steps that carry a commit mark, from the folder of `step`."""
    array = zarr.open_array(guarded(folder), mode="r", zarr_format=3)
    # Read by what lies there: what the document claims may be more than memory holds.
    places = (i for i in count() if not _is_there(folder, i))
    most = min(array.shape[0], next(places) * array.chunks[0])
    marks = np.asarray(array[:most])
    held: np.ndarray = marks[marks >= 0]
    return held


def _is_there(folder: Path, place: int) -> bool:
    return any((folder / n).exists() for n in (object_name((place,)), f"c/{place}"))


def _pack(folder: Path, array: Array) -> None:
    """Write a layer's shards, and let its document name them."""
    grid = _grid(array)
    per_shard = _objects_per_shard(array, grid)
    if all(n == 1 for n in per_shard):
        return
    shards = tuple(n * c for n, c in zip(per_shard, array.chunks, strict=True))
    outer = [-(-n // p) for n, p in zip(grid, per_shard, strict=True)]
    try:
        for place in product(*(range(n) for n in outer)):
            target = folder.joinpath("c", *map(str, place))
            make_folder(target.parent)
            corner = [i * n for i, n in zip(place, per_shard, strict=True)]
            sources = _objects(corner, per_shard, grid)
            lacks = "partial" in array.attrs
            _write_shard(
                target, per_shard, sources, reader_of(folder, missing_ok=lacks)
            )
    except OSError:
        remove_tree(folder / "c", missing_ok=True)  # give the disk its room back
        raise
    write_document(folder, replace(array, shards=shards).document())


def _grid(array: Array) -> list[int]:
    return [-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)]


def _objects_per_shard(array: Array, grid: list[int]) -> list[int]:
    """Fill a shard along `example` first, then along `step`."""
    size = int(np.prod(array.chunks)) * array.dtype.itemsize + _OVERHEAD
    room = max(1, (SHARD_BYTES - 4) // size)
    per_shard = [1] * len(grid)
    along = [d for d in ("example", "step") if d in array.dims]
    for dim in along:
        axis = array.dims.index(dim)
        per_shard[axis] = max(1, min(grid[axis], room))
        room //= per_shard[axis]
        if per_shard[axis] < grid[axis]:
            break
    return per_shard


def _write_shard(
    target: Path,
    per_shard: list[int],
    sources: Sources,
    read: Callable[[str], bytes | None],
) -> None:
    index = np.full((*per_shard, 2), _MISSING, "<u8")
    offset = 0
    with target.open("wb") as shard:
        for place, name in sources:
            data = read(name)
            if data is None:
                continue
            shard.write(data)
            index[place] = offset, len(data)
            offset += len(data)
        if offset:
            table = index.tobytes()
            shard.write(table + checksum(table))
    if not offset:
        target.unlink()


def _objects(corner: list[int], per_shard: list[int], grid: list[int]) -> Sources:
    """Yield the live objects of a shard: the place in it, and the file's name."""
    for place in product(*(range(n) for n in per_shard)):
        index = [c + p for c, p in zip(corner, place, strict=True)]
        if all(i < n for i, n in zip(index, grid, strict=True)):
            yield place, object_name(index)


def unpack(folder: Path, array: Array, steps: int) -> None:
    """Write a layer's shards back as live objects, for the first moments.

    Its document stays as it is; the caller replaces it and deletes the shards.
    """
    if array.shards is None:
        return
    per_shard = [s // c for s, c in zip(array.shards, array.chunks, strict=True)]
    for shard in sorted(p for p in (folder / "c").rglob("*") if p.is_file()):
        parts = shard.relative_to(folder / "c").parts
        place = [int(p) for p in parts if p.isdecimal()]
        if not len(place) == len(parts) == len(per_shard):
            msg = (
                f"Expected only shards in {folder / 'c'}, but found {shard}; delete it."
            )
            raise ValueError(msg)
        corner = [i * n for i, n in zip(place, per_shard, strict=True)]
        with shard.open("rb") as file:
            table = _index(file, per_shard)
            for inner, name in _objects(corner, per_shard, _grid(array)):
                offset, length = (int(v) for v in table[inner])
                if offset != _MISSING and corner[0] + inner[0] < steps:
                    file.seek(offset)
                    put(folder / name, file.read(length))


def _index(file: BinaryIO, per_shard: list[int]) -> np.ndarray:
    size = 16 * int(np.prod(per_shard))
    long = file.seek(0, os.SEEK_END)
    file.seek(max(0, long - size - 4))
    table = file.read(size)
    if long < size + 4 or checksum(table) != file.read(4):
        msg = (
            f"Expected {file.name} to be a whole shard, but its index is damaged: the "
            "file was cut short or overwritten. Copy it from a backup, or record anew."
        )
        raise ValueError(msg)
    return np.frombuffer(table, "<u8").reshape(*per_shard, 2)
