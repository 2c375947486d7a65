"""Files of other tools to recordings, and recordings to files of other tools."""

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from repsim.core.files import DOCUMENT
from repsim.core.messages import unknown
from repsim.datasets.arrays import from_arrays, from_responses
from repsim.datasets.exchange import from_dataframe, from_netcdf, to_dataframe
from repsim.datasets.imports import READERS, read_file
from repsim.datasets.recordings import layers
from repsim.datasets.store import save_recording

COORDINATES = {
    "label": "label", "labels": "label", "example": "example", "examples": "example",
    "ids": "example", "mask": "mask", "attention_mask": "mask", "step": "step",
    "steps": "step",
}  # fmt: skip
"""Names in a file that are no layers."""

SAID = "repsim_axes"
"""Name in a file of what `write_activations` says of axes: JSON, as bytes."""

MEASURED = {"example": "condition", "unit": "channel"}
"""What measured responses call these, which may have subjects and repeats."""


def read_activations(
    path: str | Path, *, axes: str | Mapping[str, str] | None = None, **attrs: Any
) -> xr.Dataset | xr.DataTree:
    """Return files of activations as a recording.

    Parameters
    ----------
    path : str or Path
        ``.npy`` (one layer), ``.npz``, ``.mat``, ``.pt`` (a tensor, or a dict of
        them; read with ``weights_only=True``), ``.nc`` and ``.csv`` (written by
        repsim), or a folder of the others: one layer a file, named by its path
        (``blocks/3.npy`` is ``blocks.3``); a file called ``features`` is named by its
        folder, as thingsvision writes them.
    axes : str or mapping of str to str, optional
        What axes mean, as in `repsim.from_arrays`; needed for three, which may be
        tokens or subjects. With ``subject`` or ``repeat`` among them, as in
        `from_responses`.
    **attrs
        Attributes to keep.

    Returns
    -------
    Dataset or DataTree
        A recording; with subjects a study ``/<name>/<subject>``. Arrays called
        ``labels``, ``examples`` (or ``ids``), ``mask`` and ``step`` become its
        coordinates; several steps are the layers' first axis.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If a file is of another kind or damaged, arrays do not fit together or are
        RDMs, or nobody says what three axes mean.

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
    if (source / DOCUMENT).is_file():
        msg = (
            f"Expected activations of another tool, but {source} is zarr already; "
            "open it as it is, as in repsim.open_recording."
        )
        raise ValueError(msg)
    if source.suffix == ".nc":
        return from_netcdf(source).load().assign_attrs(attrs)
    if source.suffix == ".csv" and source.is_file():
        try:
            rows = pd.read_csv(source)
        except (ValueError, OSError) as error:  # pandas' own are ValueErrors
            said = " ".join(str(error).split())
            msg = f"Expected {source} to be a table, but it cannot be read: {said}."
            raise ValueError(msg) from error
        return from_dataframe(rows).assign_attrs(attrs)
    arrays = dict(_folder(source)) if source.is_dir() else read_file(source)
    axes = axes or _said(arrays.pop(SAID, None))
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
    for name, values in activations.items():
        if not (axes if axes is None or isinstance(axes, str) else axes.get(name)):
            _check_told(name, values, flat)
    label, ids = flat.get("label"), flat.get("example")
    if isinstance(axes, str) and {"subject", "repeat"} & set(axes.split()):
        words = " ".join(MEASURED.get(word, word) for word in axes.split())
        parts = {
            name: from_responses(
                values, axes=words, name=name, conditions=ids, labels=label, **attrs
            )
            for name, values in activations.items()
        }
        return _beside(parts)
    return from_arrays(
        activations,
        label,
        ids,
        axes=axes,
        mask=flat.get("mask"),
        steps=flat.get("step"),
        **attrs,
    )


def _said(kept: np.ndarray | None) -> dict[str, str] | None:
    """Return the axes that `write_activations` wrote beside the layers."""
    if kept is None:
        return None
    try:
        said = json.loads(np.asarray(kept).tobytes())
        return {str(name): str(words) for name, words in said.items()}
    except (ValueError, AttributeError) as error:
        msg = f"Expected {SAID!r} to name axes as JSON, but got {error}; pass `axes`."
        raise ValueError(msg) from error


def _beside(parts: Mapping[str, xr.Dataset | xr.DataTree]) -> xr.Dataset | xr.DataTree:
    """Return the responses of several areas as one recording, or as one study."""
    runs = [part for part in parts.values() if isinstance(part, xr.Dataset)]
    if runs:
        joined = runs[0]
        for run in runs[1:]:
            joined = joined.assign(run.data_vars)
        return joined.assign_attrs(layers=list(parts))
    trees = [part for part in parts.values() if isinstance(part, xr.DataTree)]
    nodes = {k: node for tree in trees for k, node in tree.to_dict().items()}
    return xr.DataTree.from_dict(nodes)


def _check_told(name: str, values: Any, coords: Mapping[str, Any]) -> None:
    """Ask what axes mean where their number does not tell."""
    shape = tuple(values.shape)
    if _are_rdms(values):
        msg = (
            f"Expected activations, but {name!r} of shape {shape} looks like RDMs "
            "(symmetric, 0 on the diagonal); hold layers against it with `repsim study "
            "--rdm FILE` (`--from RUNS.zarr` for recordings of your own) or "
            "repsim.inference.model_test, or say what its axes are with --axes."
        )
        raise ValueError(msg)
    over = np.ndim(coords.get("step", 0))
    mask = np.shape(coords.get("mask", ()))
    if len(shape) == 3 + over and mask != shape[over : over + 2]:
        said = (
            "'step example token unit'"
            if over
            else ("'example token unit', or 'subject condition channel' for responses")
        )
        msg = (
            f"Expected to be told what the {len(shape)} axes of {name!r} mean, as its "
            f"shape {shape} may be of tokens, subjects or repeats; say them in order: "
            f"--axes {said} (axes= in Python)."
        )
        raise ValueError(msg)


def _are_rdms(values: Any) -> bool:
    """Whether an array is a symmetric matrix of distances, or a stack of such."""
    shape = tuple(values.shape)
    if len(shape) not in (2, 3) or shape[-1] != shape[-2] or shape[-1] < 3:
        return False
    array = values.detach().double().numpy() if hasattr(values, "detach") else values
    same = np.array_equal(array, np.swapaxes(array, -1, -2))
    empty = not np.diagonal(array, axis1=-2, axis2=-1).any()
    return bool(same and empty and array.any())


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
        ``mask``, ``step``, and the names of axes as bytes of JSON, ``repsim_axes``),
        ``.csv`` (a long table), ``.nc``, or ``.zarr``.

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
    target.parent.mkdir(parents=True, exist_ok=True)
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
    said = {name: _words(name, run[name].dims) for name in arrays}
    arrays[SAID] = np.frombuffer(json.dumps(said).encode(), np.uint8)
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


def _words(name: str, dims: Iterable[Hashable]) -> str:
    """Return a layer's axes as `from_arrays` takes them."""
    words = (str(dim).removeprefix(f"{name}_").rstrip("_") for dim in dims)
    return " ".join(words)
