"""The report: complete, self-contained, and not computed twice."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from repsim import run_study
from repsim.analyses import layer_similarity, sources
from repsim.datasets.results import restored, storable
from repsim.datasets.store import opened
from repsim.studies import fingerprints, report
from repsim.studies.report import preview, render, write_report

# Networks this small have units that never fire.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Some examples have no",
    "ignore:Constant over the examples",
    "ignore:.* pairs are NaN",
)


@pytest.fixture(scope="module", autouse=True)
def _few_analyses() -> Iterator[None]:
    """Draw some of the sections; test_page_in_browser draws all."""
    few = ("learning_curves", "layer_similarity", "seeds", "displacement")
    kept = {name: sources()[name] for name in few}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprints, "sources", lambda: kept)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "study"
    run_study(
        ["bp", "sg"], seeds=2, out=out, lr=3e-3, depth=2, width=8, steps=12,
        examples=40, jobs=1, progress=False,
    )  # fmt: skip
    return out


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found none; run `repsim study`"):
        write_report(tmp_path, progress=False)


@pytest.mark.usefixtures("undrawn")
def test_results_are_read_back_not_computed_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(folder, jobs=1, progress=False)
    first = json.loads((folder / "study.json").read_text())["summary"]

    def refuse(study: xr.DataTree) -> xr.Dataset:
        raise AssertionError

    # Drawn again where its section is lost; then neither drawn nor written.
    monkeypatch.setattr(layer_similarity, "compute", refuse)
    (folder / "sections" / "layer_similarity.json").unlink()
    write_report(folder, jobs=1)
    assert "analyses: 100%" in capsys.readouterr().err
    assert json.loads((folder / "study.json").read_text())["summary"] == first
    # So is a picture that somebody removed, the phone's too.
    lost = min((folder / "figures").glob("*_narrow.webp"))
    lost.unlink()
    (folder / "report.html").unlink()
    write_report(folder, jobs=1, progress=False)
    assert lost.is_file()
    capsys.readouterr()
    monkeypatch.setattr(report, "save", refuse)
    monkeypatch.setattr(report, "_opened", refuse)
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_report(folder, jobs=1, progress=False)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == made
    (folder / "report.html").unlink()  # the page alone is no analysis
    write_report(folder, jobs=1)
    assert capsys.readouterr().err == ""


def test_the_table_names_scores_and_rates_where_they_are_known(folder: Path) -> None:
    text = write_report(folder, jobs=1, progress=False).read_text()
    assert "<th>learning rate</th>" in text
    assert "mean ± sd over networks</th>" in text


def test_the_page_answers_first_and_stands_alone(folder: Path) -> None:
    page = write_report(folder, jobs=1, progress=False).read_text()
    # Vega's own code holds names of namespaces; the browser test counts requests.
    body = re.sub("<script.*?</script>", "", page[page.index("<body") :], flags=re.S)
    order = ["<h1>", 'class="verdicts"', "<img", "<th>name</th>", "<section"]
    places = [body.index(one) for one in order]
    assert places == sorted(places)
    assert "<strong>bp and sg</strong>" in body
    assert "Few networks: bp (2), sg (2)" in body
    assert body.count("<img") == body.count('src="data:image/')
    assert "http" not in body and len(page) < 6_000_000
    assert re.findall(r'<img[^>]*alt="(?!\S)', page) == []


def test_rates_at_the_edge_of_their_grid_are_named(folder: Path) -> None:
    told = json.loads((folder / "study.json").read_text())
    rows = {"0.001": {}, "0.003": {}, "0.01": {}}
    told["tuning"] = {"bp": rows, "sg": rows}
    told["learning_rates"] = {"bp": 0.003, "sg": 0.01}
    (caution,) = report._of_grids(told)
    assert "(sg 0.01, the largest of 0.001, 0.003, 0.01)" in caution
    assert report._of_grids({}) == []


def test_any_tree_of_recordings_has_a_report(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dims = ("example", "b_token", "b_unit")
    nodes = {
        f"{rule}/{seed}": xr.Dataset(
            {
                "a": (("example", "a_unit"), rng.normal(size=(12, 4))),
                "b": (dims, rng.normal(size=(12, 3, 4))),
            }
        )
        for rule in ("mine", "yours") for seed in range(2)
    }  # fmt: skip
    store = tmp_path / "runs.zarr"
    diverged = nodes["mine/0"].copy()
    diverged["a"] = diverged["a"] * np.nan
    diverged["a"].attrs["not_finite_since"] = 200
    whole = xr.DataTree.from_dict({**nodes, "mine/2": diverged})
    whole.to_zarr(store, consolidated=False)
    with pytest.raises(ValueError, match="Expected `reduce` to be one of"):
        write_report(store, reduce="median", progress=False)
    page = write_report(store, reduce="last", jobs=1, progress=False)
    assert page == tmp_path / "runs_report" / "report.html"
    text = page.read_text()
    assert "maps and tokens reduced by last" in text
    results = xr.open_zarr(
        page.parent / "results.zarr", group="layer_similarity", consolidated=False
    )
    last = {key: run.assign(b=run["b"].isel(b_token=-1)) for key, run in nodes.items()}
    expected = layer_similarity.compute(xr.DataTree.from_dict(last))
    for name, values in expected.data_vars.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(results[name], values, err_msg=name)
    assert "Do the layers of mine and yours represent the data differently?" in text
    assert "<strong>mine and yours</strong>: no conclusion, too few networks" in text
    assert "Learning curves: not shown." in text
    # Nobody said what they were trained with or reach: no columns of dashes.
    assert "<th>networks</th>" in text and "<th>learning" not in text
    assert "mean ± sd over networks</th>" not in text
    assert "they hold NaN or infinite values: mine/2 (a since step 200)." in text
    shutil.rmtree(store)
    alone = xr.DataTree.from_dict({"mine/2": diverged})
    alone.to_zarr(store, consolidated=False)
    with pytest.raises(
        FileNotFoundError, match="NaN or infinite values in all: mine/2"
    ):
        write_report(store, progress=False)


def test_what_is_no_tree_of_recordings_is_refused(tmp_path: Path) -> None:
    one = xr.Dataset({"a": ("example", [1.0])})
    one.to_zarr(tmp_path / "r.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(FileNotFoundError, match="/<condition>/<seed>, but found none"):
        write_report(tmp_path / "r.zarr", progress=False)


def test_the_preview_is_a_picture(folder: Path) -> None:
    paths = preview(folder)
    assert any(path.suffix == ".png" and path.stat().st_size > 5000 for path in paths)


def test_what_does_not_apply_is_said() -> None:
    section = {"name": "x", "title": "X", "missing": "it has none & <so>"}
    page = render(question="Does it?", setting="", sections=[section])
    assert "X: not shown.\nit has none &amp; &lt;so&gt;" in page


def test_texts_survive_the_store(tmp_path: Path) -> None:
    result = xr.Dataset({"a": ("layer", [1.0, 2.0])}, coords={"layer": ["h", "out"]})
    result["word"] = ("layer", ["one", "two"])
    result["chance"] = ((), 0.1)
    path = tmp_path / "r.zarr"
    storable(result).to_zarr(path, zarr_format=3, consolidated=False)
    back = restored(opened(path, None).load())
    xr.testing.assert_identical(back, result)
