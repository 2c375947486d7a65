"""What the plots share: labels from data, colours for conditions, marks for splits."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from itertools import product
from string import ascii_lowercase
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cbook import normalize_kwargs
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotParams
from matplotlib.layout_engine import TightLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

P = ParamSpec("P")
T = TypeVar("T")

UNDER = "#e34a6f"
"""Below the scale: a colour that the maps do not contain."""
MISSING = "0.85"
"""A cell without a value."""

_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9",
)  # fmt: skip
"""Okabe and Ito's, dark ones first; the yellow, which white swallows, is left out."""

_MARGINS = ("left", "right", "bottom", "top", "wspace", "hspace")
_LAID_OUT: WeakKeyDictionary[Figure, tuple[float, ...]] = WeakKeyDictionary()
"""Margins that we gave a figure, which may be ours to change again."""

_ROOM: ContextVar[float] = ContextVar("room", default=np.inf)
"""Inches that a figure of panels may be wide."""

_SIDES = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, 0), (-1, -1))
"""Where a name may stand beside its point, the first of equally good ones taken."""

_TITLES = {
    "cka": "CKA",
    "cca": "CCA",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "hsic": "HSIC",
    "rsa": "RSA",
    "rdm": "RDM",
    "procrustes_distance": "Procrustes distance",
    "mutual_knn": "mutual k-NN",
    "rdm_distance": "RDM distance",
    "class_margin": "class margin",
}


def draws(plot: Callable[P, T]) -> Callable[P, T]:
    """Close what a plot has opened when it refuses; name an option nobody knows."""

    @wraps(plot)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        before = set(plt.get_fignums())
        try:
            return plot(*args, **kwargs)
        except BaseException as error:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
            unknown = re.search(r"unexpected keyword argument '?(\w+)", str(error))
            if isinstance(error, AttributeError | TypeError) and unknown:
                name = getattr(plot, "__name__", "the plot")
                msg = (
                    f"Expected options that {name} or matplotlib knows, but got "
                    f"{unknown[1]!r}; help(repsim.plot.{name}) lists them."
                )
                raise TypeError(msg) from error
            raise

    return drawn


def scale(name: str, *, under: bool = False) -> Colormap:
    """Return a copy of a colour map in which missing and low cells stand out."""
    below = {"under": UNDER} if under else {}
    return colormaps[name].with_extremes(bad=MISSING, **below)


def measure_label(data: xr.DataArray) -> str:
    """Return the name of what the cells hold, from `attrs` or the array's name."""
    if "long_name" in data.attrs:
        units = data.attrs.get("units", "1")
        return str(data.attrs["long_name"]) + (f" ({units})" if units != "1" else "")
    name = str(data.attrs.get("measure") or data.name or "value")
    label = _TITLES.get(name, name.replace("_", " "))
    if name == "rdm_distance":
        kind = str(data.attrs.get("distance", ""))
        return f"{label} ({'L2' if kind == 'euclidean' else kind})" if kind else label
    if name == "rdm":
        return f"{data.attrs.get('metric', 'rdm')} distance"
    return label


def title(data: xr.DataArray) -> str:
    """Return measure and moment, as far as known; the options stay in `attrs`."""
    parts = [measure_label(data)]
    for name in ("step", "condition", "seed"):
        value = data.coords.get(name)
        if value is not None and value.ndim == 0:
            parts.append(f"{name} {value.item()}")
    return " · ".join(parts)


def labels(data: xr.DataArray, dim: str) -> list[str]:
    """Return the names along a dim, positions where it has none."""
    return [str(v) for v in data[dim].values]


def canvas(ax: Axes | None, figsize: tuple[float, float] | None = None) -> Axes:
    """Return where to draw: `ax`, a new figure of a size, or the current axes.

    A figure that was empty before is laid out so that no name is cut off.
    """
    if ax is not None:
        if figsize is not None:
            msg = (
                f"Expected `ax` or `figsize`, but got both; the size of {figsize} "
                "inches is that of a figure of its own."
            )
            raise ValueError(msg)
        return ax
    figure = plt.gcf() if figsize is None else plt.figure(figsize=figsize)
    if not figure.axes and figure.get_layout_engine() is None:
        # Not "constrained", after which a caller's plt.tight_layout() is an error.
        figure.set_layout_engine("tight")
    return plt.gca()


def lay_out(axes: Axes) -> None:
    """Make room between the panels of a figure that nobody has laid out.

    A colour bar's label would run into the next panel.
    """
    figure = figure_of([axes])
    ours = _LAID_OUT.get(figure, _margins(SubplotParams()))
    if figure.get_layout_engine() is None and _margins(figure.subplotpars) == ours:
        TightLayoutEngine().execute(figure)
        _LAID_OUT[figure] = _margins(figure.subplotpars)


def _margins(given: SubplotParams) -> tuple[float, ...]:
    return tuple(getattr(given, side) for side in _MARGINS)


def shortened(names: Sequence[str]) -> tuple[list[str], str]:
    """Return names without the modules that all of them lie in, and those."""
    if len(names) < 2:
        return list(names), ""
    heads = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*heads, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    lead = ".".join(shared)
    if len(lead) < 8:  # little is won, and a name less is known by heart
        return list(names), ""
    return [name[len(lead) + 1 :] for name in names], lead


def every_nth(names: Sequence[str], most: int) -> int:
    """Return of how many layers one is named: the same part of each block, if any."""
    least = -(-len(names) // most)
    for n in range(least, 4 * least + 1):
        if least > 1 and len({name.split(".")[-1] for name in names[::n]}) == 1:
            return n
    return least


def palette(names: Iterable[str]) -> dict[str, Any]:
    """Return one colour-blind-safe colour per name, the same for the same order."""
    unique = list(dict.fromkeys(str(n) for n in names))
    if len(unique) <= len(_COLOURS):
        return dict(zip(unique, _COLOURS, strict=False))
    return dict(zip(unique, sns.color_palette("husl", len(unique)), strict=True))


def in_time(names: Sequence[str]) -> dict[str, Any]:
    """Return a colour per moment or depth, light to dark, on one scale for all."""
    shades = colormaps["viridis_r"](np.linspace(0.08, 1, len(names)))
    return {name: tuple(shade) for name, shade in zip(names, shades, strict=True)}


def name_scale(axes: Axes, colours: Mapping[str, Any], label: str) -> None:
    """Explain colours of a continuum by a bar whose ticks are names."""
    names = list(colours)
    limits = np.arange(len(names) + 1) - 0.5
    shades = ListedColormap([colours[name] for name in names])
    scale = ScalarMappable(BoundaryNorm(limits, max(len(names), 1)), shades)
    at = np.unique(np.linspace(0, len(names) - 1, min(len(names), 8)).astype(int))
    bar = axes.figure.colorbar(scale, ax=axes, ticks=at, label=label)
    bar.minorticks_off()
    bar.ax.set_yticklabels([names[i] for i in at], fontsize="x-small")


def name_points(
    axes: Axes,
    names: Sequence[str],
    at: np.ndarray,
    points: np.ndarray,
    colours: Mapping[str, Any],
    half: float = 4,
) -> None:
    """Write each name beside its place, clear of all points and of the names before.

    Limits and aspect must be set; the same points give the same places. `half` a marker
    in typographic points is left free.
    """
    figure = figure_of([axes])
    figure.draw_without_rendering()
    pixel, to_pixels = figure.dpi / 72, axes.transData.transform
    dots, taken = to_pixels(points), np.empty((0, 4))
    for name, place in zip(names, at, strict=True):
        text = axes.annotate(
            name, place, xytext=(0, 0), textcoords="offset points", fontsize=7,
            color=[0.55 * c for c in to_rgb(colours[name])],
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )  # fmt: skip
        box = text.get_window_extent()
        size = np.array([box.width, box.height])
        best = (np.inf, np.zeros(2), taken[:0])
        for far, side in product((half, half + 5, half + 11), _SIDES):
            # From the point to the text's lower left corner.
            move = np.array(side) * (far * pixel + size / 2) - size / 2
            low = to_pixels(place) + move
            here = np.concatenate([low, low + size])
            ink = half * pixel
            on = (dots > here[:2] - ink).all(1) & (dots < here[2:] + ink).all(1)
            over = (taken[:, :2] < here[2:] + ink) & (here[:2] < taken[:, 2:] + ink)
            cost = 3 * int(over.all(1).sum()) + int(on.sum()) + far / 100
            if cost < best[0]:
                best = (cost, move, here[None])
        text.set_position(tuple(best[1] / pixel))
        taken = np.vstack([taken, best[2]])


def line_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return matplotlib's options of lines under their long names (lw, c, ls, …)."""
    return dict(normalize_kwargs(dict(options), Line2D))


def layer_axis(axes: Axes, names: Sequence[str]) -> None:
    """Put layers on the x axis, each named while there is room."""
    names, lead = shortened(names)
    every = every_nth(names, 32)
    at = np.arange(len(names))[::every]
    long = max((len(n) for n in names), default=0) > 2
    size = "small" if len(names) <= 12 else "x-small"
    axes.set_xticks(at, [names[i] for i in at], fontsize=size)
    for text in axes.get_xticklabels() if long else []:
        text.set_rotation(45 if len(names) <= 12 else 90)
        text.set_horizontalalignment("right" if len(names) <= 12 else "center")
        text.set_rotation_mode("anchor" if len(names) <= 12 else "default")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xlabel(f"layer of {lead}" if lead else "layer")


@contextmanager
def room(inches: float) -> Iterator[None]:
    """Keep figures of panels inside to a width: the panels stack, as on a phone."""
    token = _ROOM.set(inches)
    try:
        yield
    finally:
        _ROOM.reset(token)


def inches() -> float:
    """Return how wide a figure may be: without bounds outside of `room`."""
    return _ROOM.get()


def panels(
    n: int, *, width: float = 4.4, height: float = 3.6, columns: int = 3, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure of n panels in rows of at most `columns`, sizes in inches."""
    width = min(width, inches())
    columns = int(max(1, min(n, columns, inches() / width)))
    rows = max(1, -(-n // columns))
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
        layout="constrained",
        **kwargs,
    )
    for ax in axes.flat[n:]:
        ax.remove()
    for ax, letter in zip(axes.flat[:n], ascii_lowercase, strict=False):
        if n > 1:
            ax.set_title(letter, loc="left", fontweight="bold", fontsize="medium")
    return figure, list(axes.flat[:n])


def columns_of(axes: Sequence[Axes]) -> int:
    """Return in how many columns panels stand."""
    place = axes[0].get_subplotspec()
    return 1 if place is None else int(place.get_gridspec().ncols)


def figure_of(axes: Sequence[Axes]) -> Figure:
    """Return the figure that holds some axes."""
    figure = axes[0].get_figure(root=True)
    assert figure is not None  # an Axes that was drawn has one
    return figure


def share_legend(figure: Figure) -> None:
    """Put the legend that all panels share above them, where it covers no curve."""
    drawn = [ax for ax in figure.axes if ax.get_legend() is not None]
    handles, names = drawn[0].get_legend_handles_labels()
    for ax in drawn:
        ax.get_legend().remove()  # type: ignore[union-attr]
    ncols = min(len(names), max(1, int(figure.get_figwidth() / 1.5)))
    figure.legend(
        handles, names, loc="outside upper center", ncols=ncols, frameon=False
    )


def split_positions(splits: Iterable[str], names: Sequence[str]) -> list[float]:
    """Return where gradients are synthesised: half a layer behind each named one."""
    wanted = {str(s) for s in splits}
    return [i + 0.5 for i, name in enumerate(names[:-1]) if name in wanted]


def expect_array(data: object, name: str) -> None:
    """Raise unless a plot's data is a DataArray."""
    if not isinstance(data, xr.DataArray):
        msg = (
            f"Expected `{name}` to be an xarray.DataArray, but got "
            f"{type(data).__name__}."
        )
        raise TypeError(msg)
