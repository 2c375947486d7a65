"""The gallery's scripts run without a warning and draw; `tox -e docs` shows them."""

import runpy
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = sorted((*DOCS.glob("gallery/*.py"), *DOCS.glob("explain/*.py")))
QUICK = {"plot_8_tokens", "plot_1_point_three", "plot_2_misleading"}
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="runs beside docs/")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=() if p.stem in QUICK else pytest.mark.slow)
        for p in SCRIPTS
    ],
)
def test_it_draws(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    left = runpy.run_path(str(path))
    if "film" in left:
        left["film"].save(tmp_path / "film.gif", writer="pillow")
    figures = [plt.figure(number) for number in plt.get_fignums()]
    assert figures
    for figure in figures:
        figure.canvas.draw()
        assert all(ax.has_data() for ax in figure.axes if ax.axison), path.stem
