"""How well models explain RDMs: bars with intervals beneath the noise ceiling."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from repsim.plot.style import canvas, draws


@draws
def models(
    result: xr.Dataset,
    *,
    ax: Axes | None = None,
    level: float = 0.05,
    figsize: tuple[float, float] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw a `model_test`: a bar a model, its interval, the ceiling and what is sure.

    Parameters
    ----------
    result : Dataset
        From `repsim.inference.model_test`.
    ax : Axes, optional
        Where to draw; by default the current axes.
    level : float
        Level of the marks: a filled dot under a bar explains more than nothing, an
        open triangle above it stays below the noise ceiling, and a line joins two
        bars that differ. A legend above the axes names those that are drawn.
    figsize : (float, float), optional
        Of a figure of its own, in inches, in place of `ax`.
    **kwargs
        To `Axes.bar`.

    Returns
    -------
    Axes
        The axes.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> truth, other = rng.random((2, 190))
    >>> data = truth + 0.5 * rng.random((8, 190))
    >>> found = repsim.inference.model_test(data, {"truth": truth, "other": other})
    >>> [label.get_text() for label in models(found).get_xticklabels()]
    ['truth', 'other']
    """
    ax = canvas(ax, figsize)
    x = np.arange(result.sizes["model"])
    value = result["estimate"].values
    ends = np.stack([value - result["low"].values, result["high"].values - value])
    low, high = result.attrs["ceiling_low"], result.attrs["ceiling_high"]
    if np.isfinite(low) and np.isfinite(high):
        ax.axhspan(low, high, color="0.85", zorder=0, label="noise ceiling")
    style: dict[str, Any] = {"color": "C0", "capsize": 3} | kwargs
    ax.bar(x, value, yerr=ends, **style)
    sure = x[result["p_value"].values <= level]
    top = max(float(np.nanmax(result["high"].values)), high if high == high else 0.0)
    # Inside the bars' feet, whole: on the axis one half would lie under it.
    foot: dict[str, Any] = {"mfc": "w", "mec": "k", "ms": 5, "zorder": 3}
    if len(sure):
        feet = np.full(len(sure), 0.03 * top)
        ax.plot(sure, feet, "o", **foot, label="more than nothing")
    left = x[result["p_ceiling"].values <= level]
    heights = result["high"].values[left] + 0.03 * top
    if len(left):
        style = {"color": "k", "mfc": "none", "ms": 5}
        ax.plot(left, heights, "v", label="below the ceiling", **style)
    lines = 0
    for i, j in zip(*np.triu_indices(len(x), 1), strict=True):
        if result["p_difference"].values[i, j] <= level:
            lines += 1
            height = top * (1.08 + 0.04 * lines)
            name = "differ" if lines == 1 else None
            ax.plot([i, j], [height, height], "-", color="0.3", lw=1, label=name)
    ax.axhline(0, color="k", lw=0.8)
    if lines:  # which are no values: a correlation ends at 1
        ax.set_yticks([t for t in ax.get_yticks() if t <= max(1, top)], minor=False)
    ax.set_xticks(x, [str(name) for name in result["model"].values])
    ax.set_ylabel(f"RSA ({result.attrs['method']})")
    if ax.get_legend_handles_labels()[0]:
        above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
        ax.legend(**above, ncols=4, frameon=False, fontsize="small", borderpad=0.1)
    return ax
