"""Layers against layers as a heat map."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from repsim.plot.style import (
    expect_array,
    labels,
    measure_label,
    scale,
    split_positions,
    title,
)

_UNIT = ("cka", "cca", "svcca", "pwcca", "mutual_knn")


def heatmap(
    matrix: xr.DataArray,
    *,
    ax: Axes | None = None,
    splits: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
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
    **kwargs
        Passed to `seaborn.heatmap`.

    Returns
    -------
    Axes
        With the title from `attrs`.

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
            f"({', '.join(str(d) for d in matrix.dims)}); select one moment first, "
            "as in matrix.isel(step=-1)."
        )
        raise ValueError(msg)
    axes = plt.gca() if ax is None else ax
    y, x = (str(d) for d in matrix.dims)
    rows, columns = labels(matrix, y), labels(matrix, x)
    options = _heat_options(matrix, rows, columns) | kwargs
    sns.heatmap(pd.DataFrame(matrix.values, rows, columns), ax=axes, **options)
    axes.invert_yaxis()
    small = "x-small" if max(len(rows), len(columns)) > 12 else "small"
    axes.tick_params(labelsize=small, length=2)
    axes.tick_params(axis="x", rotation=90 if len("".join(columns)) > 30 else 0)
    axes.tick_params(axis="y", rotation=0)
    axes.set(xlabel=x, ylabel=y, title=title(matrix))
    dims = [str(dim) for dim in matrix.dims]
    whose = splits if isinstance(splits, Mapping) else dict.fromkeys(dims, splits or ())
    for position in split_positions(whose.get(dims[1], ()), columns):
        axes.axvline(position + 0.5, color="white", linestyle="--", linewidth=1.1)
    for position in split_positions(whose.get(dims[0], ()), rows):
        axes.axhline(position + 0.5, color="white", linestyle="--", linewidth=1.1)
    return axes


def _heat_options(
    matrix: xr.DataArray, rows: list[str], columns: list[str]
) -> dict[str, Any]:
    measure = str(matrix.attrs.get("measure") or matrix.name)
    few = max(len(rows), len(columns)) <= 40
    options: dict[str, Any] = {
        "square": len(rows) == len(columns),
        "xticklabels": True if few else "auto",
        "yticklabels": True if few else "auto",
        "cmap": scale("viridis"),
        "cbar_kws": {"label": measure_label(matrix)},
    }
    if measure in _UNIT:
        low = bool((matrix.values < 0).any())
        options |= {"vmin": 0.0, "vmax": 1.0, "cmap": scale("viridis", under=True)}
        options["cbar_kws"] |= {"extend": "min" if low else "neither"}
    return options
