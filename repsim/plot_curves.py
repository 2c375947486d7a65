"""A quantity along depth: a line a condition, seeds as a band."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from repsim.datasets.messages import unknown
from repsim.drawing import (
    expect_array,
    labels,
    layer_axis,
    measure_label,
    palette,
    split_positions,
)

_MARKERS = "osD^vP"
_DASHES: list[Any] = ["-", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1, 1, 1))]


def layer_curve(
    curve: xr.DataArray,
    *,
    ax: Axes | None = None,
    hue: str | None = None,
    baselines: Mapping[str, float | xr.DataArray] | None = None,
    splits: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw a quantity along depth, a line a condition, seeds as a band.

    The line is the mean over seeds, the band one standard deviation to both sides
    (from two seeds on), the faint lines are the seeds themselves.

    Parameters
    ----------
    curve : DataArray, dims ([condition,] [seed,] layer)
        Or dims (network, layer) with the coordinates `condition` and `seed`.
    ax : Axes, optional
        Where to draw; the current axes by default.
    hue : str, optional
        The dim or coordinate that tells lines apart; `condition` where it exists.
    baselines : mapping of str to float or DataArray, optional
        Reference lines by name, level or along `layer`: {"pixels": 0.91,
        "untrained": curve}.
    splits : iterable of str or mapping of condition to such, optional
        Layers after which a gradient is synthesised: vertical dotted lines, in the
        condition's colour where a mapping says whose they are.
    **kwargs
        Passed to `Axes.plot` for the mean lines.

    Returns
    -------
    Axes
        Layers in order along x, each named up to 32 of them.

    Raises
    ------
    TypeError
        If `curve` is not a DataArray.
    ValueError
        If it has no `layer` dim, dims that are neither seeds nor `hue`, or `hue` does
        not exist.

    Examples
    --------
    >>> margin = xr.DataArray([[0.2, 0.5]], dims=("condition", "layer"), name="margin",
    ...                       coords={"condition": ["bp"], "layer": ["h1", "h2"]})
    >>> layer_curve(margin).get_ylabel()
    'margin'
    """
    expect_array(curve, "curve")
    names, groups = _groups(curve, hue)
    axes = plt.gca() if ax is None else ax
    colours = palette(groups)
    at = np.arange(len(names))
    for k, (name, values) in enumerate(groups.items()):
        # Dashes over a solid line show both where two conditions coincide.
        style: dict[str, Any] = {
            "color": colours[name],
            "marker": _MARKERS[k % len(_MARKERS)],
            "markersize": 4,
            "linewidth": 1.8,
            "linestyle": _DASHES[k % len(_DASHES)],
        }
        if name:
            style["label"] = name
        if len(values) > 1:
            mean, spread = _spread(values)
            axes.plot(at, values.T, color=colours[name], alpha=0.25, linewidth=0.7)
            axes.fill_between(
                at, mean - spread, mean + spread, color=colours[name], alpha=0.15, lw=0
            )
            axes.plot(at, mean, **(style | kwargs))
        else:
            axes.plot(at, values[0], **(style | kwargs))
    _baselines(axes, baselines or {}, names)
    _mark_splits(axes, splits, names, colours)
    layer_axis(axes, names)
    axes.set_ylabel(measure_label(curve))
    if any(groups) or baselines:
        axes.legend(framealpha=0.8, edgecolor="none", fontsize="small")
    return axes


def _groups(
    curve: xr.DataArray, hue: str | None
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return layer names, and per line the values (seed, layer)."""
    if "layer" not in curve.dims:
        msg = (
            "Expected `curve` to have a dim `layer`, but got "
            f"({', '.join(str(d) for d in curve.dims)})."
        )
        raise ValueError(msg)
    if hue is None and "condition" in curve.coords:
        hue = "condition"
    known = [str(name) for name in (*curve.dims, *curve.coords) if name != "layer"]
    if hue is not None and hue not in known:
        raise ValueError(unknown("hue", hue, dict.fromkeys(known)))
    by = hue if hue is not None and curve[hue].ndim == 1 else None
    across = [str(d) for d in curve.dims if d != "layer"]
    line = str(curve[by].dims[0]) if by else None
    extra = [d for d in across if d not in (line, "seed", "network")]
    if extra:
        msg = (
            "Expected `curve` to have dims ([condition,] [seed,] layer), but got also "
            f"{', '.join(extra)}; select one, as in curve.isel({extra[0]}=-1), or name "
            "it with hue=."
        )
        raise ValueError(msg)
    names = labels(curve, "layer")
    curve = curve.transpose(..., "layer")
    if by is None:
        return names, {"": curve.values.reshape(-1, len(names))}
    keys = [str(v) for v in curve[by].values]
    groups = {}
    for key in dict.fromkeys(keys):
        chosen = curve.isel({line: [i for i, k in enumerate(keys) if k == key]})
        values = chosen.transpose(..., "layer").values.reshape(-1, len(names))
        # Conditions with fewer seeds are padded with NaN along a shared dim.
        groups[key] = values[~np.isnan(values).all(1)]
        if not len(groups[key]):
            groups[key] = values[:1]
    return names, groups


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missing = np.isnan(values)
    count = np.maximum((~missing).sum(0), 1)
    mean = np.where(missing.all(0), np.nan, np.where(missing, 0, values).sum(0) / count)
    squares = np.where(missing, 0, (values - mean) ** 2).sum(0)
    return mean, np.sqrt(squares / np.maximum(count - 1, 1))


def _baselines(
    axes: Axes, baselines: Mapping[str, float | xr.DataArray], names: list[str]
) -> None:
    styles: list[Any] = ["--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1))]
    for k, (name, value) in enumerate(baselines.items()):
        style = {"color": "0.35", "linewidth": 1.2, "linestyle": styles[k % 4]}
        if isinstance(value, xr.DataArray) and value.ndim:
            level = value.reindex(layer=names) if "layer" in value.coords else value
            axes.plot(np.arange(len(names)), level.values, label=name, **style)
        else:
            axes.axhline(float(value), label=name, **style)


def _mark_splits(
    axes: Axes,
    splits: Iterable[str] | Mapping[str, Iterable[str]] | None,
    names: Sequence[str],
    colours: Mapping[str, Any],
) -> None:
    if splits is None:
        return
    whose = splits if isinstance(splits, Mapping) else {"": splits}
    for condition, listed in whose.items():
        positions = split_positions(listed, names)
        # One break is a line; a break after every layer would be a fence: ticks do.
        top = 1.0 if len(positions) <= 3 else 0.04
        for position in positions:
            axes.axvline(
                position,
                ymax=top,
                color=colours.get(condition, "0.4"),
                linestyle=":",
                linewidth=1.3,
                zorder=0,
            )
