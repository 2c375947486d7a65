"""The page in a real browser, offline: it shows the results' own numbers."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim import run_study
from repsim.analyses import over_training
from repsim.datasets.results import restored
from repsim.studies.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("browser") / "study"
    run_study(
        ["bp", "sg"], seeds=2, out=out, lr=3e-3, depth=3, width=8, steps=12,
        examples=40, jobs=1, progress=False,
    )  # fmt: skip
    write_report(out, jobs=1, progress=False)
    return out


pytestmark = pytest.mark.filterwarnings(
    "ignore:Some examples have no",
    "ignore:Constant over the examples",
    "ignore:.* pairs are NaN",
)


def kept(folder: Path, name: str) -> xr.Dataset:
    store = folder / "results.zarr"
    return restored(xr.open_zarr(store, group=name, consolidated=False).load())


def explorer(folder: Path, name: str) -> dict[str, Any]:
    page = (folder / "report.html").read_text()
    start = page.index(
        '<script type="application/json">', page.index(f"explore-{name}")
    )
    start = page.index(">", start) + 1
    return dict(json.loads(page[start : page.index("</script>", start)]))


def test_the_page_holds_the_results_numbers(folder: Path) -> None:
    result = kept(folder, "over_training")
    data = explorer(folder, "over_training")
    assert [choice["name"] for choice in data["choices"]] == ["pair", "step"]
    assert data["choices"][0]["options"] == ["bp – bp", "bp – sg"]
    assert data["choices"][1]["options"] == result["step"].values.tolist()
    held = np.array(data["views"][0]["values"], dtype=float)
    np.testing.assert_allclose(held, result["cka"].values, atol=5e-4)
    gap = np.array(data["views"][1]["values"], dtype=float)
    np.testing.assert_allclose(gap[1], (result["cka"][1] - result["cka"][0]), atol=5e-4)


def test_the_page_holds_rdms_to_choose_from(folder: Path) -> None:
    rdm = kept(folder, "figure4")["rdm"]
    data = explorer(folder, "figure4")
    choices = {choice["name"]: choice["options"] for choice in data["choices"]}
    assert list(choices) == ["rule", "layer"]
    assert choices["layer"] == rdm["layer"].values.tolist()
    ids = [int(row.partition(" ")[0]) for row in data["rows"]]
    labels = [row.partition(" (label ")[2] for row in data["rows"]]
    assert labels == sorted(labels) and len(ids) == 40
    held = np.array(data["views"][0]["values"], dtype=float)
    square = repsim.squareform(rdm).sel(example_a=ids, example_b=ids)
    np.testing.assert_allclose(held, square.values, atol=5e-4)
    gap = np.array(data["views"][1]["values"], dtype=float)
    np.testing.assert_allclose(gap[1], (square[1] - square[0]).values, atol=5e-4)


def test_the_mean_is_over_two_pairs_of_networks(folder: Path) -> None:
    from repsim import compare, open_study

    study = open_study(folder / "runs.zarr")
    bp, sg = ([study[f"{c}/{k}"].to_dataset() for k in (0, 1)] for c in ("bp", "sg"))
    expected = (compare(bp[0], sg[1]) + compare(bp[1], sg[0])) / 2
    cka = kept(folder, "over_training")["cka"].sel(condition="sg")
    np.testing.assert_allclose(cka, expected)
    said = over_training.claim(kept(folder, "over_training"))
    gap = abs(cka - kept(folder, "over_training")["cka"].sel(condition="bp"))
    step = int(gap["step"][int(gap.mean(["layer_a", "layer_b"]).values.argmax())])
    assert f"sg after {step} updates" in said


def test_numbers_and_pictures_can_be_taken_along(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert 'download="over_training.csv"' in page
    drawn = list((folder / "figures").glob("*.png"))
    assert len(drawn) > 12 and all(path.stat().st_size > 5000 for path in drawn)
    rows = (folder / "tables" / "over_training.csv").read_text().splitlines()
    assert rows[0] == "condition,step,layer_a,layer_b,cka"
    assert len(rows) == 1 + kept(folder, "over_training")["cka"].size
    start = page.index("<pre><code>", page.index('id="layer_similarity"')) + 11
    call = page[start : page.index("</code>", start)].replace("&#34;", '"')
    names: dict[str, Any] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(call, names)
    finally:
        os.chdir(before)
    assert "cka_heatmaps" in names["figures"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with playwright.sync_playwright() as running:
        options = ["--no-sandbox", "--disable-gpu"]
        opened = running.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_works_in_a_browser(
    folder: Path, browser: Any, width: int, theme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, offline=True
    )
    page = context.new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folder / "report.html").as_uri())
    assert errors == []
    assert all(url.startswith(("file:", "data:")) for url in asked)
    seen = "e => [...e].every(i => i.complete && i.naturalWidth && i.clientWidth)"
    assert page.eval_on_selector_all("img", seen)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    hint = "getComputedStyle(e.closest('.scroll'), '::before').content"
    told = page.locator("img").first.evaluate(f"e => [e.clientWidth, {hint}]")
    assert (told[0] > width) == ("swipe sideways" in told[1])
    box = page.locator("#explore-over_training")
    assert box.is_visible()
    cka = kept(folder, "over_training")["cka"].sel(condition="sg")
    cells = box.locator("svg rect[role=img]")
    readout = box.locator("p[aria-live]")
    cells.nth(1).hover(force=True)
    expected = f"{cka.isel(step=-1, layer_a=0, layer_b=1):.3f}".replace("-", "−")
    assert readout.text_content() == f"hidden_1 × hidden_2: {expected}"
    # By keyboard: one cell to the right, and the first moment.
    cells.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    expected = f"{cka.isel(step=-1, layer_a=1, layer_b=1):.3f}".replace("-", "−")
    assert readout.text_content() == f"hidden_2 × hidden_2: {expected}"
    box.locator("input[type=range]").focus()
    page.keyboard.press("Home")
    assert box.locator("output").text_content() == "0"
    label = cells.nth(0).get_attribute("aria-label")
    expected = f"{cka.isel(step=0, layer_a=0, layer_b=0):.3f}".replace("-", "−")
    assert label == f"hidden_1 × hidden_1: {expected}"
    rdms = page.locator("#explore-figure4")
    rdms.locator("select[name=layer]").select_option("2")
    square = repsim.squareform(kept(folder, "figure4")["rdm"])[1, 2]
    few = explorer(folder, "figure4")["rows"]
    a, b = (int(row.partition(" ")[0]) for row in few[:2])
    expected = f"{square.sel(example_a=a, example_b=b):.3f}"
    label = rdms.locator("svg rect[role=img]").nth(1).get_attribute("aria-label")
    assert label == f"{few[0]} × {few[1]}: {expected}"
    box.locator("select[name=pair]").select_option("0")
    own = kept(folder, "over_training")["cka"].isel(condition=0, step=0)
    expected = f"{own.isel(layer_a=0, layer_b=0):.3f}".replace("-", "−")
    label = cells.nth(0).get_attribute("aria-label")
    assert label == f"hidden_1 × hidden_1: {expected}"
    context.close()


def test_without_scripts_the_pictures_are_there(folder: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    assert page.locator("#over_training img").first.is_visible()
    assert not page.locator("#explore-over_training").is_visible()
    context.close()
