"""What the plots share: names beside points, and no figure left by a refusal."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from repsim import plot
from repsim.plot.style import name_points


def test_names_beside_points_touch_nothing() -> None:
    points = np.array([[0.5, 0.5], [0.51, 0.5], [0.5, 0.52], [0.6, 0.5], [0.4, 0.5]])
    names = ["weight_mirrors", "bp", "kolen_pollack"]
    figure, axes = plt.subplots()
    axes.scatter(*points.T, s=34)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    name_points(axes, names, points[:3], points, dict.fromkeys(names, "#0072b2"))
    boxes = [text.get_window_extent() for text in axes.texts]
    dots = axes.transData.transform(points)
    assert [text.get_text() for text in axes.texts] == names
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


CELLS = xr.DataArray(
    np.ones((2, 3, 3)),
    dims=("step", "layer_a", "layer_b"),
    coords={"step": [0, 5], "layer_a": list("abc"), "layer_b": list("abc")},
    name="cka",
)
CURVE = CELLS.isel(layer_b=0, drop=True).rename(layer_a="layer")
PAIRS = xr.DataArray(np.ones((2, 3)), dims=("layer", "pair"), name="rdm")


@pytest.mark.parametrize(
    "refused",
    [
        lambda **options: plot.heatmap(CELLS[0], **options),
        lambda **options: plot.heatmaps(CELLS, col="step", **options),
        lambda **options: plot.animate(CELLS, **options),
        lambda **options: plot.layer_curve(CURVE, hue="step", **options),
        lambda **options: plot.dynamics(CURVE, **options),
        lambda **options: plot.rdm_grid(PAIRS, **options),
    ],
)
def test_a_refusal_leaves_no_figure(refused: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="matplotlib knows, but got 'colourful'; help"):
        refused(colourful=True)
    assert plt.get_fignums() == []
