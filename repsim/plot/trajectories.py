"""How RDMs approach their last, along depth and along training."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap

from repsim.core.messages import unknown
from repsim.geometry.profiles import Distance, rdm_distance
from repsim.plot.curves import layer_curve
from repsim.plot.style import labels, layer_axis

_DEPTHS = "cividis"


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
