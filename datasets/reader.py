"""Stored recordings, opened lazily; of a broken one, exactly what is complete."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from repsim.datasets.layout import DOCUMENT, read_document

MOST_EXAMPLES = 2**31


class StoredArray(BackendArray):
    """One variable of a stored recording, read on demand and never kept.

    Follows the store when it is compacted meanwhile, and turns an object that
    cannot be decoded into a sentence that says which file and what to do.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open()
        self.shape = tuple(self._array.shape)
        self.dtype = np.dtype(self._array.dtype)

    def _open(self) -> None:
        self._stamp = self._current()
        try:
            self._array = zarr.open_array(str(self._folder), mode="r", zarr_format=3)
        except (ValueError, KeyError, TypeError) as error:
            msg = (
                f"Expected {self._folder / DOCUMENT} to describe an array, but got "
                f"{error}; copy the file from a backup or an equal recording."
            )
            raise ValueError(msg) from error

    def _current(self) -> tuple[int, int]:
        found = os.stat(self._folder / DOCUMENT)
        return found.st_ino, found.st_mtime_ns

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return what an indexer of xarray asks for."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        if self._current() != self._stamp:
            self._open()
        try:
            if all(isinstance(k, slice | int | np.integer) for k in key):
                values = self._array[key]
            else:
                values = self._array.oindex[key]
        except (RuntimeError, ValueError, OSError, AssertionError) as error:
            if self._current() != self._stamp:  # swapped while it was read
                return self._read(key)
            raise ValueError(self._broken(error)) from error
        return np.asarray(values)

    def _broken(self, error: Exception) -> str:
        return (
            f"Expected the objects of {self._folder} to be readable, but one cannot be "
            f"decoded ({error}): a file was cut short or overwritten. Other steps and "
            "layers are not affected; record this one again, or resume before it."
        )


class Recordings(BackendEntrypoint):
    """xarray's way to open a folder that repsim's writer made."""

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """Open the complete moments of a recording."""
        run = _assembled(Path(filename_or_obj))
        return run.drop_vars(drop_variables) if drop_variables else run


def read(path: Path, *, chunks: Any = None) -> xr.Dataset:
    """Open a stored recording lazily.

    Parameters
    ----------
    path : Path
        The recording's folder.
    chunks : int, dict, "auto" or None
        Given to xarray: None is lazy without dask.

    Returns
    -------
    Dataset
        Not cached: what is read is not kept.

    Raises
    ------
    ValueError
        If the store is damaged beyond what its complete steps allow.
    """
    opened = xr.open_dataset(str(path), engine=Recordings, chunks=chunks, cache=False)
    return opened


def _assembled(path: Path) -> xr.Dataset:
    group = read_document(path)
    attrs = dict(group.get("attributes", {}))
    attrs.pop("repsim_store", None)
    inner = str(attrs.pop("coordinates", "")).split()
    coords: dict[str, xr.Variable] = {}
    for name in ("example", *inner):
        if (path / name / DOCUMENT).exists():
            coords[name] = _small(path / name)
    variables = dict(_variables(path, skip={"step", *coords}))
    places = _committed(path, variables)
    if places is not None:
        marks, index = places
        coords["step"] = xr.Variable("step", marks)
        variables = {n: v.isel(step=index) for n, v in variables.items()}
    _check_sizes(path, variables, coords)
    order = [n for n in attrs.get("layers", []) if n in variables]
    order += sorted(n for n in variables if n not in order)
    return xr.Dataset({n: variables[n] for n in _paired(order)}, coords, attrs)


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
        if child.name in skip or not (child / DOCUMENT).is_file():
            continue
        document = read_document(child)
        if document["node_type"] != "array":
            continue
        attrs = dict(document.get("attributes", {}))
        stored = StoredArray(child)
        data = indexing.LazilyIndexedArray(stored)
        variable = xr.Variable(document.get("dimension_names"), data, attrs)
        variable.encoding["preferred_chunks"] = dict(
            zip(variable.dims, stored._array.chunks, strict=True)
        )
        yield child.name, variable


def _small(folder: Path) -> xr.Variable:
    document = read_document(folder)
    shape = document.get("shape", [0])
    if len(shape) != 1 or not 0 <= shape[0] <= MOST_EXAMPLES:
        msg = (
            f"Expected {folder} to hold one value for each example, but its zarr.json "
            f"claims the shape {tuple(shape)}; the document was damaged. Copy it from "
            "an equal recording."
        )
        raise ValueError(msg)
    stored = StoredArray(folder)
    values = stored._read((slice(None),))
    if values.dtype.kind == "T":
        values = values.astype(object)
    return xr.Variable("example", values, dict(document.get("attributes", {})))


def _committed(
    path: Path, variables: dict[str, xr.Variable]
) -> tuple[np.ndarray, Any] | None:
    """Return the committed steps and their places, or None without a step dim."""
    folder = path / "step"
    if not (folder / DOCUMENT).exists():
        return None
    shape = read_document(folder).get("shape", [0])
    step = StoredArray(folder)
    # Read by what lies there, not by what the document claims.
    size = step._array.chunks[0]
    files = [int(f.name.split(".")[1]) for f in folder.glob("c.*")]
    files += [int(f.name) for f in (folder / "c").glob("*") if f.name.isdigit()]
    shortest = min((v.sizes["step"] for v in variables.values()), default=0)
    most = min(shape[0], (max(files, default=-1) + 1) * size, shortest)
    marks = np.asarray(step._read((slice(0, most),)), np.int64)
    places = np.flatnonzero(marks >= 0)
    index: Any = places
    if places.size and places[-1] == places.size - 1 or not places.size:
        index = slice(0, places.size)
    return marks[places], index


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
