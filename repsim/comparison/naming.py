"""What two recordings are called where they stand side by side."""

from pathlib import PurePath
from typing import Any

import xarray as xr

_FACTS = ("rule", "network", "dataset", "seed", "init_seed", "step")
"""What tells recordings apart that lie nowhere; the first say it without their name."""


def names_of(a: xr.Dataset, b: xr.Dataset) -> dict[str, str]:
    """Return `recording_a` and `recording_b`, nothing where nothing tells them apart.

    Recordings from a store are called by their place, as far as it differs; others by
    the attributes that differ.
    """
    names = _places(a, b)
    if names[0] == names[1]:
        names = _differences(a, b)
    return (
        dict(zip(("recording_a", "recording_b"), names, strict=True)) if names else {}
    )


def _places(*runs: xr.Dataset) -> list[str]:
    """Return the ends of both paths, the condition and seed of a study's recordings."""
    paths = [PurePath(str(run.encoding.get("source", ""))).parts for run in runs]
    if not all(paths):
        return ["", ""]
    inside = (len(p) - 1 - max(_stores(p), default=len(p) - 1) for p in paths)
    length = max(1, *inside)
    while length < max(map(len, paths)) and paths[0][-length:] == paths[1][-length:]:
        length += 1
    return ["/".join(_bare(part) for part in path[-length:]) for path in paths]


def _stores(path: tuple[str, ...]) -> list[int]:
    return [i for i, part in enumerate(path) if part.endswith(".zarr")]


def _bare(part: str) -> str:
    return part.removesuffix(".zarr").removesuffix(".nc")


def _differences(*runs: xr.Dataset) -> list[str]:
    facts = [{**run.attrs, **_moment(run)} for run in runs]
    told = [k for k in _FACTS if all(k in f for f in facts)]
    told = [k for k in told if facts[0][k] != facts[1][k]]
    if "seed" in told and "init_seed" in told:
        told.remove("init_seed")
    lead = {key: "" if key in _FACTS[:3] else f"{key} " for key in told}
    return [", ".join(f"{lead[k]}{f[k]}" for k in told) for f in facts] if told else []


def _moment(run: xr.Dataset) -> dict[str, Any]:
    alone = "step" in run.coords and run["step"].ndim == 0
    return {"step": int(run["step"])} if alone else {}
