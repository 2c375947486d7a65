"""Names beside points stand clear of the points and of each other."""

import numpy as np
from matplotlib import pyplot as plt

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
