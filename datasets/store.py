"""Recordings and studies on the disk: open, save, tell what is complete."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from repsim.datasets.exchange import from_netcdf, to_netcdf
from repsim.datasets.layout import DOCUMENT, Codec, read_document
from repsim.datasets.places import is_aborted, locate, prepare
from repsim.datasets.reader import read
from repsim.datasets.recordings import SCHEMA, layers
from repsim.datasets.validation import validate
from repsim.datasets.writer import Writer

Chunks = int | str | Mapping[Any, Any] | None


def open_recording(path: str | Path, *, chunks: Chunks = None) -> xr.Dataset:
    """Open a stored recording lazily; of a broken-off one, its complete steps.

    Parameters
    ----------
    path : str or Path
        A recording, also inside a store (`s.zarr/bp/0`); a netCDF file ending in
        `.nc`.
    chunks : int, dict, "auto" or None
        Given to xarray: None reads lazily without dask, `{}` makes dask arrays.

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
    folder = Path(path)
    if folder.suffix == ".nc" and folder.is_file():
        return from_netcdf(folder, chunks=chunks)
    if not (folder / DOCUMENT).is_file():
        msg = f"Expected a recording at {folder}, but found none{_hint(folder)}."
        raise FileNotFoundError(msg)
    if read_document(folder)["node_type"] != "group":
        msg = f"Expected a recording at {folder}, but found a single array of one."
        raise ValueError(msg)
    return validate(_opened(folder, chunks), str(folder))


def _opened(folder: Path, chunks: Chunks) -> xr.Dataset:
    if "repsim_store" in read_document(folder).get("attributes", {}):
        return read(folder, chunks=chunks)
    return xr.open_dataset(
        str(folder), engine="zarr", chunks=chunks, cache=False, consolidated=False
    )


def _hint(folder: Path) -> str:
    if is_aborted(folder) and any(folder.iterdir()):
        return "; a recorder died here before its first step was complete"
    return ""


def save_recording(
    run: xr.Dataset,
    path: str | Path,
    *,
    level: int = 1,
    keepbits: int | None = None,
) -> None:
    """Write a recording to a new place, as a recorder would have.

    Parameters
    ----------
    run : Dataset
        A recording, also one made by hand; read piece by piece.
    path : str or Path
        A new folder, also inside a store (`s.zarr/bp/0`); a netCDF file where it
        ends in `.nc`.
    level : int
        Of zstd.
    keepbits : int or None
        Round the mantissa to so many bits (lossy); None keeps all.

    Raises
    ------
    FileExistsError
        If the place is taken.
    ValueError
        If the Dataset is no recording.
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
    if Path(path).suffix == ".nc":
        to_netcdf(run, path)
        return
    folder, root = locate(path)
    prepare(folder, root)
    stepped = "step" in run.dims
    steps = run["step"].values.tolist() if stepped else [None]
    writer = Writer(
        folder,
        examples=run.sizes["example"],
        capacity=max(1, len(steps)),
        codec=Codec(level, keepbits),
    )
    attrs = {"repsim_schema": SCHEMA, **run.attrs}
    if keepbits is not None:
        attrs["keepbits"] = keepbits
    for name, value in run.coords.items():
        if not value.dims:  # the step that run.isel(step=-1) leaves, for one
            attrs.setdefault(str(name), value.item())
    coords = _coords(run)
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


def _coords(run: xr.Dataset) -> dict[str, np.ndarray]:
    coords = {"example": np.arange(run.sizes["example"], dtype=np.int64)}
    for name, values in run.coords.items():
        if values.dims == ("example",):
            coords[str(name)] = np.asarray(values.values)
    return coords


def _put(writer: Writer, name: str, variable: xr.Variable) -> None:
    ordered = variable.transpose("example", ...)
    rows = ordered.sizes["example"]
    each = max(1, ordered.nbytes // max(1, rows))
    piece = max(1, 2**24 // each)
    for start in range(0, max(1, rows), piece):
        part = ordered.isel(example=slice(start, start + piece))
        dims = tuple(str(d) for d in part.dims)
        writer.put(name, np.asarray(part.values), dims, variable.attrs)


def is_complete(path: str | Path, group: str | None = None) -> bool:
    """Return whether a recording lies there that was closed in order.

    Parameters
    ----------
    path : str or Path
        The store, or the recording.
    group : str or None
        A place in the store.

    Returns
    -------
    bool
        False where nothing lies there, too. Reads one small file.
    """
    folder, _ = locate(path, group)
    try:
        attrs = read_document(folder).get("attributes", {})
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(attrs.get("complete", 0) == 1)


def remove_recording(path: str | Path, group: str | None = None) -> None:
    """Delete a recording with all it holds; nothing happens where there is none.

    Parameters
    ----------
    path : str or Path
        The store, or the recording.
    group : str or None
        A place in the store.

    Raises
    ------
    ValueError
        If something else than a store of ours lies there.
    """
    folder, _ = locate(path, group)
    if not folder.exists():
        return
    if not (folder / DOCUMENT).is_file() and not is_aborted(folder):
        msg = f"Expected a recording at {folder}, but found other files; not deleted."
        raise ValueError(msg)
    (folder / DOCUMENT).unlink(missing_ok=True)
    shutil.rmtree(folder)


def open_study(path: str | Path, *, chunks: Chunks = None) -> xr.DataTree:
    """Open a tree of recordings `/<condition>/<seed>` lazily.

    Parameters
    ----------
    path : str or Path
        The store, or the folder of a study that holds `runs.zarr`.
    chunks : int, dict, "auto" or None
        Given to xarray: None reads lazily without dask.

    Returns
    -------
    DataTree
        Each recording with its group `training` at the recorded steps.

    Raises
    ------
    FileNotFoundError
        If there is no study.
    ValueError
        If a recording in it is damaged: what is wrong, where, and whether it can
        be repaired.
    """
    root = Path(path)
    if not (root / DOCUMENT).is_file() and (root / "runs.zarr" / DOCUMENT).is_file():
        root = root / "runs.zarr"
    if not (root / DOCUMENT).is_file():
        msg = f"Expected a study at {root}, but found none."
        raise FileNotFoundError(msg)
    nodes: dict[str, xr.Dataset] = dict(_nodes(root, chunks))
    if len(nodes) < 2:
        msg = (
            f"Expected a study /<condition>/<seed> at {root}, but found no groups of "
            "that depth; a single recording opens with repsim.open_recording."
        )
        raise ValueError(msg)
    try:
        return xr.DataTree.from_dict(nodes)
    except (ValueError, xr.AlignmentError) as error:
        msg = (
            f"Expected the groups in {root} to fit into one tree, but a group differs "
            f"from the one above it in its steps or examples: {error}"
        )
        raise ValueError(msg) from error


def _nodes(root: Path, chunks: Chunks) -> Iterator[tuple[str, xr.Dataset]]:
    listed = read_document(root).get("attributes", {}).get("conditions", [])
    order = {str(name): i for i, name in enumerate(listed)}

    def place(folder: Path) -> tuple[tuple[int, int, str], ...]:
        # Conditions as the study lists them, then by name; seeds by number.
        parts = folder.relative_to(root).parts
        return tuple(
            (
                order.get(part, len(order)) if i == 0 else 0,
                int(part) if part.isdigit() else -1,
                part,
            )
            for i, part in enumerate(parts)
        )

    found = (root, *root.glob("*/*"), *root.glob("*/*/training"))
    for folder in sorted(found, key=place):
        if not (folder / DOCUMENT).is_file():
            continue
        if read_document(folder)["node_type"] != "group":
            continue
        depth = len(folder.relative_to(root).parts)
        run = _opened(folder, chunks)
        if depth == 2 and run.data_vars:
            validate(run, str(folder))
        name = "/" + "/".join(folder.relative_to(root).parts)
        if folder.name == "training" and (folder.parent / "step" / DOCUMENT).is_file():
            steps = read(folder.parent)["step"].values
            if not np.array_equal(run["step"].values, steps):
                run = run.reindex(step=steps)
        if run.variables or name == "/":
            yield name, run
