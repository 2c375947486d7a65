"""Files of other tools to recordings, and recordings to files of other tools."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from repsim.core.messages import unknown
from repsim.datasets.arrays import from_arrays
from repsim.datasets.exchange import from_netcdf, to_dataframe
from repsim.datasets.imports import READERS, read_file
from repsim.datasets.recordings import layers
from repsim.datasets.store import save_recording

COORDINATES = {
    "label": "label", "labels": "label", "example": "example", "examples": "example",
    "ids": "example", "mask": "mask", "attention_mask": "mask", "step": "step",
    "steps": "step",
}  # fmt: skip
"""Names in a file that are no layers."""


def read_activations(
    path: str | Path, *, axes: str | Mapping[str, str] | None = None, **attrs: Any
) -> xr.Dataset:
    """Return files of activations as a recording.

    Parameters
    ----------
    path : str or Path
        ``.npy`` (one layer), ``.npz``, ``.mat``, ``.pt`` (a tensor, or a dict of
        them; read with ``weights_only=True``), ``.nc`` (written by repsim), or a
        folder of such files: one layer a file, named by its path
        (``blocks/3.npy`` is ``blocks.3``); a file called ``features`` is named by its
        folder, as thingsvision writes them.
    axes : str or mapping of str to str, optional
        What axes mean, as in `repsim.from_arrays`.
    **attrs
        Attributes to keep.

    Returns
    -------
    Dataset
        A recording. Arrays called ``labels``, ``examples`` (or ``ids``), ``mask`` and
        ``step`` become its coordinates; several steps are the layers' first axis.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If a file is of another kind or damaged, or arrays do not fit together.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/acts.npz", fc=np.eye(3), labels=[0, 1, 1])
    ...     dict(read_activations(f"{folder}/acts.npz").sizes)
    {'example': 3, 'fc_unit': 3}
    """
    source = Path(path)
    if not source.exists():
        msg = f"Expected activations at {source}, but there is nothing."
        raise FileNotFoundError(msg)
    if source.suffix == ".nc":
        return from_netcdf(source).load().assign_attrs(attrs)
    arrays = dict(_folder(source)) if source.is_dir() else read_file(source)
    coords = {COORDINATES[n]: a for n, a in arrays.items() if n in COORDINATES}
    activations = {n: a for n, a in arrays.items() if n not in COORDINATES}
    if not activations:
        kinds = ", ".join(READERS)
        msg = f"Expected arrays in {source} ({kinds}), but found none."
        raise ValueError(msg)
    flat = {k: _vector(v) if k != "mask" else v for k, v in coords.items()}
    if source.suffix == ".mat" and getattr(flat.get("step"), "shape", ()) == (1,):
        # MATLAB has no scalars: several moments, of which there is one, or a moment?
        ids = flat.get("example", flat.get("label"))
        heads = {np.shape(a)[0] for a in activations.values()}
        if ids is None or heads != {1} or len(ids) == 1:
            flat["step"] = flat["step"][0]
    return from_arrays(
        activations,
        flat.get("label"),
        flat.get("example"),
        axes=axes,
        mask=flat.get("mask"),
        steps=flat.get("step"),
        **attrs,
    )


def _vector(values: np.ndarray) -> np.ndarray:
    """Return MATLAB's row or column, which has no vectors, as one."""
    values = np.asarray(values)
    flat = values.reshape(-1) if values.ndim == 2 and 1 in values.shape else values
    whole = flat.dtype.kind == "f" and bool(np.all(flat == np.round(flat)))
    return flat.astype(np.int64) if whole else flat


def _folder(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    files = [f for f in folder.rglob("*") if f.suffix in READERS and f.is_file()]
    for file in sorted(files, key=lambda f: _natural(f.relative_to(folder))):
        parts = list(file.relative_to(folder).with_suffix("").parts)
        if parts[-1] == "features" and len(parts) > 1:
            parts.pop()
        arrays = read_file(file)
        whole = len(arrays) == 1 and file.suffix != ".npz"  # the file is the layer
        for name, array in arrays.items():
            inner = [] if whole else [name]
            yield (name if name in COORDINATES else ".".join([*parts, *inner])), array


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Return a key by which layer_2 comes before layer_10."""
    pieces = re.split(r"(\d+)", str(path))
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in pieces]


def write_activations(run: xr.Dataset, path: str | Path) -> None:
    """Write a recording as files of other tools; the ending says which.

    Parameters
    ----------
    run : Dataset
        A recording.
    path : str or Path
        A new file or folder: ``.npz`` and ``.mat`` (layers, ``labels``, ``examples``,
        ``mask``, ``step``), ``.csv`` (a long table), ``.nc``, or ``.zarr``.

    Raises
    ------
    FileExistsError
        If the place is taken.
    ValueError
        If the ending is of no known kind.

    Examples
    --------
    >>> import tempfile, numpy as np, repsim
    >>> run = repsim.from_arrays({"fc": np.eye(3)}, labels=[0, 1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_activations(run, f"{folder}/acts.npz")
    ...     read_activations(f"{folder}/acts.npz").attrs["layers"]
    ['fc']
    """
    target = Path(path)
    known = [".npz", ".mat", ".csv", ".nc", ".zarr"]
    if target.suffix not in known:
        raise ValueError(unknown("file's ending", target.suffix, known))
    if target.suffix in (".nc", ".zarr"):
        save_recording(run, target)
        return
    if target.exists():
        msg = f"Expected a new file, but {target} exists; choose another name."
        raise FileExistsError(msg)
    if target.suffix == ".csv":
        to_dataframe(run).to_csv(target, index=False)
        return
    arrays = {name: np.asarray(run[name].values) for name in layers(run)}
    for name, called in (
        ("label", "labels"),
        ("example", "examples"),
        ("mask", "mask"),
        ("step", "step"),
    ):
        if name in run.coords:
            arrays[called] = np.asarray(run[name].values)
    if target.suffix == ".npz":
        np.savez_compressed(target, allow_pickle=False, **arrays)
        return
    from scipy.io import savemat

    savemat(target, arrays)
