"""Studies on the disk: trees of recordings, opened lazily."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from repsim.core.files import DOCUMENT
from repsim.datasets.store import Chunks, opened
from repsim.datasets.store.places import study_at
from repsim.datasets.store.reader import read
from repsim.datasets.store.zarr_format import read_document
from repsim.datasets.validation import validate


def open_study(
    path: Any,
    *,
    chunks: Chunks = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Open a tree of recordings `/<condition>/<seed>` lazily.

    Parameters
    ----------
    path : str, Path or zarr store
        The store, also elsewhere ("s3://…", "gs://…"), or the folder of a study,
        wherever it keeps its recordings.
    chunks : int, dict, "auto" or None
        Given to xarray: None reads lazily without dask.
    storage_options : mapping or None
        What fsspec needs for a store elsewhere: keys, an endpoint.

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

    Examples
    --------
    >>> import numpy as np, repsim
    >>> run = repsim.from_arrays({"h": np.eye(4)})
    >>> for group in ("bp/0", "bp/1", "sg/0"):
    ...     repsim.save_recording(run, f"mine.zarr/{group}")
    >>> open_study("mine.zarr").repsim.conditions
    {'bp': ['0', '1'], 'sg': ['0']}
    """
    root = study_at(path, storage_options)
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
    except KeyError as error:
        msg = (
            f"Expected the groups in {root} to fit into one tree, but a group has the "
            f"name of a variable of the one above it: {error.args[0]}."
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

    folders = (root, *root.glob("*/*"), *root.glob("*/*/training"))
    for folder in sorted(folders, key=place):
        if not (folder / DOCUMENT).is_file():
            continue
        if read_document(folder)["node_type"] != "group":
            continue
        depth = len(folder.relative_to(root).parts)
        run = opened(folder, chunks)
        if depth == 2 and run.data_vars:
            validate(run, str(folder))
        name = "/" + "/".join(folder.relative_to(root).parts)
        if folder.name == "training" and (folder.parent / "step" / DOCUMENT).is_file():
            if not (folder.parent / DOCUMENT).is_file():
                continue  # its recording is gone
            steps = read(folder.parent)["step"].values
            if "step" not in run.indexes or not run.indexes["step"].is_unique:
                msg = (
                    f"Expected {folder} to have steps, each once, but it has not: its "
                    "`step` was overwritten. Copy it from a backup, or delete it."
                )
                raise ValueError(msg)
            if not np.array_equal(run["step"].values, steps):
                run = run.reindex(step=steps)
        if run.variables or name == "/":
            yield name, run
