"""Pictures whose moment is chosen by hand, or that move by themselves."""

from base64 import b64encode
from io import BytesIO
from typing import Any

import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.animation import FuncAnimation

from repsim.core.messages import unknown
from repsim.plot.heat_maps import heatmap, shared_limits
from repsim.plot.style import draws, expect_array


@draws
def animate(
    cells: xr.DataArray, *, along: str = "step", interval: int = 400, **kwargs: Any
) -> FuncAnimation:
    """Return an animation of heat maps over steps, on one scale.

    Parameters
    ----------
    cells : DataArray, dims (along, …) with two more, usually (layer_a, layer_b)
        From `repsim.compare` of recordings with steps, for example.
    along : str
        The dim that passes.
    interval : int
        Milliseconds a frame.
    **kwargs
        Passed to `heatmap`.

    Returns
    -------
    FuncAnimation
        `.save("steps.gif", writer="pillow")` writes it;
        `IPython.display.HTML(moving.to_jshtml())` shows it in a notebook, with a
        slider that also works in a page read offline.

    Raises
    ------
    TypeError
        If `cells` is not a DataArray.
    ValueError
        If it has no dim `along`, or not two more.

    Examples
    --------
    >>> import numpy as np
    >>> cells = xr.DataArray(
    ...     np.ones((2, 1, 1)), dims=("step", "layer_a", "layer_b"), name="cka",
    ...     coords={"step": [0, 100]},
    ... )
    >>> moving = animate(cells)
    >>> moving.save("steps.gif", writer="pillow")
    """
    _expect_film(cells, along)
    limits = shared_limits(cells, bool(kwargs.get("difference"))) | kwargs
    figure, ax = plt.subplots(layout="constrained")
    heatmap(cells.isel({along: 0}), ax=ax, **limits)
    mesh, dims = ax.collections[0], [d for d in cells.dims if d != along]

    def show(frame: int) -> list[Any]:
        one = cells.isel({along: frame}).transpose(*dims)
        mesh.set_array(one.values)
        ax.set_title(f"{along} {cells[along].values[frame]}")
        return [mesh]

    if "inline" in plt.get_backend():  # which shows what is open below the cell, still
        plt.close(figure)
    return FuncAnimation(figure, show, frames=cells.sizes[along], interval=interval)


@draws
def slider(cells: xr.DataArray, *, along: str = "step", **kwargs: Any) -> Any:
    """Return a widget: one heat map, its step chosen by a slider.

    Needs `ipywidgets`, as notebooks have it (`pip install "repsim-toolkit[notebook]"`).

    Parameters
    ----------
    cells : DataArray, dims (along, …) with two more, usually (layer_a, layer_b)
        From `repsim.compare` of recordings with steps, for example.
    along : str
        The dim that the slider moves along.
    **kwargs
        Passed to `heatmap`.

    Returns
    -------
    ipywidgets.VBox
        A slider above the picture; the last line of a notebook's cell shows it, and
        where widgets do not run (GitHub, an e-mail) the picture stands still. A page
        made with nbconvert needs the network for it; `animate` does not.

    Raises
    ------
    ImportError
        If ipywidgets is missing.
    TypeError
        If `cells` is not a DataArray.
    ValueError
        If it has no dim `along`, or not two more.

    Examples
    --------
    >>> slider(xr.DataArray([[1.0]], dims=("layer_a", "layer_b")))
    Traceback (most recent call last):
    ValueError: Expected `along` to be one of layer_a, layer_b, but got 'step'.
    """
    _expect_film(cells, along)
    try:
        import ipywidgets
    except ImportError as error:
        msg = (
            "Expected ipywidgets for a slider, but it is not installed; "
            '`pip install "repsim-toolkit[notebook]"`, or draw all steps with '
            "repsim.plot.heatmaps."
        )
        raise ImportError(msg) from error

    class Slider(ipywidgets.VBox):  # type: ignore[misc]
        """A widget whose notebook also holds the picture."""

        def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
            bundle: dict[str, Any] = super()._repr_mimebundle_(**options)
            return bundle | {"image/png": b64encode(picture.value).decode()}

    limits = shared_limits(cells, bool(kwargs.get("difference"))) | kwargs
    names = [str(v) for v in cells[along].values]
    choice = ipywidgets.SelectionSlider(
        options=list(zip(names, range(len(names)), strict=True)), description=along
    )
    picture = ipywidgets.Image(format="png")

    def draw(change: Any = None) -> None:
        picture.value = _png(cells.isel({along: choice.value}), limits)

    choice.observe(draw, "value")
    draw()
    return Slider([choice, picture])


def _png(cells: xr.DataArray, options: dict[str, Any]) -> bytes:
    """Return a heat map as a picture's bytes, and leave no figure."""
    figure, ax = plt.subplots(layout="constrained")
    try:
        heatmap(cells, ax=ax, **options)
        written = BytesIO()
        figure.savefig(written, format="png")
        return written.getvalue()
    finally:
        plt.close(figure)


def _expect_film(cells: xr.DataArray, along: str) -> None:
    expect_array(cells, "cells")
    if along not in cells.dims:
        raise ValueError(unknown("along", along, [str(d) for d in cells.dims]))
    if cells.ndim != 3:
        msg = (
            f"Expected `cells` to have {along!r} and two more dims, but got "
            f"({', '.join(str(d) for d in cells.dims)}); select one of the others."
        )
        raise ValueError(msg)
