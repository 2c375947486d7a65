"""Measured dissimilarities, such as a brain's, put beside a study's recordings."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from repsim.core.files import DOCUMENT
from repsim.datasets.exchange import from_other
from repsim.datasets.imports import read_file
from repsim.datasets.store.elsewhere import for_zarr, reaching
from repsim.studies.completeness import (
    TEST_POSITIONS,
    TEST_SIZE,
    expect_runs,
    runs_at,
)
from repsim.studies.facts import attributes
from repsim.studies.materials import load
from repsim.studies.plugins import import_modules
from repsim.studies.spec import Spec

NAME, MARK = "measured_rdm", "measured_rdm_sha256"


def add_rdms(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    store: Any = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Put measured RDMs into a study, for its report, and return them.

    Parameters
    ----------
    paths : sequence of path
        Files of one RDM or several: ``.npy``, ``.mat`` (its one numeric variable) or
        netCDF, square (example, example) or condensed (pair), with one more axis in
        front for subjects. Several files are so many subjects.
    out : path
        Folder of the study. Its test data are the stimuli, in their order, of which
        those that were recorded are taken; RDMs of fewer, and those of recordings made
        elsewhere, are of the recorded examples, in their order.
    store, storage_options
        As the study was told by `run_study`.

    Returns
    -------
    DataArray, dims (subject, measured_pair)
        In scipy's order of pairs.

    Raises
    ------
    ValueError
        If a file is of another kind, not an RDM, or of another number of examples.
    FileNotFoundError
        If a file or the study is missing.

    Examples
    --------
    >>> add_rdms(["brain.txt"], "study")
    Traceback (most recent call last):
    ValueError: Expected measured RDMs in .npy, .mat or .nc, but got brain.txt.
    """
    rows = _rows(paths)
    runs = runs_at(Path(out), store, storage_options)
    expect_runs(Path(out), runs)
    held = attributes(runs)
    at = held.get(TEST_POSITIONS)
    _expect_of(rows, _examples(runs), held.get(TEST_SIZE))
    if at is not None and _count(rows) == held[TEST_SIZE]:
        rows = _taken(rows, at)
    rdms = xr.DataArray(rows, dims=("subject", "measured_pair"), name=NAME)
    mark = hashlib.sha256(rows.tobytes()).hexdigest()
    if held.get(MARK) != mark:
        with reaching(runs):
            place = for_zarr(runs)
            root = zarr.open_group(place, mode="r+")
            if NAME in root:
                del root[NAME]
            rdms.to_dataset().to_zarr(
                place, mode="a", consolidated=False, zarr_format=3
            )
            root.attrs[MARK] = mark
    return rdms


def check_rdms(paths: Sequence[str | Path], spec: Spec) -> None:
    """Refuse what `add_rdms` will refuse, before a study is trained for it."""
    rows = _rows(paths)
    if spec.reduce != "tokens":  # how many tokens there are, the recordings say
        import_modules(spec.plugins)
        size = load(spec)[1].sizes["example"]
        _expect_of(rows, min(spec.examples, size), size)


def _rows(paths: Sequence[str | Path]) -> np.ndarray:
    """Return the RDMs of all files as (subject, pair)."""
    held = [condensed(read(Path(path)), str(path)) for path in paths]
    for path, rows in zip(paths, held, strict=True):
        if rows.shape[1] != held[0].shape[1]:
            msg = (
                f"Expected RDMs of as many examples in every file, but got "
                f"{_count(held[0])} in {paths[0]} and {_count(rows)} in {path}."
            )
            raise ValueError(msg)
    return np.concatenate(held)


def _count(rows: np.ndarray) -> int:
    """Return of how many examples condensed RDMs are."""
    return int(round((1 + (1 + 8 * int(rows.shape[-1])) ** 0.5) / 2))


def _expect_of(rows: np.ndarray, recorded: int, size: int | None) -> None:
    """Refuse RDMs that are neither of all test examples nor of the recorded ones."""
    if _count(rows) in (recorded, size):
        return
    of = f"the {recorded} recorded examples"
    if size is not None:
        more = "" if size == recorded else f", or of {of}"
        of = f"the {size} test examples{more}"
    msg = (
        f"Expected measured RDMs of {of}, but got some of {_count(rows)}; make the "
        "stimuli the test data, in the RDMs' order."
    )
    raise ValueError(msg)


def _taken(rows: np.ndarray, at: Sequence[int]) -> np.ndarray:
    """Return condensed RDMs of some examples, in this order."""
    n = _count(rows)
    # scipy's place of the pair (i, j), i < j, in a condensed RDM.
    i, j = np.asarray(at)[np.stack(np.triu_indices(len(at), 1))]
    low, high = np.minimum(i, j), np.maximum(i, j)
    return np.asarray(rows[:, n * low - low * (low + 1) // 2 + high - low - 1])


def read(path: Path) -> np.ndarray:
    """Return the array of a file."""
    if path.suffix not in (".npy", ".mat", ".nc"):
        msg = f"Expected measured RDMs in .npy, .mat or .nc, but got {path}."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"Expected a file at {path}, but found none."
        raise FileNotFoundError(msg)
    if path.suffix == ".nc":
        with from_other(path) as data:
            held = {str(k): v.values for k, v in data.data_vars.items()}
    else:
        held = read_file(path)
    numeric = {k: np.asarray(v) for k, v in held.items() if np.asarray(v).ndim > 0}
    numeric = {k: v for k, v in numeric.items() if v.dtype.kind in "fiu"}
    if len(numeric) != 1:
        msg = (
            f"Expected {path} to hold one numeric variable, but got "
            f"{', '.join(numeric) or 'none'}; save the RDMs alone."
        )
        raise ValueError(msg)
    return next(iter(numeric.values()))


def condensed(values: np.ndarray, what: str) -> np.ndarray:
    """Return RDMs as (subject, pair), from square or condensed ones."""
    values = np.asarray(values, dtype=np.float64)
    square = values.ndim >= 2 and values.shape[-1] == values.shape[-2]
    if square:
        stack = values.reshape(-1, *values.shape[-2:])
        if not np.allclose(stack, stack.transpose(0, 2, 1), equal_nan=True):
            msg = f"Expected symmetric RDMs in {what}, but got some that are not."
            raise ValueError(msg)
        _refuse_similarities(stack, what)
        return np.asarray(stack[:, *np.triu_indices(stack.shape[-1], 1)])
    rows = np.squeeze(values)
    rows = rows[None] if rows.ndim == 1 else rows
    count = (1 + np.sqrt(1 + 8 * rows.shape[-1])) / 2
    if rows.ndim != 2 or count != int(count):
        msg = (
            f"Expected RDMs in {what} as (example, example) or condensed (pair), with "
            f"subjects in front, but got {values.shape}."
        )
        raise ValueError(msg)
    return rows


def _refuse_similarities(stack: np.ndarray, what: str) -> None:
    """Refuse matrices in which each example is farthest from itself.

    A diagonal that is not zero is no fault: distances between halves of the data have
    one.
    """
    n = stack.shape[-1]
    own = np.diagonal(stack, axis1=1, axis2=2)
    rest = np.where(np.eye(n, dtype=bool), -np.inf, np.nan_to_num(stack, nan=-np.inf))
    if n > 1 and bool((own > rest.max(-1)).all()):
        msg = (
            f"Expected dissimilarities in {what}, but got numbers that are largest on "
            "the diagonal, as similarities are; give 1 - them."
        )
        raise ValueError(msg)


def _examples(store: Path) -> int:
    """Return how many examples the study recorded."""
    for document in sorted(store.glob(f"*/*/example/{DOCUMENT}")):
        return int(zarr.open_array(for_zarr(document.parent), mode="r").shape[0])
    msg = f"Expected recordings in {store}, but found none."
    raise FileNotFoundError(msg)
