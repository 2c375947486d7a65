"""Pictures that claims share: curves, profiles along depth, values against bounds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repsim.claims.base import Claim, Effect, Values
from repsim.plot.style import palette

Series = np.ndarray | Sequence[float]


CONDITIONS = ("bp", "sg", "sg_every", "dfa", "untrained", "dni", "dni_every", "fa")
"""The conditions in the order that gives each its colour, the same in every picture."""


def colours(names: Iterable[str]) -> dict[str, Any]:
    """Return a colour a condition, the same one wherever it is drawn."""
    names = list(names)
    return (
        palette([*CONDITIONS, *names])
        if set(names) & set(CONDITIONS)
        else palette(names)
    )


def figure(rows: int = 1, columns: int = 1, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure that belongs to no window, and its axes as (rows, columns)."""
    size = kwargs.pop("figsize", (4.6 * columns, 3.4 * rows))
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False, **kwargs)
    return drawn, np.asarray(axes)


def curves(
    series: Mapping[str, Series],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: bool = False,
    x: Series | None = None,
) -> Figure:
    """Return a figure with one line a name."""
    drawn, grid = figure(figsize=(7.6, 3.8))
    axes = grid[0, 0]
    colour = palette(series)
    for name, values in series.items():
        at = np.arange(len(values)) if x is None else np.asarray(x)
        axes.plot(at, values, color=colour[name], label=name, lw=1.4)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if log:
        axes.set_yscale("log")
    # Outside: curves that fall over many orders of magnitude leave no corner free.
    axes.legend(
        fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1, 1)
    )
    return drawn


def profile(
    axes: Axes,
    groups: Mapping[str, np.ndarray],
    *,
    ylabel: str,
    title: str = "",
    splits: Mapping[str, Sequence[int]] | None = None,
    first: int = 1,
) -> None:
    """Draw a quantity along depth, mean and range over seeds, one line a condition."""
    colour = colours(groups)
    for name, values in groups.items():
        layer = np.arange(first, values.shape[1] + first)
        axes.plot(layer, values.mean(0), color=colour[name], label=name, lw=1.6)
        axes.fill_between(
            layer, values.min(0), values.max(0), color=colour[name], alpha=0.2, lw=0
        )
        places = (splits or {}).get(name, ())
        if len(places) == 1:
            axes.axvline(places[0] + 0.5, color=colour[name], ls=":", lw=1.2)
    axes.set(xlabel="hidden layer", ylabel=ylabel, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize="small", frameon=False)


def against_bounds(claim: Claim, measured: Mapping[str, Values]) -> Figure:
    """Return every measured value beside the bound it has to keep.

    Quantities that span more than three orders of magnitude, or are tiny, are
    drawn on a logarithmic axis; a value of zero sits at its left end.
    """
    names = list(measured)
    drawn, grid = figure(
        max(len(names), 1), 1, figsize=(4.8, 0.7 + 0.75 * max(len(names), 1))
    )
    for axes, name in zip(grid[:, 0], names, strict=False):
        value = measured[name]
        ends = astuple(value) if isinstance(value, Effect) else value
        values = np.asarray(ends, dtype=np.float64)
        bounds = [gate for gate in claim.gates if gate.quantity == name]
        _strip(axes, values, [gate.bound for gate in bounds])
        demand = "; ".join(f"{g.relation} {g.bound:g}" for g in bounds) or "reported"
        axes.set_title(f"{name}   [{demand}]", fontsize="small", loc="left")
    return drawn


def _strip(axes: Axes, values: np.ndarray, bounds: Sequence[float]) -> None:
    everything = np.abs(np.concatenate([values[np.isfinite(values)], bounds]))
    positive = everything[everything > 0]
    small = positive.size and positive.min() < 1e-3 * max(positive.max(), 1e-2)
    logarithmic = bool(small) and not (values < 0).any()
    floor = positive.min() / 10 if positive.size else 1.0
    shown = np.maximum(values, floor) if logarithmic else values
    axes.plot(shown, np.zeros(len(shown)), "o", ms=6, alpha=0.5, mew=0, color="C0")
    for bound in bounds:
        axes.axvline(
            max(bound, floor) if logarithmic else bound, color="C3", ls="--", lw=1.4
        )
    if logarithmic:
        axes.set_xscale("log")
    axes.set_yticks([])
    axes.margins(x=0.08)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
