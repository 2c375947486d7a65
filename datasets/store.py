"""Recordings and studies on the disk: open, save, tell what is complete."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from repsim.datasets.layout import DOCUMENT, Codec, read_document
from repsim.datasets.reader import read
from repsim.datasets.recordings import SCHEMA, layers
from repsim.datasets.writer import Writer, is_aborted, prepare

Chunks = int | str | Mapping[Any, Any] | None


def locate(store: str | Path, group: str | None = None) -> tuple[Path, Path]:
    """Return the folder of a recording and of the store that holds it.

    Parameters
    ----------
    store : str or Path
        The store, or a place in one (`s.zarr/bp/0`).
    group : str or None
        A place in the store.

    Returns
    -------
    path, root : Path
        The recording's folder and the store's.

    Raises
    ------
    ValueError
        If `group` leads out of the store.
    """
    given = Path(store)
    parts = [] if group is None else [p for p in str(group).split("/") if p]
    if any(p in (".", "..") or p.startswith("__") or "\\" in p for p in parts):
        msg = (
            f"Expected `group` to name a place in the store, such as 'bp/0', but got "
            f"{group!r}."
        )
        raise ValueError(msg)
    root = given
    for parent in given.parents:
        if parent.suffix == ".zarr" or (parent / DOCUMENT).is_file():
            root = parent
    return given.joinpath(*parts), root


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
    if not (folder / DOCUMENT).is_file():
        msg = f"Expected a recording at {folder}, but found none."
        raise FileNotFoundError(msg)
    attrs = read_document(folder).get("attributes", {})
    if "repsim_store" in attrs:
        return read(folder, chunks=chunks)
    return xr.open_dataset(
        str(folder), engine="zarr", chunks=chunks, cache=False, consolidated=False
    )


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
        A new folder, also inside a store (`s.zarr/bp/0`).
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
    folder, root = locate(path)
    names = [str(n) for n, v in run.data_vars.items() if "example" in v.dims]
    listed = layers(run)
    if not listed:
        msg = "Expected a recording with layers, but no variable has an `example` dim."
        raise ValueError(msg)
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
        writer.finish()
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
    return xr.DataTree.from_dict(nodes)


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
        run = open_recording(folder, chunks=chunks)
        name = "/" + "/".join(folder.relative_to(root).parts)
        if folder.name == "training" and (folder.parent / "step" / DOCUMENT).is_file():
            steps = read(folder.parent)["step"].values
            if not np.array_equal(run["step"].values, steps):
                run = run.reindex(step=steps)
        if run.variables or name == "/":
            yield name, run
