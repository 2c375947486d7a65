"""A film shows each step's cells, on one scale; who draws where is clear."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from PIL import Image

from repsim import plot


def cells(measure: str) -> xr.DataArray:
    values = np.arange(12.0).reshape(3, 2, 2) / 11
    return xr.DataArray(
        values,
        dims=("step", "layer_a", "layer_b"),
        coords={"step": [0, 5, 9], "layer_a": ["a", "b"], "layer_b": ["a", "b"]},
        name=measure,
    )


def test_frames_hold_the_cells_of_their_step(tmp_path: Path) -> None:
    film = plot.animate(cells("procrustes_distance"))
    figure = film._fig  # type: ignore[attr-defined]
    mesh = figure.axes[0].collections[0]
    for k, step in enumerate((0, 5, 9)):
        film._func(k)  # type: ignore[attr-defined]
        held = np.asarray(mesh.get_array()).ravel()
        np.testing.assert_array_equal(held, cells("x").values[k].ravel())
        assert figure.axes[0].get_title() == f"step {step}"
    assert mesh.get_clim() == (0.0, 1.0)
    film.save(tmp_path / "film.gif", writer="pillow")
    with Image.open(tmp_path / "film.gif") as saved:
        assert getattr(saved, "n_frames", 1) == 3


def test_a_notebook_shows_no_still_below_the_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plt, "get_backend", lambda: "inline")
    film = plot.animate(cells("cka"))
    assert plt.get_fignums() == []
    film.save(tmp_path / "film.gif", writer="pillow")
    with Image.open(tmp_path / "film.gif") as saved:
        assert getattr(saved, "n_frames", 1) == 3


def _names(axis: object) -> list[str]:
    return [t.get_text() for t in axis.get_ticklabels()]  # type: ignore[attr-defined]


def test_many_layers_stay_readable() -> None:
    """Every block once, without the modules that all lie in, and nothing cut off."""
    names = [
        f"transformer.h.{i}.{k}" for i in range(12) for k in ("ln", "at", "l2", "m")
    ]
    matrix = xr.DataArray(
        np.eye(48),
        dims=("layer_a", "layer_b"),
        coords={"layer_a": names, "layer_b": names},
        name="cka",
    )
    axes = plot.heatmap(matrix, figsize=(5, 4))
    assert _names(axes.yaxis) == [f"{i}.ln" for i in range(12)]
    assert axes.get_xlabel() == "layer_b, of transformer.h"
    figure = axes.figure
    figure.canvas.draw()
    assert tuple(figure.get_size_inches()) == (5, 4)
    box, edge = axes.get_tightbbox(), figure.bbox
    assert box is not None
    assert box.x0 >= edge.x0 and box.y0 >= edge.y0 and box.x1 <= edge.x1


def test_names_of_one_s_own_win() -> None:
    axes = plot.heatmap(cells("cka").isel(step=0), yticklabels=["one", "two"])
    assert _names(axes.yaxis) == ["one", "two"]


def test_a_figure_of_its_own_or_given_axes() -> None:
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="Expected `ax` or `figsize`, but got both"):
        plot.heatmap(cells("cka").isel(step=0), ax=ax, figsize=(3, 3))
    engine = ax.figure.get_layout_engine()
    assert plot.heatmap(cells("cka").isel(step=0), ax=ax) is ax
    assert ax.figure.get_layout_engine() is engine  # the user's figure is the user's
