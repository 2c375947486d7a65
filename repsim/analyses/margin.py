"""Class margin along depth: how far apart the classes lie in each layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.datasets.recordings import networks
from repsim.geometry.stacks import class_margin, rdms
from repsim.plot.style import panels

TITLE = "Class margin"
ORDER = 50


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return mean between-class minus within-class dissimilarity per layer."""
    margins: dict[str, dict[str, xr.DataArray]] = {}
    reference = next(iter(networks(study)))[0]
    for (condition, seed), run in networks(study).items():
        if _study.is_numeric(study, run):
            msg = "What these networks learn are numbers: there are no classes."
            raise NotApplicable(msg)
        if "label" not in run.coords:
            msg = "Expected recordings with a `label` coordinate, but they have none."
            raise NotApplicable(msg)
        margins.setdefault(condition, {})[seed] = _margin(_study.last(run))
        begin = _study.first(run)
        if condition == reference and begin is not None:
            margins.setdefault(_study.UNTRAINED, {})[seed] = _margin(begin)
    margins[_study.UNTRAINED] = margins.pop(_study.UNTRAINED, {})
    return xr.Dataset(
        {"margin": _study.stack(margins)},
        attrs=_study.provenance(
            analysis="margin", metric="correlation", **_study.split_attrs(study)
        ),
    )


def _margin(run: xr.Dataset) -> xr.DataArray:
    margin = class_margin(rdms(run.load(), metric="correlation"))
    return margin.drop_attrs().reset_coords(drop=True)


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: class margin along depth by condition."""
    figure, (ax,) = panels(1, width=7.5, height=4.0)
    margin = result["margin"].assign_attrs(long_name="class margin (1 − r)")
    plot.layer_curve(margin, ax=ax, splits=_study.marks(result))
    return {"class_margin": figure}


def claim(result: xr.Dataset) -> str:
    """Return where each condition's classes lie farthest apart."""
    each = _study.listed(
        f"{name} at {of['largest_at']} ({of['largest']:.2f})"
        for name, of in summary(result).items()
        if name != _study.UNTRAINED
    )
    return f"Classes lie farthest apart: {each}"


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return "Between-class minus within-class dissimilarity (1 − r), by layer."


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    return (
        "Class margin: mean dissimilarity (1 − correlation) between images of "
        "different classes minus that between images of one class, by layer. Line: "
        "mean over seeds, band: one standard deviation; dotted: splits, after whose "
        "layer the gradient is synthesised. Where a rule's margin is reached shows "
        "where in the network the classes "
        "are pulled apart."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return the layer where each condition's mean margin is largest."""
    mean = result["margin"].mean("seed")
    numbers = {}
    for name in mean["condition"].values:
        along = mean.sel(condition=name)
        numbers[str(name)] = {
            "largest_at": str(along["layer"].values[int(np.argmax(along.values))]),
            "largest": round(float(along.max()), 4),
        }
    return numbers
