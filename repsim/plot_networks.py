"""Networks as points, as trees and in motion: MDS, dendrograms, dynamics."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from scipy.cluster.hierarchy import dendrogram as tree
from scipy.cluster.hierarchy import linkage

from repsim.datasets.messages import unknown
from repsim.drawing import labels, layer_axis, palette
from repsim.embedding import Scaling, embed
from repsim.plot_curves import layer_curve
from repsim.rdm_profiles import Distance, expect_pairs, rdm_distance
from repsim.second_level import items_of

_MARKERS = "osD^vP*Xh"
_DEPTHS = "cividis"


def mds(
    rdm: xr.DataArray,
    *,
    ax: Axes | None = None,
    method: Scaling = "classical",
    **kwargs: Any,
) -> Axes:
    """Draw layers or networks as points whose distances are those of an RDM.

    Colour is the condition, the marker the seed; the layers of a network are joined
    from first (large, open) to last (large, filled).

    Parameters
    ----------
    rdm : DataArray, dims (pair)
        From `repsim.network_rdm`, or any condensed RDM.
    ax : Axes, optional
        Where to draw; the current axes by default.
    method : {"classical", "metric"}
        As in `repsim.embed`.
    **kwargs
        Passed to `Axes.scatter`.

    Returns
    -------
    Axes
        With equal scales on both axes, and how well two dims do in the title.

    Raises
    ------
    ValueError
        See `repsim.embed`.

    Examples
    --------
    >>> mds(xr.DataArray([3.0, 4.0, 5.0], dims="pair")).get_xlabel()
    'dimension 1'
    """
    points = embed(rdm, method=method)
    axes = plt.gca() if ax is None else ax
    conditions = _text(points, "condition")
    seeds = _text(points, "seed")
    networks = _text(points, "network")
    colours = palette(conditions)
    markers = {s: _MARKERS[k % 9] for k, s in enumerate(dict.fromkeys(seeds))}
    named: set[str] = set()
    for network in dict.fromkeys(networks):
        at = np.flatnonzero(networks == network)
        condition, path = str(conditions[at[0]]), points.values[at]
        style: dict[str, Any] = {
            "color": colours[condition],
            "marker": markers[str(seeds[at[0]])],
        }
        label = condition if condition and condition not in named else None
        if len(at) > 1 and "layer" in points.coords:
            _path(axes, path, style | {"label": label}, kwargs)
            names = points["layer"].values[at].astype(str)
            ends = ([] if named else [0]) + ([-1] if label else [])
            _name(axes, path, list(names), ends)
        else:
            single: dict[str, Any] = {"s": 40, "label": label} | style
            axes.scatter(*path.T, **(single | kwargs))
        named.add(condition)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="dimension 1", ylabel="dimension 2", title=_fit(points))
    if any(conditions):
        axes.legend(frameon=False, fontsize="small")
    return axes


def _path(
    axes: Axes, path: np.ndarray, style: dict[str, Any], kwargs: dict[str, Any]
) -> None:
    """Draw the layers of one network from an open to a filled point."""
    colour, marker = style["color"], style["marker"]
    axes.plot(*path.T, color=colour, alpha=0.4, linewidth=1, zorder=1)
    small: dict[str, Any] = {"s": 14, "color": colour, "marker": marker}
    axes.scatter(*path[1:-1].T, **(small | kwargs))
    first: dict[str, Any] = {"s": 60, "facecolors": "none", "edgecolors": colour}
    axes.scatter(*path[0], marker=marker, **first)
    last: dict[str, Any] = {"s": 60} | style
    axes.scatter(*path[-1], **(last | kwargs))


def _text(points: xr.DataArray, name: str) -> np.ndarray:
    if name in points.coords:
        return points[name].values.astype(str)
    return np.full(points.sizes["item"], "")


def _name(axes: Axes, path: np.ndarray, names: list[str], which: list[int]) -> None:
    for k in which:
        axes.annotate(
            names[k],
            path[k],
            xytext=(6, 4),
            textcoords="offset points",
            fontsize="x-small",
            color="0.25",
        )


def _fit(points: xr.DataArray) -> str:
    kind, stress = points.attrs["scaling"], points.attrs["stress"]
    text = f"{kind} MDS · stress {stress:.2f}"
    if kind == "classical":
        text += f" · {points.attrs['explained']:.0%} of variance"
    return text


def dendrogram(
    rdm: xr.DataArray,
    *,
    ax: Axes | None = None,
    method: Literal["average", "complete", "single"] = "average",
    **kwargs: Any,
) -> Axes:
    """Draw how networks (or layers) cluster, names in the colour of their condition.

    Parameters
    ----------
    rdm : DataArray, dims (pair)
        From `repsim.network_rdm`, or any condensed RDM without NaN.
    ax : Axes, optional
        Where to draw; the current axes by default.
    method : str
        Linkage, as in `scipy.cluster.hierarchy.linkage`: "average", "complete",
        "single".
    **kwargs
        Passed to `scipy.cluster.hierarchy.dendrogram`.

    Returns
    -------
    Axes
        Joins stand at the distance at which clusters meet.

    Raises
    ------
    ValueError
        If the RDM has further dims or NaN, or the linkage is unknown.

    Examples
    --------
    >>> dendrogram(xr.DataArray([1.0, 4.0, 5.0], dims="pair")).get_xlabel()
    'distance'
    """
    expect_pairs(rdm)
    if method not in ("average", "complete", "single"):
        raise ValueError(unknown("method", method, ["average", "complete", "single"]))
    if rdm.ndim != 1 or bool(rdm.isnull().any()):
        msg = (
            "Expected `rdm` to be one condensed RDM without NaN, dims (pair), but got "
            f"({', '.join(str(d) for d in rdm.dims)}) with "
            f"{int(rdm.isnull().sum())} NaN."
        )
        raise ValueError(msg)
    axes = plt.gca() if ax is None else ax
    items = items_of(rdm)
    parts = [items[k].astype(str) for k in ("condition", "seed", "layer") if k in items]
    count = int((1 + np.sqrt(1 + 8 * rdm.sizes["pair"])) / 2)
    names = ["/".join(p) for p in zip(*parts, strict=True)] if parts else range(count)
    options: dict[str, Any] = {
        "labels": [str(n) for n in names],
        "orientation": "right",
        "color_threshold": 0,
        "above_threshold_color": "0.3",
        "leaf_font_size": 8 if count <= 40 else 4,
    }
    joined = linkage(rdm.values.astype(np.float64), method)
    order = tree(joined, ax=axes, **(options | kwargs))["leaves"] or []
    if "condition" in items:
        conditions = items["condition"].astype(str)
        colours = palette(conditions)
        for text, leaf in zip(axes.get_yticklabels(), order, strict=True):
            text.set_color(colours[str(conditions[leaf])])
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    axes.set(xlabel="distance", title=f"{method} linkage")
    return axes


def dynamics(
    data: xr.DataArray,
    *,
    ax: Axes | None = None,
    along: str | None = None,
    metric: Distance = "euclidean",
    splits: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw how RDMs approach their last: along depth, or along training.

    Along depth (`along="layer"`) the lines are conditions, or, where there is a
    `step` dim, moments of training from dark to light. Along training
    (`along="step"`) the lines are layers, from dark to light.

    Parameters
    ----------
    data : DataArray
        From `repsim.rdm_distance`, dims ([condition, seed,] layer) or (step, layer);
        or RDMs with a dim `pair`, from which it is computed.
    ax : Axes, optional
        Where to draw; the current axes by default.
    along : {"layer", "step"}, optional
        By default what `data.attrs` says, or "layer".
    metric : {"euclidean", "correlation"}
        Distance between RDMs, where `data` holds RDMs.
    splits : iterable of str or mapping, optional
        Along depth, as in `layer_curve`.
    **kwargs
        Passed to `Axes.plot`.

    Returns
    -------
    Axes
        Zero is the reference RDM.

    Raises
    ------
    ValueError
        If `along` is neither, or dims are missing or too many.

    Examples
    --------
    >>> stack = xr.DataArray([[1.0, 2.0, 4.0], [1.0, 2.0, 3.0]], dims=("layer", "pair"),
    ...                      coords={"layer": ["a", "b"]})
    >>> dynamics(stack).get_ylabel()
    'RDM distance to b (L2)'
    """
    along = along or str(data.attrs.get("along", "layer"))
    if along not in ("layer", "step"):
        raise ValueError(unknown("along", along, ["layer", "step"]))
    if "pair" in data.dims:
        data = rdm_distance(data, along=along, metric=metric)
    axes = plt.gca() if ax is None else ax
    if along == "layer" and "step" not in data.dims:
        layer_curve(data, ax=axes, splits=splits, **kwargs)
    else:
        _family(data, along, axes, kwargs)
    reference = data.attrs.get("reference")
    kind = "L2" if data.attrs.get("distance") == "euclidean" else "1 − r"
    last = str(data[along].values[-1]) if along in data.coords else reference
    target = str(reference) if along == "layer" else f"step {reference}"
    if reference == "previous":
        target = f"the {along} before"
    elif along == "step" and str(reference) == str(last):
        target = "the final step"
    axes.set_ylabel(f"RDM distance to {target} ({kind})")
    axes.set_ylim(bottom=0)
    return axes


def _family(
    data: xr.DataArray, along: str, axes: Axes, kwargs: Mapping[str, Any]
) -> None:
    """Draw one line a step over depth, or one line a layer over training."""
    if set(data.dims) != {"step", "layer"}:
        msg = (
            "Expected dims (step, layer), but got "
            f"({', '.join(str(d) for d in data.dims)}); select a network or average "
            'seeds first, as in data.mean("seed").'
        )
        raise ValueError(msg)
    other = "step" if along == "layer" else "layer"
    names = labels(data, other)
    colours = colormaps[_DEPTHS](np.linspace(0, 0.95, len(names)))
    x = np.arange(data.sizes["layer"]) if along == "layer" else data["step"].values
    for k, line in enumerate(data.transpose(other, along).values):
        style: dict[str, Any] = {"color": colours[k], "linewidth": 1.3}
        axes.plot(x, line, **(style | dict(kwargs)))
    if along == "layer":
        layer_axis(axes, labels(data, "layer"))
    else:
        axes.set_xlabel("step (updates)")
    _scale_of(axes, names, colours, other)


def _scale_of(axes: Axes, names: list[str], colours: np.ndarray, label: str) -> None:
    """Explain colours by a bar whose ticks are names."""
    limits = np.arange(len(names) + 1) - 0.5
    scale = ScalarMappable(BoundaryNorm(limits, len(names)), ListedColormap(colours))
    at = np.unique(np.linspace(0, len(names) - 1, min(len(names), 8)).astype(int))
    bar = axes.figure.colorbar(scale, ax=axes, ticks=at, label=label)
    bar.minorticks_off()
    bar.ax.set_yticklabels([names[i] for i in at], fontsize="x-small")
