"""The grid of RDMs: conditions down, layers across, one scale."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from repsim.geometry.stacks import squareform
from repsim.measures.dissimilarity.given import as_rdms
from repsim.plot.style import UNDER, draws, inches, labels, measure_label, scale


@draws
def rdm_grid(
    rdms: xr.DataArray | np.ndarray,
    *,
    wrap: int = 10,
    height: float = 1.3,
    splits: Mapping[str, Iterable[str]] | None = None,
    **kwargs: Any,
) -> sns.FacetGrid:
    """Draw RDMs as a grid: conditions down, layers across, one scale for all.

    Examples are sorted by label (a stable sort, for display only); thin lines part
    the classes, and the leftmost squares name them. The scale runs from zero to the
    99.5th percentile of all pairs; the colour bar's arrow says that some lie above.

    Parameters
    ----------
    rdms : DataArray, dims ([condition,] layer, pair), or ndarray
        From `repsim.rdms`; any one dim beside `layer` and `pair` makes the rows.
        Without `layer`, the one other dim (subject, model) goes across.
        Select or average seeds and steps first. Measured ones may be an array,
        (subject, pair) or (subject, n, n).
    wrap : int
        Layers in one row of the grid; more go on in a further row of their
        condition.
    height : float
        Side of one square in inches.
    splits : mapping of row to iterable of str, optional
        Layers after which a gradient is synthesised: their squares get a thick right
        edge.
    **kwargs
        Passed to `Axes.imshow`: `vmin`, `vmax`, `cmap`, ….

    Returns
    -------
    FacetGrid
        With `.figure` and one named axes a square.

    Raises
    ------
    TypeError
        If `rdms` is not a DataArray, or an axes is given.
    ValueError
        If it has no `layer` or `pair`, or more than one further dim.

    Examples
    --------
    >>> stack = xr.DataArray([[0.1, 0.9, 0.8]], dims=("layer", "pair"),
    ...                      coords={"layer": ["hidden_1"]})
    >>> [axes.get_title() for axes in rdm_grid(stack).axes.flat]
    ['hidden_1']
    """
    if "ax" in kwargs:
        msg = (
            "Expected no `ax`, since rdm_grid makes a figure of many squares; draw one "
            "RDM with ax.imshow(repsim.squareform(rdms).isel(layer=0))."
        )
        raise TypeError(msg)
    stack, down = _stack(rdms)
    names = labels(stack, "layer")
    rows = labels(stack, down)
    order, classes = _order(stack)
    free = inches() - 1.4  # beside names and colour bar
    width = int(min(wrap, len(names), max(1, free / (0.8 * height))))
    height = min(height, free / width)
    facets = pd.DataFrame(
        [
            (f"{row} {part}", column)
            for row in rows
            for part in range(-(-len(names) // width))
            for column in range(width)
        ],
        columns=["row", "column"],
    )
    # Without data behind a facet seaborn leaves it out: each has its line here.
    grid = sns.FacetGrid(
        facets,
        row="row",
        col="column",
        height=height,
        aspect=1,
        sharex=False,
        sharey=False,
        despine=False,
    )
    options = _scale(stack) | kwargs
    parts = len(grid.axes) // len(rows)
    image = None
    for r, row in enumerate(rows):
        squares = squareform(stack.isel({down: r}))
        for part in range(parts):
            for column in range(width):
                axes, k = grid.axes[r * parts + part, column], part * width + column
                axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
                if k >= len(names):
                    axes.set_axis_off()
                    axes.set_title("")
                    continue
                cells = squares.isel(layer=k).values[np.ix_(order, order)]
                image = axes.imshow(cells, **options)
                # Named once where every row has the same layers in the same places.
                head = names[k] if r == 0 or parts > 1 else ""
                axes.set_title(head, fontsize="small", pad=3)
                _classes(axes, classes, name=column == 0)
                if names[k] in (splits or {}).get(row, ()):
                    axes.spines["right"].set(color=UNDER, linewidth=1.5)
            lead = row if part == 0 and row else ""
            if lead and down == "step":
                lead = f"step {row}"
            grid.axes[r * parts + part, 0].set_ylabel(lead, fontweight="bold")
    _finish(grid, image, stack, options)
    return grid


def _stack(rdms: Any) -> tuple[xr.DataArray, str]:
    """Return the RDMs with exactly three dims, and the name of the first."""
    if isinstance(rdms, np.ndarray):
        rdms = as_rdms(rdms, "rdms")
        return _stack(rdms if rdms.ndim > 1 else rdms.expand_dims("rdm"))
    if not isinstance(rdms, xr.DataArray):
        msg = (
            "Expected `rdms` to be a DataArray from repsim.rdms, but got "
            f"{type(rdms).__name__}; name the dims of measured ones, as in "
            "xarray.DataArray(rdms, dims=('subject', 'pair'))."
        )
        raise TypeError(msg)
    rdms = rdms if "pair" in rdms.dims else as_rdms(rdms, "rdms")  # square ones
    dims = [str(d) for d in rdms.dims]
    further = [d for d in dims if d not in ("layer", "pair")]
    if "pair" in dims and "layer" not in dims and len(further) == 1:
        # One RDM a subject, a region or a model: they go across as layers do.
        return _stack(rdms.rename({further[0]: "layer"}))
    if "layer" not in dims or "pair" not in dims or len(further) > 1:
        msg = (
            "Expected `rdms` to have dims ([condition,] layer, pair), but got "
            f"({', '.join(dims)}); select one moment and seed first, as in "
            "rdms.isel(step=-1)."
        )
        raise ValueError(msg)
    if not further:
        name = rdms.coords.get("condition")
        label = str(name.item()) if name is not None and name.ndim == 0 else ""
        rdms = rdms.drop_vars("condition", errors="ignore")
        return rdms.expand_dims(condition=[label]), "condition"
    down = further[0]
    if down == "network" and "condition" in rdms.coords:
        seeds = rdms["seed"].values if "seed" in rdms.coords else None
        text = [str(c) for c in rdms["condition"].values]
        if seeds is not None and len(set(text)) < len(text):
            text = [f"{c}/{s}" for c, s in zip(text, seeds, strict=True)]
        rdms = rdms.assign_coords(network=text)
    return rdms.transpose(down, "layer", "pair"), down


def _order(stack: xr.DataArray) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
    """Return the display order, and of each class its name, start and end."""
    square = squareform(stack.isel({stack.dims[0]: 0}))
    n = square.sizes["example_a"]
    if "label_a" not in square.coords:
        return np.arange(n), []
    given = square["label_a"].values
    order = np.argsort(given, kind="stable")
    values, starts = np.unique(given[order], return_index=True)
    ends = [*starts[1:], n]
    if len(values) > 40:
        return order, []
    named = zip(values, starts, ends, strict=True)
    return order, [(str(v), int(s), int(e)) for v, s, e in named]


def _scale(stack: xr.DataArray) -> dict[str, Any]:
    finite = stack.values[np.isfinite(stack.values)]
    top = float(np.quantile(finite, 0.995)) if finite.size else 1.0
    return {
        "cmap": scale("viridis"),
        "vmin": 0.0,
        "vmax": top if top > 0 else 1.0,
        "interpolation": "antialiased",
    }


def _classes(axes: Axes, classes: Sequence[tuple[str, int, int]], name: bool) -> None:
    for _, start, _ in classes[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=0.3, alpha=0.4)
        axes.axvline(start - 0.5, color="white", linewidth=0.3, alpha=0.4)
    if name and classes:
        every = -(-len(classes) // 12)
        centres = [(s + e - 1) / 2 for _, s, e in classes][::every]
        axes.set_yticks(centres, [c for c, _, _ in classes][::every], fontsize=6)
        axes.tick_params(length=0, pad=1)


def _finish(
    grid: sns.FacetGrid, image: Any, stack: xr.DataArray, options: dict[str, Any]
) -> None:
    high = bool((stack.values > options.get("vmax", np.inf)).any())
    width, height = grid.figure.get_size_inches()
    # One narrow column leaves no room between its names and the colour bar.
    width = max(width, 2.8)
    grid.figure.set_size_inches(width, height)
    left, right, edge = 0.45 / width, 1 - 0.95 / width, 0.3 / height
    grid.figure.subplots_adjust(
        left=left, right=right, top=1 - edge, bottom=edge / 3, wspace=0.05, hspace=0.25
    )
    box = (right + 0.12 / width, 0.15, 0.14 / width, 0.7)
    grid.figure.colorbar(
        image,
        cax=grid.figure.add_axes(box),
        label=measure_label(stack),
        extend="max" if high else "neither",
    )
