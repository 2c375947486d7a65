"""One study a depth, and the page over all."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from repsim.analyses import sources
from repsim.cli.commands import main
from repsim.studies import fingerprints
from repsim.studies.depths import run_depths

# Networks this small have constant layers now and then.
pytestmark = pytest.mark.filterwarnings("ignore:.* pairs are NaN", "ignore:.*constant")

SMALL: dict[str, Any] = {
    "seeds": 1, "width": 16, "steps": 8, "lr": 1e-3, "jobs": 1, "progress": False
}  # fmt: skip


def test_depths_are_added_and_finished_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("learning_curves", "layer_similarity")
    kept_few = {name: sources()[name] for name in few}
    monkeypatch.setattr(fingerprints, "sources", lambda: kept_few)
    words = ["repsim", "study", "--depth", "1,2", "--rules", "bp", "--seeds", "1"]
    words += ["--width", "16", "--steps", "8", "--lr", "0.001", "--jobs", "1"]
    monkeypatch.setattr("sys.argv", [*words, "--quiet", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "report: " in capsys.readouterr().out
    kept = tmp_path / "depth_2" / "runs.zarr" / "bp" / "0" / "zarr.json"
    made = kept.read_bytes()
    both = run_depths([1], ["bp", "sg"], out=tmp_path, **SMALL)
    assert kept.read_bytes() == made
    assert both["depth"].values.tolist() == [1, 2]
    accuracy = both["test_accuracy"]
    assert bool(accuracy.sel(depth=2, condition="sg").isnull().all())
    study = json.loads((tmp_path / "depth_1" / "study.json").read_text())
    told = study["summary"]["learning_curves"]["sg"]["mean"]
    assert float(accuracy.sel(depth=1, condition="sg").mean()) == pytest.approx(told)
    page = (tmp_path / "report.html").read_text()
    assert 'href="depth_1/report.html"' in page
    assert "<th>learning rule</th>" not in page  # no table without rows
    said = re.findall(r"<li><strong>(\w+)</strong>: ([^<]*)</li>", page)
    one, two = accuracy.sel(condition="bp").mean("seed").values
    assert dict(said) == {
        "bp": f"test accuracy {one:.3f} with 1 hidden layer, {two:.3f} with 2.",
        "sg": f"test accuracy {told:.3f} with 1 hidden layer.",
    }
    assert (tmp_path / "figures" / "depths.png").exists()


@pytest.mark.parametrize(
    ("depths", "message"),
    [([], "at least one, but got"), ([2, 2], "Expected different depths"),
     ([1, -3], "Expected `depth` to be at least 1, but got -3")],
)  # fmt: skip
def test_depths_that_cannot_be(depths: list[int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run_depths(depths, ["bp"], out=tmp_path / "s", **SMALL)
    assert not (tmp_path / "s").exists()


def test_one_study_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ValueError, match="holds one study"):
        run_depths([1], ["bp"], out=tmp_path, **SMALL)


def test_a_depth_that_is_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["repsim", "study", "--depth", "3,x"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "Expected --depth to be a whole number" in capsys.readouterr().err
