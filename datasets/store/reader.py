"""Stored recordings, opened lazily; of a broken one, exactly what is complete."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from repsim.core.files import DOCUMENT
from repsim.datasets.store.attributes import dims_of
from repsim.datasets.store.elsewhere import head_of, is_elsewhere, stamp
from repsim.datasets.store.guarded import guarded
from repsim.datasets.store.untrusted import (
    MOST_OBJECTS,
    array_fault,
    item_bytes,
    memory_fault,
    refuse_link,
)
from repsim.datasets.store.zarr_format import read_document

MOST_EXAMPLES = 2**31


class StoredArray(BackendArray):
    """One variable of a stored recording, read on demand and never kept.

    Follows the store when it is compacted meanwhile, and turns an object that
    cannot be decoded into a sentence that says which file and what to do.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open()
        # Of other arrays every object was written, so that one that lacks was lost.
        self._holes = "partial" in self._array.attrs
        self.shape = tuple(self._array.shape)
        self.dtype = np.dtype(self._array.dtype)

    def _open(self) -> None:
        self._stamp = self._current()
        document = read_document(self._folder)
        described(self._folder, document)
        try:
            self._array = zarr.open_array(
                guarded(self._folder), mode="r", zarr_format=3
            )
        except OSError:
            raise
        except Exception as error:  # whatever zarr makes of a stranger's document
            raise ValueError(_no_array(self._folder, error)) from error

    def _current(self) -> tuple[Any, ...]:
        return stamp(self._folder / DOCUMENT)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return what an indexer of xarray asks for."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        if self._current() != self._stamp:
            self._open()
        try:
            self._check_there(key)
            if all(isinstance(k, slice | int | np.integer) for k in key):
                values = self._array[key]
            else:
                values = self._array.oindex[key]
        except Exception as error:  # whatever codecs make of damaged bytes
            if self._current() != self._stamp:  # swapped while it was read
                return self._read(key)
            if truly_large(error, self):
                raise
            raise ValueError(self._broken(error)) from error
        return np.asarray(values)

    def _check_there(self, key: tuple[Any, ...]) -> None:
        """Raise where an object that this key needs is missing or empty.

        Of a missing one zarr would give back NaN, as for what was never written.
        """
        if self._folder.name == "step":  # what lies there is all that is claimed
            return
        outer = self._array.shards or self._array.chunks
        touched = objects_of(key, self.shape, outer)
        if self._holes and (fault := lacking(self._folder, touched)):
            raise ValueError(fault)
        name = self._array.metadata.encode_chunk_key
        for place in _places(touched):
            file = self._folder / name(place)
            head = head_of(file, 1)
            if not (self._holes if head is None else head):
                state = "is missing" if head is None else "is empty"
                raise ValueError(f"{file.relative_to(self._folder)} {state}")

    def _broken(self, error: Exception) -> str:
        return (
            f"Expected the objects of {self._folder} to be readable, but one cannot be "
            f"decoded ({error}): a file was cut short, overwritten or deleted. Other "
            "steps and layers are not affected; record this one again, or resume "
            "before it."
        )


def objects_of(
    key: tuple[Any, ...], shape: Sequence[int], outer: Sequence[int]
) -> list[Sequence[int]]:
    """Return along every axis which objects of so many values a key needs."""
    touched: list[Sequence[int]] = []
    for k, size, length in zip(key, shape, outer, strict=True):
        if isinstance(k, slice) and k.step in (None, 1):
            start, stop, _ = k.indices(size)
            last = -(-stop // length) if stop > start else start // length
            touched.append(range(start // length, last))
        else:
            index = np.arange(*k.indices(size)) if isinstance(k, slice) else k
            touched.append(np.unique(index // np.int64(length)).tolist())
    return touched


def lacking(folder: Path, touched: Sequence[Sequence[int]]) -> str | None:
    """Return what is wrong with an array of which most objects do not lie there.

    zarr lists all that it touches before it reads the first: of a document that claims
    more objects than a disk holds it would never come to an end.
    """
    claimed = math.prod(len(places) for places in touched)
    if claimed <= MOST_OBJECTS:
        return None
    there = sum(1 for _ in islice(folder.rglob("*"), claimed // 2))
    if there >= claimed // 2:
        return None
    return f"it claims {claimed} objects, of which at most {there} lie there"


def truly_large(error: Exception, array: Any) -> bool:
    """Whether memory ran out for what was asked; not for what an object claims."""
    size = math.prod(array.shape) * np.dtype(array.dtype).itemsize
    return isinstance(error, MemoryError) and memory_fault(size) is not None


def _places(touched: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """Yield places of a grid; unlike `product`, without keeping the axes in memory."""
    if not touched:
        yield ()
        return
    for first in touched[0]:
        for rest in _places(touched[1:]):
            yield first, *rest


def described(folder: Path, document: dict[str, Any]) -> None:
    """Raise unless a document describes an array that may be read."""
    refuse_link(folder)
    if fault := array_fault(document):
        raise ValueError(_no_array(folder, fault))


def fits_memory(folder: Path, document: dict[str, Any]) -> None:
    """Raise where an array that is read at once claims more than can be."""
    shape = document["shape"]
    size = math.prod(shape) * (item_bytes(document["data_type"]) or 1)
    if fault := memory_fault(size):
        msg = (
            f"Expected {folder} to fit into memory, but its zarr.json claims {fault}; "
            "free some, or if that cannot be, copy it from an equal recording."
        )
        raise ValueError(msg)
    whole = tuple(slice(0, n) for n in shape)
    outer = document["chunk_grid"]["configuration"]["chunk_shape"]
    if fault := lacking(folder, objects_of(whole, shape, outer)):
        raise ValueError(_no_array(folder, fault))


def _no_array(folder: Path, reason: object) -> str:
    return (
        f"Expected {folder / DOCUMENT} to describe an array of a recording, but got "
        f"{reason}; if it is one, copy the file from a backup or an equal recording."
    )


@dataclass(frozen=True)
class Opened:
    """A place elsewhere, which xarray would take for a path of this machine."""

    path: Path

    @classmethod
    def of(cls, path: Path) -> Any:
        """Return what `xarray.open_dataset` hands on as it is."""
        return cls(path) if is_elsewhere(path) else str(path)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Return what tells one state of a store from another."""
        return str(self.path), *stamp(self.path / DOCUMENT)


def path_of(opened: Any) -> Path:
    """Return the place that `Opened.of` has wrapped."""
    return opened.path if isinstance(opened, Opened) else Path(opened)


class Recordings(BackendEntrypoint):
    """xarray's way to open a folder that repsim's writer made."""

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """Open the complete moments of a recording."""
        run = _assembled(path_of(filename_or_obj))
        return run.drop_vars(drop_variables) if drop_variables else run


def read(path: Path, *, chunks: Any = None) -> xr.Dataset:
    """Open a stored recording lazily."""
    try:
        return xr.open_dataset(
            Opened.of(path), engine=Recordings, chunks=chunks, cache=False
        )
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(_apart(path, repr(error))) from error


def _apart(path: Path, reason: str) -> str:
    return (
        f"Expected {path} to hold a recording, but its zarr.json files do not fit "
        f"together ({reason}): one was overwritten. Copy it from a backup or an equal "
        "recording."
    )


def _assembled(path: Path) -> xr.Dataset:
    group = read_document(path)
    attrs = dict(group.get("attributes", {}))
    attrs.pop("repsim_store", None)
    inner = str(attrs.pop("coordinates", "")).split()
    coords: dict[str, xr.Variable] = {}
    there = {child.name for child in path.iterdir()}
    if attrs.get("layers"):
        for name in ("example", *inner):
            if name not in there or not (path / name / DOCUMENT).is_file():
                msg = (
                    f"Expected {path} to hold {name!r}, one value for each example, "
                    "but it is not there; copy it from a backup or an equal recording."
                )
                raise ValueError(msg)
            coords[name] = _small(path / name)
    variables = dict(_variables(path, skip={"step", *coords}))
    places = _committed(path, variables)
    if places is not None and attrs.get("complete") == 1:
        _check_marks(path, places[0].size)
    if places is not None:
        marks, index = places
        coords["step"] = xr.Variable("step", marks)
        variables = {n: v.isel(step=index) for n, v in variables.items()}
    _check_sizes(path, variables, coords)
    order = [n for n in attrs.get("layers", []) if n in variables]
    order += sorted(n for n in variables if n not in order)
    try:
        run = xr.Dataset({n: variables[n] for n in _paired(order)}, coords, attrs)
    except ValueError as error:  # sizes that differ
        raise ValueError(_apart(path, str(error))) from error
    run.encoding["source"] = str(path)
    return run


def _paired(names: list[str]) -> list[str]:
    """Put error signals behind their layer."""
    signals = [n for n in names if n.endswith(("@error", "@true_error"))]
    rest = [n for n in names if n not in signals]
    out = []
    for name in rest:
        out += [name, *(s for s in signals if s.rpartition("@")[0] == name)]
    return out + [s for s in signals if s not in out]


def _variables(path: Path, skip: set[str]) -> Iterator[tuple[str, xr.Variable]]:
    for child in sorted(path.iterdir()):
        if child.name in skip or child.name == DOCUMENT:
            continue
        try:
            document = read_document(child)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if document["node_type"] != "array":
            continue
        attrs = dict(document.get("attributes", {}))
        stored = StoredArray(child)
        data = indexing.LazilyIndexedArray(stored)
        variable = xr.Variable(document.get("dimension_names") or (), data, attrs)
        variable.encoding["preferred_chunks"] = dict(
            zip(variable.dims, stored._array.chunks, strict=True)
        )
        yield child.name, variable


def _small(folder: Path) -> xr.Variable:
    document = read_document(folder)
    shape = document.get("shape", [0])
    sizes = isinstance(shape, list) and all(type(n) is int for n in shape)
    if (
        not sizes
        or len(shape) not in (1, 2)
        or not all(0 <= n <= MOST_EXAMPLES for n in shape)
    ):
        msg = (
            f"Expected {folder} to hold one value for each example, but its zarr.json "
            f"claims the shape {tuple(shape) if sizes else shape!r}; the document was "
            "damaged. Copy it from an equal recording."
        )
        raise ValueError(msg)
    stored = StoredArray(folder)
    fits_memory(folder, document)
    values = stored._read((slice(None),) * len(shape))
    if values.dtype.kind == "T":
        values = values.astype(object)
    dims = dims_of(folder.name, values.ndim)
    return xr.Variable(dims, values, dict(document.get("attributes", {})))


def _committed(
    path: Path, variables: dict[str, xr.Variable]
) -> tuple[np.ndarray, Any] | None:
    """Return the committed steps and their places, or None without a step dim."""
    folder = path / "step"
    if not (folder / DOCUMENT).exists():
        return None
    shape = read_document(folder).get("shape", [0])
    step = StoredArray(folder)
    if len(step.shape) != 1:
        raise ValueError(_no_array(folder, f"{len(step.shape)} axes of commit marks"))
    if step.dtype.kind != "i":
        raise ValueError(_no_array(folder, f"commit marks of data type {step.dtype}"))
    # Read by what lies there, not by what the document claims.
    size = step._array.chunks[0]
    marks_files = [f.name.removeprefix("c.") for f in folder.glob("c.*")]
    files = {int(name) for name in marks_files if name.isdigit()}
    files |= {int(f.name) for f in (folder / "c").glob("*") if f.name.isdigit()}
    held = next(i for i in count() if i not in files)
    shortest = min((v.sizes["step"] for v in variables.values()), default=0)
    most = min(shape[0], held * size, shortest)
    if fault := memory_fault(8 * most):
        raise ValueError(_no_array(folder, fault))
    marks = np.asarray(step._read((slice(0, most),)), np.int64)
    places = np.flatnonzero(marks >= 0)
    index: Any = places
    if places.size and places[-1] == places.size - 1 or not places.size:
        index = slice(0, places.size)
    return marks[places], index


def _check_marks(path: Path, found: int) -> None:
    """Raise where a recording that was closed in order has lost commit marks."""
    claimed = read_document(path / "step")["shape"][0]
    if found < claimed < MOST_EXAMPLES:
        msg = (
            f"Expected {claimed} steps in {path}, which is complete, but "
            f"{path / 'step'} holds {found}: a file was deleted. Copy it from a "
            "backup; the layers' values are not affected."
        )
        raise ValueError(msg)


def _check_sizes(
    path: Path, variables: dict[str, xr.Variable], coords: dict[str, xr.Variable]
) -> None:
    expected = len(coords["example"]) if "example" in coords else None
    for name, variable in variables.items():
        held = variable.sizes.get("example")
        if expected is not None and held is not None and held != expected:
            msg = (
                f"Expected layer {name!r} in {path} to hold {expected} examples, but "
                f"its zarr.json claims {held}; the document was damaged. It can be "
                "repaired by setting its shape to that of the other layers."
            )
            raise ValueError(msg)
