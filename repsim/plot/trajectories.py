"""How RDMs approach their last, along depth and along training."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from repsim.core.messages import unknown
from repsim.geometry.profiles import Distance, rdm_distance
from repsim.plot.curves import layer_curve
from repsim.plot.style import (
    canvas,
    draws,
    in_time,
    labels,
    layer_axis,
    line_options,
    name_scale,
)


@draws
def dynamics(
    data: xr.DataArray,
    *,
    ax: Axes | None = None,
    along: str | None = None,
    metric: Distance = "euclidean",
    splits: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    figsize: tuple[float, float] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw how RDMs approach their last: along depth, or along training.

    Along depth (`along="layer"`) the lines are conditions, or, where there is a
    `step` dim, moments of training from light to dark. Along training
    (`along="step"`) the lines are layers, from light to dark.

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
    figsize : (float, float), optional
        Of a figure of its own, in inches, in place of `ax`.
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
    if along == "layer" and "step" not in data.dims:
        axes = layer_curve(data, ax=ax, splits=splits, figsize=figsize, **kwargs)
    else:
        axes = _family(data, along, ax, figsize, kwargs)
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
    data: xr.DataArray,
    along: str,
    ax: Axes | None,
    figsize: tuple[float, float] | None,
    kwargs: Mapping[str, Any],
) -> Axes:
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
    colours = in_time(names)
    axes = canvas(ax, figsize)
    x = np.arange(data.sizes["layer"]) if along == "layer" else data["step"].values
    for name, line in zip(names, data.transpose(other, along).values, strict=True):
        style: dict[str, Any] = {"color": colours[name], "linewidth": 1.3}
        axes.plot(x, line, **(style | line_options(kwargs)))
    if along == "layer":
        layer_axis(axes, labels(data, "layer"))
    else:
        axes.set_xlabel("step (updates)")
    name_scale(axes, colours, other)
    return axes
