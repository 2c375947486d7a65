"""Groups that xarray wrote, ours or a stranger's, opened as lazily and as warily."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint, ZarrBackendEntrypoint
from xarray.core import indexing

from repsim.core.files import DOCUMENT
from repsim.datasets.store.guarded import guarded
from repsim.datasets.store.reader import (
    Opened,
    described,
    fits_memory,
    lacking,
    objects_of,
    path_of,
    truly_large,
)
from repsim.datasets.store.zarr_format import read_document


class ToldArray(BackendArray):
    """One variable of xarray's, of which a damaged object is named."""

    def __init__(self, array: Any, folder: Path, outer: Sequence[int]) -> None:
        self._array = array
        self._folder = folder
        self._outer = outer
        self.shape = array.shape
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return what an indexer of xarray asks for."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        try:
            touched = objects_of(key, self.shape, self._outer)
            if fault := lacking(self._folder, touched):
                raise ValueError(fault)
            if all(isinstance(k, slice | int | np.integer) for k in key):
                wanted = self._array[indexing.BasicIndexer(key)]
            else:
                wanted = self._array.oindex[indexing.OuterIndexer(key)]
            return np.asarray(wanted.get_duck_array())
        except Exception as error:  # whatever zarr makes of a stranger's bytes
            if truly_large(error, self):
                raise
            msg = (
                f"Expected the objects of {self._folder} to be readable, but one "
                f"cannot be decoded ({error}): a file was cut short, overwritten or "
                "deleted. Write this group again, or copy it from a backup."
            )
            raise ValueError(msg) from error


class Foreign(BackendEntrypoint):
    """xarray's way to open its own zarr groups, told of what is wrong with them."""

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """Open a group of zarr v3."""
        folder = path_of(filename_or_obj)
        run = ZarrBackendEntrypoint().open_dataset(
            cast(Any, guarded(folder)),
            drop_variables=drop_variables,
            consolidated=False,
            zarr_format=3,
        )
        for name, variable in run.variables.items():
            if not variable._in_memory:
                outer = variable.encoding.get("shards") or variable.encoding["chunks"]
                told = ToldArray(variable._data, folder / str(name), outer)
                variable._data = cast(Any, indexing.LazilyIndexedArray(told))
        return run


def read_foreign(folder: Path, *, chunks: Any = None) -> xr.Dataset:
    """Open a group that xarray wrote, once its documents have been looked at."""
    for child in sorted(folder.iterdir()):
        if (child / DOCUMENT).exists():
            document = read_document(child)
            if document["node_type"] == "array":
                described(child, document)
                if document.get("dimension_names") == [child.name]:
                    fits_memory(child, document)  # an index, which xarray reads
    try:
        return xr.open_dataset(
            Opened.of(folder), engine=Foreign, chunks=chunks, cache=False
        )
    except Exception as error:  # struct.error of a fill value, for one
        msg = (
            f"Expected {folder} to be a recording, but xarray cannot open it "
            f"({type(error).__name__}: {error}); copy it from a backup."
        )
        raise ValueError(msg) from error
