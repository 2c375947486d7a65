"""Networks as points and as trees: MDS and dendrograms."""

from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy.cluster.hierarchy import dendrogram as tree
from scipy.cluster.hierarchy import linkage

from repsim.core.messages import unknown
from repsim.geometry.between_networks import items_of
from repsim.geometry.embedding import Scaling, embed
from repsim.geometry.profiles import expect_pairs
from repsim.plot.style import canvas, draws, name_points, palette

_MARKERS = "osD^vP*Xh"


@draws
def mds(
    rdm: xr.DataArray,
    *,
    ax: Axes | None = None,
    method: Scaling = "classical",
    figsize: tuple[float, float] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw layers or networks as points whose distances are those of an RDM.

    Colour and marker are the condition; the layers of a network are joined
    from first (large, open) to last (large, filled).

    Parameters
    ----------
    rdm : DataArray, dims (pair)
        From `repsim.network_rdm`, or any condensed RDM.
    ax : Axes, optional
        Where to draw; the current axes by default.
    method : {"classical", "metric"}
        As in `repsim.embed`.
    figsize : (float, float), optional
        Of a figure of its own, in inches, in place of `ax`.
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
    axes = canvas(ax, figsize)
    conditions = _text(points, "condition")
    networks = _text(points, "network")
    colours = palette(conditions)
    markers = {c: _MARKERS[k % 9] for k, c in enumerate(dict.fromkeys(conditions))}
    named: set[str] = set()
    told: list[int] = []
    for network in dict.fromkeys(networks):
        at = np.flatnonzero(networks == network)
        condition, path = str(conditions[at[0]]), points.values[at]
        style: dict[str, Any] = {
            "color": colours[condition],
            "marker": markers[condition],
        }
        label = condition if condition and condition not in named else None
        if len(at) > 1 and "layer" in points.coords:
            _path(axes, path, style | {"label": label}, kwargs)
            ends = ([] if named else [at[0]]) + ([at[-1]] if label else [])
            told += ends
        else:
            single: dict[str, Any] = {"s": 40, "label": label} | style
            axes.scatter(*path.T, **(single | kwargs))
        named.add(condition)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="dimension 1", ylabel="dimension 2", title=_fit(points))
    if any(conditions):
        # Beside the points: a marker under the legend would read as one of its keys.
        axes.legend(
            frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1)
        )
    if told:
        names = [str(name) for name in points["layer"].values[told]]
        grey = dict.fromkeys(names, "0.45")
        name_points(axes, names, points.values[told], points.values, grey, half=6)
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


def _fit(points: xr.DataArray) -> str:
    kind, stress = points.attrs["scaling"], points.attrs["stress"]
    text = f"{kind} MDS · stress {stress:.2f}"
    if kind == "classical":
        text += f" · {points.attrs['explained']:.0%} of variance"
    # Kruskal's rule: beyond it, distances on the map are no longer those of the RDM.
    return f"{text}: neighbourhoods only" if stress > 0.2 else text


@draws
def dendrogram(
    rdm: xr.DataArray,
    *,
    ax: Axes | None = None,
    method: Literal["average", "complete", "single"] = "average",
    figsize: tuple[float, float] | None = None,
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
    figsize : (float, float), optional
        Of a figure of its own, in inches, in place of `ax`.
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
    axes = canvas(ax, figsize)
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
