"""The picture of model tests draws their numbers."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.container import BarContainer

from repsim import plot
from repsim.inference import model_test


def test_bars_ceiling_and_marks_are_the_result(rng: np.random.Generator) -> None:
    truth, other = rng.random((2, 190))
    data = truth + 0.5 * rng.random((8, 190))
    found = model_test(data, {"truth": truth, "other": other})
    ax = plot.models(found)
    assert ax is plt.gca()
    bars = next(c for c in ax.containers if isinstance(c, BarContainer))
    heights = [bar.get_height() for bar in bars]
    np.testing.assert_allclose(heights, found["estimate"])
    lines = {str(line.get_label()): line for line in ax.get_lines()}
    dots = lines["more than nothing"]
    assert np.asarray(dots.get_xdata()).tolist() == [0]
    assert 0 < np.asarray(dots.get_ydata())[0] < heights[0]  # whole, inside the bar
    below = np.flatnonzero(found["p_ceiling"].values <= 0.05)
    np.testing.assert_array_equal(lines["below the ceiling"].get_xdata(), below)
    legend = ax.get_legend()
    assert legend is not None
    named = {text.get_text() for text in legend.get_texts()}
    assert {"noise ceiling", "more than nothing", "below the ceiling"} <= named
    labels = [patch.get_label() for patch in ax.patches]
    assert "noise ceiling" in labels
    assert ax.get_ylabel() == "RSA (spearman)"
    assert max(np.max(line.get_ydata()) for line in ax.get_lines()) > 1
    assert max(ax.get_yticks()) <= 1  # lines above are no values
    single = model_test(data[0], {"truth": truth}, over="example")
    _, other_ax = plt.subplots()
    plot.models(single, ax=other_ax, color="C2")
    assert "noise ceiling" not in [p.get_label() for p in other_ax.patches]
