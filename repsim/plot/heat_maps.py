"""Layers against layers as a heat map."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from repsim.core.messages import unknown
from repsim.plot.style import (
    canvas,
    columns_of,
    draws,
    every_nth,
    expect_array,
    inches,
    labels,
    lay_out,
    measure_label,
    panels,
    scale,
    shortened,
    split_positions,
    title,
)

_UNIT = ("cka", "cca", "svcca", "pwcca", "mutual_knn")


@draws
def heatmap(
    matrix: xr.DataArray,
    *,
    ax: Axes | None = None,
    splits: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    difference: bool = False,
    marked: xr.DataArray | None = None,
    figsize: tuple[float, float] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw a matrix of layers against layers (or of any two dims) as a heat map.

    The first layer is at the lower left, so that depth grows upwards and to the
    right. Measures that lie in [0, 1] keep that scale in every figure; cells below 0
    (debiased CKA can be slightly negative) get a colour of their own.

    Parameters
    ----------
    matrix : DataArray, two dims, usually (layer_a, layer_b)
        From `repsim.compare`; rows are drawn along y.
    ax : Axes, optional
        Where to draw; the current axes by default.
    splits : iterable of str, or mapping of dim to such, optional
        Names of layers after which a gradient is synthesised, marked by dashed
        lines.
    difference : bool
        Whether the cells are differences: a diverging scale, the same to both sides
        of 0, instead of the measure's own.
    marked : DataArray of bool, optional
        Cells to mark with a dot, with the dims of `matrix`.
    figsize : (float, float), optional
        Of a figure of its own, in inches, in place of `ax`.
    **kwargs
        Passed to `seaborn.heatmap`: `cmap`, `vmin`, `annot`, `xticklabels`, ….

    Returns
    -------
    Axes
        With the title from `attrs`, and along the axes the recordings' names
        (`recording_a`, `recording_b`) where `repsim.compare` could tell them; modules
        that all layers lie in are named there alone, and of many layers every few are.

    Raises
    ------
    TypeError
        If `matrix` is not a DataArray.
    ValueError
        If it does not have two dims.

    Examples
    --------
    >>> cells = xr.DataArray([[1.0]], dims=("layer_a", "layer_b"), name="cka")
    >>> heatmap(cells).get_ylabel()
    'layer_a'
    """
    expect_array(matrix, "matrix")
    if matrix.ndim != 2:
        msg = (
            "Expected `matrix` to have two dims, as (layer_a, layer_b), but got "
            f"({', '.join(str(d) for d in matrix.dims)}); {_way_out(matrix)}."
        )
        raise ValueError(msg)
    axes = canvas(ax, figsize)
    y, x = (str(d) for d in matrix.dims)
    rows, columns = labels(matrix, y), labels(matrix, x)
    options = _heat_options(matrix, rows, columns, difference) | kwargs
    sns.heatmap(pd.DataFrame(matrix.values, rows, columns), ax=axes, **options)
    axes.invert_yaxis()
    axes.set_title(title(matrix))
    _name_side(axes, "y", _whose(matrix, y), rows, "yticklabels" in kwargs)
    _name_side(axes, "x", _whose(matrix, x), columns, "xticklabels" in kwargs)
    if marked is not None:
        down, across = np.nonzero(marked.transpose(y, x).values)
        axes.plot(across + 0.5, down + 0.5, ".", color="0.1", markersize=3)
    dims = [str(dim) for dim in matrix.dims]
    whose = splits if isinstance(splits, Mapping) else dict.fromkeys(dims, splits or ())
    for position in split_positions(whose.get(dims[1], ()), columns):
        axes.axvline(position + 0.5, color="white", linestyle="--", linewidth=1.1)
    for position in split_positions(whose.get(dims[0], ()), rows):
        axes.axhline(position + 0.5, color="white", linestyle="--", linewidth=1.1)
    if ax is not None and options.get("cbar", True):
        lay_out(axes)
    return axes


def _whose(matrix: xr.DataArray, dim: str) -> str:
    """Return a dim, and of two recordings the one whose layers it holds."""
    name = str(matrix.attrs.get(dim.replace("layer_", "recording_"), ""))
    return f"{dim} ({name if len(name) < 40 else f'…{name[-38:]}'})" if name else dim


def _name_side(
    axes: Axes, which: Literal["x", "y"], dim: str, names: list[str], told: bool
) -> None:
    """Name the layers along one side, and the dim."""
    short, lead = shortened(names)
    small = "x-small" if len(names) > 12 else "small"
    # Each has the same room, so the longest decides.
    upright = which == "x" and len(short) * (1 + max(map(len, short), default=0)) > 30
    axis = axes.xaxis if which == "x" else axes.yaxis
    if not told:
        every = every_nth(short, 40)
        axis.set_ticks([i + 0.5 for i in range(len(short))][::every], short[::every])
    axes.tick_params(axis=which, labelsize=small, length=2, labelrotation=90 * upright)
    axis.set_label_text(f"{dim}, of {lead}" if lead and not told else dim)


@draws
def heatmaps(
    cells: xr.DataArray,
    *,
    col: str,
    columns: int = 4,
    size: float = 3.2,
    marked: xr.DataArray | None = None,
    **kwargs: Any,
) -> list[Axes]:
    """Draw one heat map a step (or condition, pair, …), on one scale with one bar.

    Parameters
    ----------
    cells : DataArray, dims (col, …) with two more, usually (layer_a, layer_b)
        From `repsim.compare` of recordings with steps, for example.
    col : str
        The dim whose entries stand side by side.
    columns : int
        Heat maps in a row at most.
    size : float
        Side of one heat map in inches.
    marked : DataArray of bool, optional
        Cells to mark with a dot.
    **kwargs
        Passed to `heatmap`: `difference`, `splits`, `cmap`, `vmin`, `vmax`, ….

    Returns
    -------
    list of Axes
        In the order of `col`; `axes[0].figure` is their figure.

    Raises
    ------
    TypeError
        If `cells` is not a DataArray.
    ValueError
        If it has no dim `col`, or not two more.

    Examples
    --------
    >>> cells = xr.DataArray(
    ...     np.ones((2, 1, 1)), dims=("step", "layer_a", "layer_b"), name="cka",
    ...     coords={"step": [0, 100]},
    ... )
    >>> [axes.get_title() for axes in heatmaps(cells, col="step")]
    ['step 0', 'step 100']
    """
    expect_array(cells, "cells")
    if col not in cells.dims:
        raise ValueError(unknown("col", col, [str(d) for d in cells.dims]))
    if cells.ndim != 3:
        msg = (
            f"Expected `cells` to have {col!r} and two more dims, but got "
            f"({', '.join(str(d) for d in cells.dims)}); {_way_out(cells, col)}."
        )
        raise ValueError(msg)
    names = labels(cells, col)
    rows = max(1, -(-len(names) // max(1, columns)))
    columns = max(1, -(-len(names) // rows))  # five as 3 + 2, not as 4 + 1
    figure, axes = panels(len(names), width=size, height=1.2 * size, columns=columns)
    if len(names) == 1:  # beside one square stands a bar, above and below it nothing
        figure.set_figwidth(min(1.4 * size, inches()))
    if (columns := columns_of(axes)) == 1 and len(names) > 1:
        # The bar takes its share of the width, and squares leave what is above them.
        figure.set_figheight(0.56 * size * len(names) + 0.8)
    # Seaborn draws the figure for each heat map: nothing is laid out until all stand.
    figure.set_layout_engine("none")
    limits = shared_limits(cells, bool(kwargs.get("difference"))) | kwargs
    for k, (ax, name) in enumerate(zip(axes, names, strict=True)):
        dots = None if marked is None else marked.isel({col: k})
        heatmap(cells.isel({col: k}), ax=ax, cbar=False, marked=dots, **limits)
        name = f"step {name}" if col == "step" else name
        ax.set_title(name)
        if columns == 1:
            ax.set_title("", loc="left")  # no room for a letter beside the name
        # What is the same in every panel is said at the edge.
        edge = ax.get_subplotspec()
        if edge is not None and not edge.is_first_col():
            ax.set(ylabel="", yticks=[])
        if edge is not None and k + columns < len(names):
            ax.set(xlabel="", xticks=[])
    figure.set_layout_engine("compressed")  # squares leave no gaps between them
    bar = figure.colorbar(axes[0].collections[0], ax=axes, shrink=0.8)
    bar.set_label(_bar_label(cells, kwargs))
    return axes


def _bar_label(cells: xr.DataArray, kwargs: Mapping[str, Any]) -> str:
    """Return what the colours of several heat maps stand for."""
    return ("difference in " if kwargs.get("difference") else "") + measure_label(cells)


def shared_limits(cells: xr.DataArray, difference: bool) -> dict[str, Any]:
    """Return one scale for several heat maps."""
    values = cells.values[np.isfinite(cells.values)]
    if not values.size:
        return {}
    if difference:
        top = float(np.abs(values).max()) or 1.0
        return {"vmin": -top, "vmax": top}
    measure = str(cells.attrs.get("measure") or cells.name)
    if measure in _UNIT:
        return {}
    return {"vmin": float(values.min()), "vmax": float(values.max())}


def _way_out(matrix: xr.DataArray, keep: str = "") -> str:
    """Return what to do with more dims than a heat map has."""
    further = [d for d in matrix.dims if d not in ("layer_a", "layer_b", keep)]
    if "step" in further and not keep:
        return (
            "draw all moments with repsim.plot.heatmaps(cells, col='step'), or select "
            "one, as in matrix.isel(step=-1)"
        )
    name = further[0] if further else matrix.dims[0]
    return f"select one, as in matrix.isel({name}=-1)"


def _heat_options(
    matrix: xr.DataArray, rows: list[str], columns: list[str], difference: bool
) -> dict[str, Any]:
    measure = str(matrix.attrs.get("measure") or matrix.name)
    options: dict[str, Any] = {
        "square": len(rows) == len(columns),
        "xticklabels": False,
        "yticklabels": False,
        "cmap": scale("viridis"),
        "cbar_kws": {"label": measure_label(matrix)},
    }
    if difference:
        label = f"difference in {measure_label(matrix)}"
        options |= shared_limits(matrix, True) | {"cmap": scale("RdBu_r")}
        options["cbar_kws"] = {"label": label}
    elif measure in _UNIT:
        low = bool((matrix.values < 0).any())
        options |= {"vmin": 0.0, "vmax": 1.0, "cmap": scale("viridis", under=True)}
        options["cbar_kws"] |= {"extend": "min" if low else "neither"}
    return options
