"""What is left out of a sample in turn, and a measure's values without it."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from repsim.core.bars import progress_bar
from repsim.core.messages import unknown
from repsim.inference import closed_forms as alignment
from repsim.inference import rsa_influence as geometry
from repsim.inference.jackknife import Estimates
from repsim.measures.catalogue import Measure


def closed_form(
    measure: Measure, options: dict[str, Any], which: np.ndarray | None = None
) -> Callable[..., Estimates] | None:
    """Return the jackknife form of a measure with these options, if there is one."""
    if measure.name == "cka" and set(options) <= {"debiased", "kernel", "bandwidth"}:
        kept = {k: v for k, v in options.items() if k != "debiased"}
        if options.get("debiased", True) and which is None:
            return lambda xs, ys: alignment.leave_one_out(xs, ys, **kept)
        if options.get("debiased", True) and which is not None:
            groups = which
            return lambda xs, ys: alignment.leave_group_out(xs, ys, groups, **kept)
    if measure.name == "rsa" and set(options) <= {"metric", "method"}:
        metric = options.get("metric", "correlation")
        method = options.get("method", "spearman")
        if metric in geometry.METRICS and method in geometry.METHODS:
            return lambda xs, ys: geometry.leave_one_out(
                xs, ys, metric=metric, method=method, which=which
            )
    return None


def labels_of(run: xr.Dataset, over: str) -> np.ndarray:
    """Return a coordinate of the examples."""
    known = [str(n) for n, c in run.coords.items() if c.dims == ("example",)]
    if over not in known:
        factors = dict.fromkeys(["example", "seed", "unit", *known])
        raise ValueError(unknown("over", over, list(factors)))
    return np.asarray(run[over].values)


def random_groups(n: int, count: int, seed: int) -> list[np.ndarray]:
    """Return examples dealt at random into groups of nearly one size."""
    order = np.random.default_rng(seed).permutation(n)
    return [np.sort(part) for part in np.array_split(order, min(count, n))]


def label_groups(labels: np.ndarray, name: str) -> list[np.ndarray]:
    """Return examples grouped by what they are labelled with."""
    kinds, which = np.unique(labels, return_inverse=True)
    if len(kinds) < 3:
        msg = (
            f"Expected at least three values of {name!r} to generalise over, but got "
            f"{len(kinds)}; take over='example'."
        )
        raise ValueError(msg)
    return [np.flatnonzero(which == kind) for kind in range(len(kinds))]


def leave_groups_out(
    measure: Callable[[np.ndarray], np.ndarray],
    value: np.ndarray,
    n: int,
    groups: list[np.ndarray],
    progress: bool = False,
) -> Estimates:
    """Return a measure of all but each group of examples."""
    everything = np.arange(n)
    without = []
    with warnings.catch_warnings():
        # What the measure warns of on all examples it would say again of each part.
        warnings.simplefilter("ignore", UserWarning)
        for group in progress_bar(groups, desc="parts", progress=progress):
            without.append(measure(np.delete(everything, group)))
    return Estimates(value, np.stack(without))
