"""A quantity along depth: a line a condition, seeds as a band."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from repsim.core.messages import unknown
from repsim.plot.style import (
    canvas,
    draws,
    expect_array,
    in_time,
    labels,
    layer_axis,
    line_options,
    measure_label,
    name_scale,
    palette,
    split_positions,
)

_MARKERS = "osD^vP"
_DASHES: list[Any] = ["-", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1, 1, 1))]


@draws
def layer_curve(
    curve: xr.DataArray,
    *,
    ax: Axes | None = None,
    hue: str | None = None,
    baselines: Mapping[str, float | xr.DataArray] | None = None,
    splits: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    figsize: tuple[float, float] | None = None,
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
        Lines of `step` go from light to dark, beside a bar that names them.
    baselines : mapping of str to float or DataArray, optional
        Reference lines by name, a level or along `layer`: {"pixels": 0.91,
        "untrained": curve}; the mean over seeds is drawn.
    splits : iterable of str or mapping of condition to such, optional
        Layers after which a gradient is synthesised: vertical dotted lines, in the
        condition's colour where a mapping says whose they are.
    figsize : (float, float), optional
        Of a figure of its own, in inches, in place of `ax`.
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
        not exist; if a baseline is no single line.

    Examples
    --------
    >>> margin = xr.DataArray([[0.2, 0.5]], dims=("condition", "layer"), name="margin",
    ...                       coords={"condition": ["bp"], "layer": ["h1", "h2"]})
    >>> layer_curve(margin).get_ylabel()
    'margin'
    """
    expect_array(curve, "curve")
    names, groups = _groups(curve, hue)
    levels = {name: _level(name, value) for name, value in (baselines or {}).items()}
    steps = hue == "step"
    styles = _moments(groups) if steps else _side_by_side(groups)
    # Nothing is drawn before everything is known to fit: no empty figure is left.
    axes = canvas(ax, figsize)
    for name, values in groups.items():
        _line(axes, values, styles[name] | line_options(kwargs))
    _baselines(axes, levels, names)
    _mark_splits(axes, splits, names, {n: s["color"] for n, s in styles.items()})
    layer_axis(axes, names)
    axes.set_ylabel(measure_label(curve))
    if steps:
        name_scale(axes, {n: style["color"] for n, style in styles.items()}, "step")
    if baselines or (any(groups) and not steps):
        axes.legend(framealpha=0.8, edgecolor="none", fontsize="small")
    return axes


def _side_by_side(groups: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return a style for each of several conditions."""
    colours = palette(groups)
    # Dashes over a solid line show both where two conditions coincide.
    return {
        name: {
            "color": colours[name],
            "marker": _MARKERS[k % len(_MARKERS)],
            "markersize": 4,
            "linewidth": 1.8,
            "linestyle": _DASHES[k % len(_DASHES)],
            "label": name or None,
        }
        for k, name in enumerate(groups)
    }


def _moments(groups: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return a style for each step, light to dark."""
    return {
        name: {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.3}
        for name, colour in in_time(list(groups)).items()
    }


def _line(axes: Axes, values: np.ndarray, style: dict[str, Any]) -> None:
    """Draw the mean over seeds; where there are several, them and their spread."""
    at = np.arange(values.shape[1])
    mean, spread = _spread(values)
    if len(values) > 1:
        colour = style["color"]
        axes.plot(at, values.T, color=colour, alpha=0.25, linewidth=0.7)
        axes.fill_between(
            at, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0
        )
    axes.plot(at, mean, **style)


def _groups(
    curve: xr.DataArray, hue: str | None
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return layer names, and per line the values (seed, layer)."""
    if "layer" not in curve.dims:
        matrix = {"layer_a", "layer_b"} <= set(curve.dims)
        todo = (
            "; matching layers are curve.isel(layer_a=i, layer_b=i) with "
            'i = xr.DataArray(range(n), dims="layer"), matrices are drawn by '
            "repsim.plot.heatmap or heatmaps"
        )
        msg = (
            "Expected `curve` to have a dim `layer`, but got "
            f"({', '.join(str(d) for d in curve.dims)}){todo * matrix}."
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
            f"{', '.join(extra)}; {_way_out(extra, hue)}."
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


def _way_out(extra: list[str], hue: str | None) -> str:
    """Return what to do with dims that a line has no place for."""
    if extra == ["step"] and hue is not None:
        return (
            f"draw one {hue} over training, as in layer_curve(curve.sel({hue}=...), "
            'hue="step"), or one moment, as in curve.isel(step=-1)'
        )
    if set(extra) & {"layer_a", "layer_b"}:
        return "draw matrices of layers with repsim.plot.heatmap"
    return f"select one, as in curve.isel({extra[0]}=-1), or name it with hue="


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missing = np.isnan(values)
    count = np.maximum((~missing).sum(0), 1)
    mean = np.where(missing.all(0), np.nan, np.where(missing, 0, values).sum(0) / count)
    squares = np.where(missing, 0, (values - mean) ** 2).sum(0)
    return mean, np.sqrt(squares / np.maximum(count - 1, 1))


def _baselines(
    axes: Axes, baselines: Mapping[str, xr.DataArray], names: list[str]
) -> None:
    styles: list[Any] = ["--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1))]
    for k, (name, level) in enumerate(baselines.items()):
        style = {"color": "0.35", "linewidth": 1.2, "linestyle": styles[k % 4]}
        if level.ndim:
            along = level.reindex(layer=names) if "layer" in level.coords else level
            axes.plot(np.arange(len(names)), along.values, label=name, **style)
        else:
            axes.axhline(float(level), label=name, **style)


def _level(name: str, value: float | xr.DataArray) -> xr.DataArray:
    """Return a baseline over layers or of none: the mean over seeds."""
    level = xr.DataArray(value)
    level = level.mean([d for d in level.dims if d in ("seed", "network")])
    for dim in [str(d) for d in level.dims if d != "layer"]:
        # What is the same for all conditions, as chance is, is one line.
        if bool((level.max(dim) - level.min(dim) > 1e-12).any()):
            msg = (
                f"Expected baseline {name!r} to be one line, but it differs along "
                f"{dim}; select one, as in .isel({dim}=0)."
            )
            raise ValueError(msg)
        level = level.mean(dim)
    return level


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
