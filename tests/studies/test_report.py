"""The report: complete, self-contained, and not computed twice."""

import json
from pathlib import Path

import pytest
import xarray as xr

from repsim import run_study
from repsim.analyses import layer_similarity
from repsim.datasets.results import restored, storable
from repsim.studies.report import preview, render, write_report

# Networks this small have units that never fire.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Some examples have no",
    "ignore:Constant over the examples",
    "ignore:.* pairs are NaN",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "study"
    run_study(
        ["bp", "sg"], seeds=2, out=out, lr=3e-3, depth=2, width=8, steps=12,
        examples=40, jobs=1, progress=False,
    )  # fmt: skip
    return out


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `repsim study` first"):
        write_report(tmp_path, progress=False)


def test_results_are_read_back_not_computed_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(folder, jobs=1, progress=False)
    first = json.loads((folder / "study.json").read_text())["summary"]

    def refuse(study: xr.DataTree) -> xr.Dataset:
        raise AssertionError

    monkeypatch.setattr(layer_similarity, "compute", refuse)
    write_report(folder, jobs=1, progress=False)
    assert json.loads((folder / "study.json").read_text())["summary"] == first


def test_the_preview_is_a_picture(folder: Path) -> None:
    paths = preview(folder)
    assert any(path.suffix == ".png" and path.stat().st_size > 5000 for path in paths)


def test_what_does_not_apply_is_said() -> None:
    section = {
        "name": "x", "title": "X", "figures": [], "caption": "", "summary": {},
        "missing": "the study has none & <so>",
    }  # fmt: skip
    spec = {"dataset": "digits", "record": [], "conditions": [], "seeds": []}
    page = render({"spec": spec, "versions": {}}, [section])
    assert "Not shown: the study has none &amp; &lt;so&gt;" in page


def test_texts_survive_the_store(tmp_path: Path) -> None:
    result = xr.Dataset({"a": ("layer", [1.0, 2.0])}, coords={"layer": ["h", "out"]})
    result["word"] = ("layer", ["one", "two"])
    path = tmp_path / "r.zarr"
    storable(result).to_zarr(path, zarr_format=3, consolidated=False)
    back = restored(xr.open_zarr(path, consolidated=False).load())
    xr.testing.assert_identical(back, result)
