"""Layers against layers at every recorded moment: within a rule, and between rules."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.comparison.all_pairs import compare
from repsim.datasets.recordings import networks
from repsim.plot.style import figure_of

TITLE = "When in training layers differ"
ORDER = 32
SHOWN = 6
"""Moments in the static figure; the page's slider has all."""


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return debiased CKA of each condition with the first, at every common step.

    The mean over two pairs of networks of different seeds; all pairs would cost what
    the rest of the report does.
    """
    runs: dict[str, list[xr.Dataset]] = {}
    for (condition, _), run in networks(study).items():
        if run.sizes.get("step", 1) < 2:
            msg = "Expected recordings of at least two steps, but got one moment."
            raise NotApplicable(msg)
        if len(runs.setdefault(condition, [])) < 2:
            runs[condition].append(run)
    reference, first = next(iter(runs.items()))
    if len(first) < 2 or any(len(of) < 2 for of in runs.values()):
        msg = "Expected two networks of every condition, but one has a single one."
        raise NotApplicable(msg)
    steps = sorted(set.intersection(*(_steps(r) for of in runs.values() for r in of)))
    first = [run.sel(step=steps).load() for run in first]
    cells = []
    for condition, of in runs.items():
        others = first if condition == reference else [_at(r, steps) for r in of]
        pairs = [(first[0], others[1]), (first[1], others[0])]
        found = [compare(a, b, "cka").drop_attrs() for a, b in pairs]
        cells.append((found[0] + found[1]) / 2)
    return xr.Dataset(
        {"cka": xr.concat(cells, xr.Variable("condition", list(runs)))},
        attrs=_study.provenance(analysis="over_training", measure="cka"),
    )


def _steps(run: xr.Dataset) -> set[int]:
    return {int(step) for step in run["step"].values}


def _at(run: xr.Dataset, steps: list[int]) -> xr.Dataset:
    return run.sel(step=steps).load()


def _gap(result: xr.Dataset) -> xr.DataArray:
    """Return each condition minus two seeds of the first."""
    cka = result["cka"]
    return cka.isel(condition=slice(1, None)) - cka.isel(condition=0, drop=True)


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return heat maps of the condition that differs most, minus the reference."""
    names = [str(name) for name in result["condition"].values]
    at = np.unique(np.linspace(0, result.sizes["step"] - 1, SHOWN).astype(int))
    if len(names) == 1:
        cells = result["cka"].isel(condition=0, drop=True)
    else:
        far = abs(_gap(result)).mean(["step", "layer_a", "layer_b"]).values
        most = int(np.nan_to_num(far).argmax())
        cells = _gap(result).isel(condition=most)
    shown = cells.isel(step=at).assign_attrs(measure="cka")
    axes = plot.heatmaps(shown, col="step", columns=3, difference=len(names) > 1)
    _study.name_sides(axes, names[0])
    figure = figure_of(axes)
    if len(names) > 1:
        who = f"{names[0]} – {cells['condition'].item()} minus two seeds of {names[0]}"
        figure.suptitle(f"{who}\n", fontsize="medium")
    return {"over_training": figure}


def claim(result: xr.Dataset) -> str:
    """Return at which step each condition is furthest from the reference."""
    reference, *others = (str(name) for name in result["condition"].values)
    if not others:
        return f"How alike two networks of {reference} are while they are trained"
    parts = []
    for name in others:
        gap = abs(_gap(result).sel(condition=name)).mean(["layer_a", "layer_b"]).values
        if len(gap) > 1 and not int(result["step"][0]):
            gap[0] = 0  # nothing was learnt: other initial weights, no other rule
        k = int(np.nan_to_num(gap).argmax())
        step, value = int(result["step"].values[k]), float(gap[k])
        parts.append(f"{name} after {step} updates ({value:.3f} on average)")
    return (
        f"CKA with {reference} is furthest from that of two seeds for "
        f"{_study.listed(parts)}"
    )


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return "Two pairs of networks: where to look, not whether it is more than chance."


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    return (
        "Debiased linear CKA of all layers at each moment, the mean over two pairs of "
        "networks with different seeds, and the same minus that of two seeds of the "
        "first condition. The slider chooses the moment. Two pairs describe; the tests "
        "over all networks are in the first section."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return the mean absolute difference of each condition, by step."""
    gap = abs(_gap(result)).mean(["layer_a", "layer_b"])
    return {
        str(name): {
            str(step): round(float(value), 4)
            for step, value in zip(
                gap["step"].values, gap.sel(condition=name).values, strict=True
            )
        }
        for name in gap["condition"].values
    }


def interactive(result: xr.Dataset) -> Mapping[str, Any]:
    """Return the heat maps that the page lets its reader choose from."""
    names = [str(name) for name in result["condition"].values]
    views = [_study.view("debiased CKA", result["cka"], 0.0, 1.0)]
    if len(names) > 1:
        own = result["cka"] - result["cka"].isel(condition=0, drop=True)
        top = float(np.nan_to_num(abs(own.values)).max()) or 1.0
        views.append(_study.view(f"minus two seeds of {names[0]}", own, -top, top))
    pairs = [f"{names[0]} – {name}" for name in names]
    return _study.explorer(
        {"pair": pairs, "step": result["step"].values.tolist()}, result, views
    )
