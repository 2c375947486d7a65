"""The paper's Figure 4: RDMs layer by layer, and how they approach the last one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.datasets.recordings import networks
from repsim.geometry.profiles import rdm_distance
from repsim.geometry.stacks import rdms, squareform
from repsim.plot.style import panels, share_legend

TITLE = "Dissimilarity matrices layer by layer (the paper's Figure 4)"
ORDER = 45
SHOWN = 40
"""Examples of the matrices to choose from: some of each class, cells large enough."""
_CELLS = 120_000
"""Cells of all of them: five bytes each, and a page of many rules has to be sent."""

_LINES = {
    "euclidean": {"metric": "euclidean"},
    "correlation": {"metric": "correlation"},
    "change": {"metric": "correlation", "reference": "previous"},
}


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return the RDMs at the last step and their distances to the last layer."""
    squares: dict[str, xr.DataArray] = {}
    lines: dict[str, dict[str, dict[str, xr.DataArray]]] = {name: {} for name in _LINES}
    for (condition, seed), run in networks(study).items():
        names = hidden(run)
        if run.sizes["example"] < 3 or len(names) < 2:
            msg = "Expected recordings of three examples and two layers or more."
            raise NotApplicable(msg)
        stack = rdms(_study.last(run)[names].load(), layers=names)
        stack = (
            stack.reset_coords("step", drop=True) if "step" in stack.coords else stack
        )
        squares.setdefault(condition, stack)
        for name, of in lines.items():
            line = rdm_distance(stack, **_LINES[name])  # type: ignore[arg-type]
            of.setdefault(condition, {})[seed] = line.drop_attrs()
    grid = xr.concat(
        list(squares.values()),
        xr.Variable("condition", list(squares)),
        join="outer",
        coords="minimal",
        compat="override",
        combine_attrs="drop_conflicts",
    )
    reference = str(next(iter(squares.values()))["layer"].values[-1])
    return xr.Dataset(
        {"rdm": grid.drop_attrs()}
        | {name: _study.stack(of) for name, of in lines.items()},
        attrs=_study.provenance(
            analysis="figure4",
            metric="correlation",
            reference=reference,
            **_study.split_attrs(study),
        ),
    )


def hidden(run: xr.Dataset) -> list[str]:
    """Return the layers of a network but its output, as the paper draws them."""
    names = _study.spread_out(run)
    return names[:-1] if len(names) > 2 and names[-1] == "output" else names


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return the RDM grid, and distances to the last layer and to the one before."""
    splits = _all_splits(result)
    grid = result["rdm"].assign_attrs(measure="rdm", metric="correlation")
    drawn = plot.rdm_grid(grid, splits=splits)
    figure, axes = panels(3, width=4.6, height=3.8)
    for ax, (name, options) in zip(axes, _LINES.items(), strict=True):
        lines = result[name].assign_attrs(
            measure="rdm_distance",
            distance=options["metric"],
            along="layer",
            reference=options.get("reference", result.attrs["reference"]),
        )
        plot.dynamics(lines, ax=ax, splits=splits)
    share_legend(figure)
    return {"rdm_grid": drawn.figure, "rdm_distance": figure}


def _all_splits(result: xr.Dataset) -> dict[str, list[str]]:
    splits = {}
    for key, names in result.attrs.items():
        if str(key).startswith("splits_"):
            listed = [names] if isinstance(names, str) else list(names)
            splits[str(key).removeprefix("splits_")] = [str(name) for name in listed]
    return splits


def claim(result: xr.Dataset) -> str:
    """Return from which layer on the geometry is that of the last."""
    each = _study.listed(
        f"{name} {of['settled_from']}" for name, of in summary(result).items()
    )
    return f"The geometry of the last layer is there (r ≥ 0.9) from: {each}"


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return (
        "Above: correlation distance between all pairs of images, sorted by label, of "
        "one network a condition. Below: distances between layers' matrices."
    )


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    reference = result.attrs["reference"]
    return (
        "Above: correlation distance (1 − r) between all pairs of images, sorted by "
        "label, for each hidden layer of one network a condition; one colour scale; "
        "dark blocks on the diagonal are classes; a thick right edge marks a layer "
        "after which the gradient is synthesised. Below: distance of each layer's "
        f"dissimilarities to those of {reference}, as the Euclidean norm over pairs "
        "and as one minus their correlation, which ignores their scale; c: to "
        "those of the layer before, where a break would be a peak; line: mean over "
        "seeds, band: one standard deviation; dotted: splits (ticks where there is one "
        "after every layer)."
    )


def interactive(result: xr.Dataset) -> Mapping[str, Any] | None:
    """Return RDMs that the page lets its reader choose from: some examples of each."""
    square = squareform(result["rdm"])
    if square.sizes["example_a"] < 2:
        return None
    order = np.arange(square.sizes["example_a"])
    if "label_a" in square.coords:
        order = np.argsort(square["label_a"].values, kind="stable")
    matrices = square.sizes["condition"] * square.sizes["layer"]
    shown = min(SHOWN, len(order), max(8, int((_CELLS / 2 / matrices) ** 0.5)))
    few = order[np.linspace(0, len(order) - 1, shown).astype(int)]
    square = square.isel(example_a=few, example_b=few)
    names = [str(k) for k in square["example_a"].values]
    if "label_a" in square.coords:
        labels = square["label_a"].values
        names = [f"{k} (label {c})" for k, c in zip(names, labels, strict=True)]
    square = square.drop_vars(["label_a", "label_b"], errors="ignore")
    square = square.assign_coords(example_a=names, example_b=names)
    top = float(np.nan_to_num(square.values).max()) or 1.0
    views = [_study.view("correlation distance", square, 0.0, top, "example")]
    conditions = [str(name) for name in square["condition"].values]
    if len(conditions) > 1:
        gap = square - square.isel(condition=0, drop=True)
        far = float(np.nan_to_num(abs(gap.values)).max()) or 1.0
        name = f"minus {conditions[0]}"
        views.append(_study.view(name, gap, -far, far, "example"))
    choices = {"rule": conditions, "layer": [str(n) for n in square["layer"].values]}
    return _study.explorer(choices, square, views, "example")


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return where RDMs settle (r ≥ 0.9 to the last), and the change at splits.

    Where some condition has few splits, every condition is measured there:
    `change_into_<layer>` is one minus the correlation with the layer before the
    split, `…_over_neighbours` its ratio to the mean of the changes one layer earlier
    and one later (1: no break), with the least and most of the seeds.
    """
    mean = result["correlation"].mean("seed")
    names = [str(v) for v in result["layer"].values]
    split = {s for at in _study.marks(result).values() for s in at}
    after = [k + 1 for k, name in enumerate(names) if name in split]
    numbers: dict[str, Any] = {}
    for condition in mean["condition"].values:
        line = mean.sel(condition=condition).dropna("layer")
        far = np.flatnonzero(line.values > 0.1)
        there = line["layer"].values[far[-1] + 1 if len(far) else 0 :]
        settled = str(there[0]) if there.size else "nowhere"
        numbers[str(condition)] = {"settled_from": settled}
        changes = result["change"].sel(condition=condition).dropna("seed", how="all")
        for k in after:
            if 2 <= k < len(names) - 1:
                jump = _break(changes.transpose("seed", "layer").values, k)
                numbers[str(condition)] |= {
                    f"change_into_{names[k]}{end}": v for end, v in jump.items()
                }
    return numbers


def _break(changes: np.ndarray, k: int) -> dict[str, Any]:
    """Return the change into a layer, and how far it stands out from the next ones."""
    ratios = changes[:, k] / changes[:, [k - 1, k + 1]].mean(1)
    return {
        "": round(float(np.nanmean(changes[:, k])), 4),
        "_over_neighbours": round(float(np.nanmean(ratios)), 2),
        "_least_and_most": [round(float(f(ratios)), 2) for f in (np.nanmin, np.nanmax)],
    }
