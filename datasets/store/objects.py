"""Objects on the disk: blocks of a layer, commit marks, small coordinates."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from repsim.datasets.store.attributes import dims_of
from repsim.datasets.store.elsewhere import for_zarr, make_folder, put, put_whole
from repsim.datasets.store.zarr_format import (
    Array,
    Codec,
    object_name,
    write_document,
)

MARKS = 1024
"""Commit marks in one object of `step`."""


def write_block(target: Path, block: np.ndarray, rows: int, codec: Codec) -> None:
    """Write an object of so many examples; those that a last block lacks are NaN."""
    if len(block) < rows:
        padded = np.zeros((rows, *block.shape[1:]), block.dtype)
        if padded.dtype.kind in "fc":
            padded[len(block) :] = np.nan
        padded[: len(block)] = block
        block = padded
    data = codec.encode(block)
    try:
        put(target, data)
    except FileNotFoundError:
        make_folder(target.parent)
        put(target, data)


def marks_array(capacity: int) -> Array:
    """Return the description of `step`, the commit marks."""
    return Array(("step",), (capacity,), (MARKS,), np.dtype(np.int64), fill=-1)


def write_marks(folder: Path, marks: Sequence[int]) -> None:
    """Write the last object of `step`, and delete objects beyond it, last first."""
    last = max(0, len(marks) - 1) // MARKS
    beyond = last + 1
    while (folder / object_name((beyond,))).exists():
        beyond += 1
    for place in range(beyond - 1, last, -1):
        (folder / object_name((place,))).unlink()
    values = np.full(MARKS, -1, np.int64)
    held = marks[last * MARKS :]
    values[: len(held)] = held
    put_whole(folder / object_name((last,)), Codec().encode(values))


def write_coordinate(folder: Path, values: np.ndarray) -> None:
    """Write a small array over `example` (and tokens) in one object."""
    dims = dims_of(folder.name, values.ndim)
    if values.dtype.kind in "US":
        values = values.astype(object)
    if values.dtype.kind == "O":
        made = zarr.create_array(
            for_zarr(folder),
            shape=values.shape,
            dtype="string",
            compressors=[ZstdCodec(), Crc32cCodec()],
            dimension_names=dims,
            overwrite=True,
            config={"write_empty_chunks": True},
        )
        made[:] = np.array([str(v) for v in values], dtype=object)
        return
    chunk = tuple(max(1, n) for n in values.shape)
    array = Array(dims, values.shape, chunk, values.dtype)
    make_folder(folder)
    if values.size:
        target = folder / object_name((0,) * values.ndim)
        put(target, Codec().encode(values))
    write_document(folder, array.document())


def clear_objects(folder: Path, start: int) -> None:
    """Delete the live objects of the moments from `start` on."""
    for path in folder.glob("c.*"):
        if int(path.name.split(".")[1]) >= start:
            path.unlink()
