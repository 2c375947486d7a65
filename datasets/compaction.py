"""Many small objects into shards of up to 64 MiB, without decoding them."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import google_crc32c
import numpy as np

from repsim.datasets.layout import (
    DOCUMENT,
    Array,
    object_name,
    read_document,
    write_document,
)

SHARD_BYTES = 64 * 2**20
_OVERHEAD = 16 + 16  # of one object in the index, and of an incompressible block
_MISSING = 2**64 - 1


def compact(path: Path) -> None:
    """Pack a recording's live objects into shards and swap.

    Shards are written under other names than the live objects. Replacing a layer's
    document swaps it in one move, and only then its live objects are deleted: a
    process that dies in between leaves either form whole.

    Parameters
    ----------
    path : Path
        The recording's folder; nothing may write to it meanwhile.
    """
    live = {}
    steps: int | None = None
    for folder in sorted(p.parent for p in path.glob(f"*/{DOCUMENT}")):
        document = read_document(folder)
        if document["node_type"] != "array" or folder.name in ("example",):
            continue
        array = Array.parse(document) if _ours(document) else None
        if folder.name == "step" and array is not None:
            steps = _count(folder)
        elif array is not None and len(array.dims) > 1:
            live[folder] = array
    packed = {}
    for folder, array in live.items():
        packed[folder] = _packed(folder, array, steps)
    for folder, array in packed.items():
        write_document(folder, array.document())
    if steps is not None:
        marks = Array.parse(read_document(path / "step"))
        trimmed = replace(marks, shape=(steps,))
        write_document(path / "step", trimmed.document())
    for folder, array in packed.items():
        if array.shards is not None:
            for file in folder.glob("c.*"):
                file.unlink()


def _ours(document: dict[str, object]) -> bool:
    codecs = document["codecs"]
    return isinstance(codecs, list) and codecs[0]["name"] in (
        "bytes",
        "sharding_indexed",
    )


def _count(folder: Path) -> int:
    from repsim.datasets.reader import StoredArray

    marks = StoredArray(folder)._read((slice(None),))
    return int((np.asarray(marks) >= 0).sum())


def _packed(folder: Path, array: Array, steps: int | None) -> Array:
    if array.dims[0] == "step" and steps is not None:
        array = replace(array, shape=(steps, *array.shape[1:]))
    if array.shards is not None:
        return array
    grid = [-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)]
    per_shard = _objects_per_shard(array, grid)
    if all(n == 1 for n in per_shard):
        return array
    shards = tuple(n * c for n, c in zip(per_shard, array.chunks, strict=True))
    outer = [-(-n // p) for n, p in zip(grid, per_shard, strict=True)]
    for place in product(*(range(n) for n in outer)):
        target = folder.joinpath("c", *map(str, place))
        target.parent.mkdir(parents=True, exist_ok=True)
        corner = [i * n for i, n in zip(place, per_shard, strict=True)]
        _write_shard(folder, target, corner, per_shard)
    return replace(array, shards=shards)


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
    folder: Path, target: Path, corner: list[int], per_shard: list[int]
) -> None:
    index = np.full((*per_shard, 2), _MISSING, "<u8")
    offset = 0
    with target.open("wb") as shard:
        for place, source in _objects(folder, corner, per_shard):
            try:
                data = source.read_bytes()
            except FileNotFoundError:
                continue
            shard.write(data)
            index[place] = offset, len(data)
            offset += len(data)
        if offset:
            table = index.tobytes()
            check = google_crc32c.value(table)
            shard.write(table + int(check).to_bytes(4, "little"))
    if not offset:
        target.unlink()


def _objects(
    folder: Path, corner: list[int], per_shard: list[int]
) -> Iterator[tuple[tuple[int, ...], Path]]:
    for place in product(*(range(n) for n in per_shard)):
        index = [c + p for c, p in zip(corner, place, strict=True)]
        yield place, folder / object_name(index)


def remove_shards(folder: Path) -> None:
    """Delete a layer's shards."""
    shutil.rmtree(folder / "c", ignore_errors=True)
