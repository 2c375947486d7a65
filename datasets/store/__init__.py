"""Recordings on the disk: open, save, tell what is complete, remove."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from repsim.core.files import DOCUMENT
from repsim.datasets.exchange import from_netcdf, to_netcdf
from repsim.datasets.recordings import SCHEMA, layers
from repsim.datasets.store.attributes import attribute, example_coordinates
from repsim.datasets.store.elsewhere import is_elsewhere, is_file, remove_tree
from repsim.datasets.store.foreign import read_foreign
from repsim.datasets.store.places import (
    OTHERS,
    is_aborted,
    locate,
    place_of,
    prepare,
)
from repsim.datasets.store.reader import read
from repsim.datasets.store.writer import Writer
from repsim.datasets.store.zarr_format import Codec, read_document
from repsim.datasets.validation import validate

Chunks = int | str | Mapping[Any, Any] | None


def open_recording(
    path: Any,
    *,
    chunks: Chunks = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open a stored recording lazily; of a broken-off one, its complete steps.

    Parameters
    ----------
    path : str, Path or zarr store
        A recording, also inside a store (`s.zarr/bp/0`) and elsewhere ("s3://…",
        "gs://…"); a netCDF file ending in `.nc`.
    chunks : int, dict, "auto" or None
        Given to xarray: None reads lazily without dask, `{}` makes dask arrays.
    storage_options : mapping or None
        What fsspec needs for a store elsewhere: keys, an endpoint.

    Returns
    -------
    Dataset
        What is read is not kept. `attrs["complete"]` is 0 where the recorder was
        not closed in order.

    Raises
    ------
    FileNotFoundError
        If there is no recording.
    ValueError
        If it is damaged: what is wrong, where, and whether it can be repaired.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr
    >>> run = xr.Dataset({"a": (("example", "a_unit"), np.ones((3, 2)))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_recording(run, f"{folder}/run.zarr")
    ...     dict(open_recording(f"{folder}/run.zarr").sizes)
    {'example': 3, 'a_unit': 2}
    """
    folder = place_of(path, storage_options)
    if folder.suffix == ".nc" and folder.is_file():
        return from_netcdf(folder, chunks=chunks)
    if not is_file(folder / DOCUMENT):
        said = _what_is_there(folder)
        end = "" if said.endswith("?") else "."
        msg = f"Expected a recording at {folder}, but {said}{end}"
        raise FileNotFoundError(msg)
    if read_document(folder)["node_type"] != "group":
        msg = f"Expected a recording at {folder}, but found a single array of one."
        raise ValueError(msg)
    run = opened(folder, chunks)
    if not run.data_vars and (inner := recordings_in(folder)):
        shown = ", ".join(inner[:6]) + (", …" if len(inner) > 6 else "")
        msg = (
            f"Expected a recording at {folder}, but got a group of {len(inner)}; name "
            f"one of {shown}."
        )
        raise ValueError(msg)
    return validate(run, str(folder))


def recordings_in(folder: Path) -> list[str]:
    """Return the recordings in a group: of a condition, or of a study."""
    if not folder.is_dir():
        return []
    documents = [*folder.glob(f"*/{DOCUMENT}"), *folder.glob(f"*/*/{DOCUMENT}")]
    return sorted(
        str(document.parent)
        for document in documents
        if read_document(document.parent).get("attributes", {}).get("layers")
    )


def opened(folder: Path, chunks: Chunks) -> xr.Dataset:
    """Open a group, ours or another one of zarr, lazily and without a check."""
    if "repsim_store" in read_document(folder).get("attributes", {}):
        return read(folder, chunks=chunks)
    return read_foreign(folder, chunks=chunks)


def _what_is_there(folder: Path) -> str:
    """Say what was found in place of a recording, and what to do."""
    if folder.is_file():
        if folder.suffix.lower() not in OTHERS:
            return "got a file of another kind; read it with its own reader"
        return (
            "got a file of another kind; `repsim import` makes a recording of "
            "activations, and measured RDMs are given as arrays, as in "
            "repsim.inference.model_test"
        )
    if is_aborted(folder) and any(folder.iterdir()):
        return "found none; a recorder died here before its first step was complete"
    if (folder / ".zgroup").exists():
        return (
            "found none; it is zarr v2: open it with xarray, then use "
            "repsim.save_recording"
        )
    return f"found none{_beside(folder)}"


def _beside(folder: Path) -> str:
    """Say which recording may have been meant, or what lies where the path ends."""
    if is_elsewhere(folder):
        return ""
    above = next((p for p in folder.parents if p.is_dir()), folder)
    try:
        known = sorted(p.parent.name for p in above.glob(f"*/{DOCUMENT}"))
    except OSError:
        return ""
    wrong, *rest = folder.relative_to(above).parts or [""]
    stems = {Path(name).stem: name for name in known}  # all end alike
    for stem in get_close_matches(Path(wrong).stem, stems, n=1):
        if is_file((meant := above.joinpath(stems[stem], *rest)) / DOCUMENT):
            return f"; did you mean {meant}?"
    if not (known and is_file(above / DOCUMENT)):
        return ""  # a folder of anything
    shown = ", ".join(known[:6]) + (", …" if len(known) > 6 else "")
    return f"; {above} holds {shown}"


def save_recording(
    run: xr.Dataset,
    path: Any,
    *,
    level: int = 1,
    keepbits: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write a recording to a new place, as a recorder would have.

    Parameters
    ----------
    run : Dataset
        A recording, also one made by hand; read piece by piece.
    path : str, Path or zarr store
        A new folder, also inside a store (`s.zarr/bp/0`) and elsewhere ("s3://…",
        "gs://…"); a netCDF file where it ends in `.nc`.
    level : int
        Of zstd.
    keepbits : int or None
        Round the mantissa to so many bits (lossy); None keeps all.
    storage_options : mapping or None
        What fsspec needs for a store elsewhere: keys, an endpoint.

    Raises
    ------
    FileExistsError
        If the place is taken.
    OSError
        If the system does not let it be written.
    ValueError
        If the Dataset is no recording, or a coordinate would be lost.
    TypeError
        If attributes or coordinates are nothing that can be kept.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> repsim.save_recording(repsim.from_arrays({"h": np.eye(4)}), "mine.zarr")
    >>> repsim.open_recording("mine.zarr").repsim.layers
    ['h']
    """
    listed = layers(run)
    names = [str(n) for n, v in run.data_vars.items() if "example" in v.dims]
    if not listed:
        msg = "Expected a recording with layers, but no variable has an `example` dim."
        raise ValueError(msg)
    others = [str(n) for n in run.data_vars if n not in names]
    if others:
        msg = (
            f"Expected every variable to lie on `example`, but {', '.join(others)} do "
            "not; save them beside the recording, or use run.drop_vars first."
        )
        raise ValueError(msg)
    validate(run)
    codec = Codec(level, keepbits)
    folder, root = locate(path, options=storage_options)
    if folder.suffix == ".nc":
        if codec != Codec():
            msg = f"Expected a zarr store along with `level` or `keepbits`, not {path}."
            raise ValueError(msg)
        if is_elsewhere(folder):
            msg = f"Expected a path of this machine for a netCDF file, not {path}."
            raise ValueError(msg)
        to_netcdf(run, folder)
        return
    coords = example_coordinates(run)
    attrs = {k: attribute(str(k), v) for k, v in run.attrs.items()}
    prepare(folder, root)
    stepped = "step" in run.dims
    steps = run["step"].values.tolist() if stepped else [None]
    writer = Writer(
        folder,
        examples=run.sizes["example"],
        capacity=max(1, len(steps)),
        codec=codec,
    )
    attrs = {"repsim_schema": SCHEMA, **attrs}
    if keepbits is not None:
        attrs["keepbits"] = keepbits
    for name, value in run.coords.items():
        if not value.dims:  # the step that run.isel(step=-1) leaves, for one
            attrs.setdefault(str(name), value.item())
    try:
        for place, step in enumerate(steps):
            writer.begin(None if step is None else int(step))
            for name in names:
                variable = run[name].variable
                if "step" in variable.dims:
                    variable = variable.isel(step=place)
                _put(writer, name, variable)
            writer.commit(listed, coords, attrs)
        writer.finish(complete=int(run.attrs.get("complete", 1)))
    finally:
        writer.close()


def _put(writer: Writer, name: str, variable: xr.Variable) -> None:
    ordered = variable.transpose("example", ...)
    rows = ordered.sizes["example"]
    each = max(1, ordered.nbytes // max(1, rows))
    piece = max(1, 2**24 // each)
    for start in range(0, max(1, rows), piece):
        part = ordered.isel(example=slice(start, start + piece))
        dims = tuple(str(d) for d in part.dims)
        writer.put(name, np.asarray(part.values), dims, variable.attrs)


def is_complete(path: Any, group: str | None = None) -> bool:
    """Return whether a recording lies there that was closed in order."""
    folder, _ = locate(path, group)
    try:
        attrs = read_document(folder).get("attributes", {})
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(attrs.get("complete", 0) == 1)


def remove_recording(path: Any, group: str | None = None) -> None:
    """Delete a recording with all it holds; nothing happens where there is none."""
    folder, _ = locate(path, group)
    if not folder.exists():
        return
    if not (folder / DOCUMENT).is_file() and not is_aborted(folder):
        msg = f"Expected a recording at {folder}, but found other files; not deleted."
        raise ValueError(msg)
    (folder / DOCUMENT).unlink(missing_ok=True)
    remove_tree(folder)
