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


def charted(folder: Path, name: str) -> dict[str, Any]:
    """Return the Vega-Lite specification that the page holds for a section."""
    page = (folder / "report.html").read_text()
    start = page.index(
        '<script type="application/json">', page.index(f"explore-{name}")
    )
    start = page.index(">", start) + 1
    return dict(json.loads(page[start : page.index("</script>", start)]))


def options(spec: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what a chart lets its reader choose from."""
    found = {p["name"]: p["bind"].get("options") for p in spec["params"] if "bind" in p}
    steps = {p["name"]: p.get("value") for p in spec["params"]}["steps"]
    return {name: steps if name == "step" else found[name] for name in found}


def cells(spec: dict[str, Any], **chosen: Any) -> np.ndarray:
    """Return the heat map that a chart shows for a choice, NaN where it has none."""
    values = {p["name"]: p.get("value") for p in spec["params"]}
    (one,) = [
        record
        for record in spec["data"]["values"]
        if all(record[name] == value for name, value in chosen.items())
    ]
    flat = np.array(one["cells"], dtype=float) / 1000
    return flat.reshape(len(values["rows"]), len(values["columns"]))


def test_the_page_holds_the_results_numbers(folder: Path) -> None:
    result = kept(folder, "over_training")
    spec = charted(folder, "over_training")
    steps = result["step"].values.tolist()
    views = ["debiased CKA", "minus two seeds of bp"]
    pairs = ["bp – bp", "bp – sg"]
    assert options(spec) == {"show": views, "pair": pairs, "step": steps}
    for k, pair in enumerate(pairs):
        for at, step in enumerate(steps):
            held = cells(spec, show=views[0], pair=pair, step=step)
            cka = result["cka"][k, at]
            np.testing.assert_allclose(held, cka.values, atol=5e-4)
            held = cells(spec, show=views[1], pair=pair, step=step)
            gap = (cka - result["cka"][0, at]).values
            np.testing.assert_allclose(held, gap, atol=5e-4)


def test_the_page_holds_rdms_to_choose_from(folder: Path) -> None:
    rdm = kept(folder, "figure4")["rdm"]
    spec = charted(folder, "figure4")
    choices = options(spec)
    assert list(choices) == ["show", "rule", "layer"]
    assert choices["layer"] == rdm["layer"].values.tolist()
    rows = {p["name"]: p.get("value") for p in spec["params"]}["rows"]
    ids = [int(row.partition(" ")[0]) for row in rows]
    labels = [row.partition(" (label ")[2] for row in rows]
    assert labels == sorted(labels) and len(ids) == 40
    square = repsim.squareform(rdm).sel(example_a=ids, example_b=ids)
    for k, rule in enumerate(choices["rule"]):
        for at, layer in enumerate(choices["layer"]):
            held = cells(spec, show="correlation distance", rule=rule, layer=layer)
            np.testing.assert_allclose(held, square[k, at].values, atol=5e-4)
            held = cells(spec, show="minus bp", rule=rule, layer=layer)
            gap = (square[k, at] - square[0, at]).values
            np.testing.assert_allclose(held, gap, atol=5e-4)


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
    expect = pytest.importorskip("playwright.sync_api").expect
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
    # On a phone the panels stand one under the other: none has to be swiped.
    shown = page.eval_on_selector_all("img", "e => e.map(i => i.clientWidth)")
    assert len(shown) > 12 and max(shown) <= width
    drawn = page.eval_on_selector_all("img", "e => e.map(i => i.currentSrc)")
    stacked = [source.startswith("data:image/webp") for source in drawn]
    assert sum(stacked) > 10 if width == 400 else sum(stacked) < 2
    box = page.locator("#explore-over_training[data-drawn]")
    box.wait_for()
    cka = kept(folder, "over_training")["cka"].sel(condition="sg")
    drawn = box.locator("path[aria-roledescription='rect mark']")
    readout = box.locator("p[aria-live]")

    def said(value: xr.DataArray) -> str:
        return f"{float(value):.3f}".replace("-", "−")

    drawn.nth(1).hover(force=True)
    expected = said(cka.isel(step=-1, layer_a=0, layer_b=1))
    assert readout.text_content() == f"hidden_1 × hidden_2: {expected}"
    assert box.locator("svg.marks").bounding_box()["width"] <= width
    # By keyboard: into the map, one cell to the right and up, and the first moment.
    box.locator(".chart").focus()
    last = cka.isel(step=-1)
    for key, at in (("ArrowUp", (0, 0)), ("ArrowRight", (0, 1)), ("ArrowUp", (1, 1))):
        page.keyboard.press(key)
        names = " × ".join(f"hidden_{k + 1}" for k in at)
        expected = f"{names}: {said(last.isel(layer_a=at[0], layer_b=at[1]))}"
        expect(readout).to_have_text(expected)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")  # below the lowest row is nothing
    expected = said(last.isel(layer_a=0, layer_b=1))
    expect(readout).to_have_text(f"hidden_1 × hidden_2: {expected}")
    step = box.locator("input[type=range]")
    step.focus()
    page.keyboard.press("Home")
    expect(step).to_have_attribute("aria-valuetext", "0")
    expected = said(cka.isel(step=0, layer_a=0, layer_b=1))
    expect(readout).to_have_text(f"hidden_1 × hidden_2: {expected}")
    rdms = page.locator("#explore-figure4[data-drawn]")
    rdms.locator("select[name=layer]").select_option("hidden_3")
    square = repsim.squareform(kept(folder, "figure4")["rdm"])[1, 2]
    values = {p["name"]: p.get("value") for p in charted(folder, "figure4")["params"]}
    few = values["rows"]
    a, b = (int(row.partition(" ")[0]) for row in few[:2])
    expected = said(square.sel(example_a=a, example_b=b))
    second = rdms.locator("path[aria-roledescription='rect mark']").nth(1)
    expect(second).to_have_attribute("aria-label", f"{few[0]} × {few[1]}: {expected}")
    box.locator("select[name=pair]").select_option("bp – bp")
    own = kept(folder, "over_training")["cka"].isel(condition=0, step=0)
    expected = said(own.isel(layer_a=0, layer_b=1))
    expect(readout).to_have_text(f"hidden_1 × hidden_2: {expected}")
    assert errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    context.close()


def test_without_scripts_the_pictures_are_there(folder: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    assert page.locator("#over_training img").first.is_visible()
    assert not page.locator("#explore-over_training").is_visible()
    context.close()
