"""Running claims: what is written, what is kept, what is said when asked wrongly."""

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import repsim
from repsim import learning
from repsim.claims import (
    Evidence,
    Gate,
    base,
    cost,
    lab,
    registered,
    reproduce,
    settings,
    sources,
    trained,
)
from repsim.claims.lab import Lab
from repsim.claims.render import main, replaced, write_markdown, write_page
from repsim.claims.settings import Settings, Size
from repsim.core.code_hashes import source_files
from repsim.learning.schedules import Stochastic

KEYS = {"id", "statement", "source", "measured", "threshold", "verdict"}
TINY = Size(
    4, 8, 12, 32, (1e-3, 1e-2), (2, 3), 4, (10, 4, 4), 30, 10, (1, 1),
    small_rate=1e-4, long_steps=15, feed_steps=12,
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.SCALES, ("digits", True), TINY)
    monkeypatch.setitem(settings.SCALES, ("images", True), TINY)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Register a claim that notes when it is run."""
    ran: list[str] = []
    monkeypatch.setattr(base, "_CLAIMS", dict(base._CLAIMS))

    @base.claim(
        "X1", order=1, statement="One.", source="here", experiment="Counts.",
        gates=[Gate("one", "==", 1.0, "arithmetic")],
    )  # fmt: skip
    def run(lab: Lab) -> Evidence:
        ran.append("X1")
        return Evidence({"one": [1.0] * len(lab.seeds)}, note="A <note>.")

    return ran


def test_every_claim_of_the_paper_is_there() -> None:
    known = registered()
    assert {f"C{i}" for i in range(1, 19)} <= set(known)
    assert {"T5", "T9", "T10", "T11", "E3", "E7", "M1", "M2", "D1", "C10c"} <= set(
        known
    )
    for claim in known.values():
        assert claim.statement.endswith(".") and claim.source and claim.experiment


def test_what_is_written(tmp_path: Path) -> None:
    found = reproduce(
        ["C2", "C3"], quick=True, seeds=2, out=tmp_path / "out", progress=False
    )
    results = json.loads(found.path.read_text())
    assert [r["id"] for r in results] == ["C2", "C3"]
    assert all(KEYS <= set(r) for r in results)
    assert results == found.results and found.holds
    page = found.page.read_text()
    assert page.count("data:image/png;base64,") == 2 and "http-equiv" not in page
    assert "C2  holds" in found.table()
    picture = tmp_path / "out/figures/C3.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert 'class="wide"' not in page  # a phone shows their letters
    Image.new("RGB", (1400, 400)).save(picture)
    about = json.loads((tmp_path / "out/about.json").read_text())
    write_page(found.page, results, about, picture.parent)
    assert found.page.read_text().count('class="wide"') == 1  # which is swiped


def test_a_finished_claim_is_not_repeated(tmp_path: Path, counted: list[str]) -> None:
    first = reproduce("X1", quick=True, out=tmp_path, progress=False)  # type: ignore[arg-type]
    again = reproduce(["X1"], quick=True, out=tmp_path, progress=False)
    assert counted == ["X1"] and again.results == first.results
    reproduce(["X1"], quick=True, seeds=2, out=tmp_path, progress=False)
    assert counted == ["X1", "X1"]


def test_cost_and_cuts_are_stated_before_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = reproduce(["C2"], quick=True, seeds=2, out=tmp_path)
    said = capsys.readouterr().err
    assert "To do: no networks, about 1 minute" in said
    assert any(note.startswith("Quick: networks of") for note in found.notes)
    assert any("Fewer than five seeds" in note for note in found.notes)


def test_networks_are_counted_once() -> None:
    claims = [registered()[name] for name in ("C10", "C10b", "C13")]
    networks, seconds = cost.estimate(Lab(Settings(quick=True), Path()), claims)
    # bp, sg, sg_every and dfa: three rates, one beyond an end and five seeds each; bp
    # and sg once more.
    assert networks == 4 * (3 + 1 + 5) + 2 * 5 and seconds > 0
    said = cost.sentence(3, 3600 * 20, 2)
    assert "3 networks, about 10 hours on 2 cores" in said and "goes on" in said


@pytest.mark.slow
def test_trained_claims_run_and_are_kept(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["C10", "C11", "C13"]
    options: dict[str, Any] = {"quick": True, "seeds": 2, "out": tmp_path, "jobs": 1}
    found = reproduce(names, progress=False, **options)
    assert {r["verdict"] for r in found.results} <= {
        "holds", "does not hold", "reported",
    }  # fmt: skip
    by_id = {r["id"]: r for r in found.results}
    assert by_id["C10"]["measured"]["train accuracy bp"]["n"] == 2
    assert set(by_id["C10"]["tables"]["training loss by learning rate"]) == {"bp", "sg"}
    assert by_id["C13"]["measured"]["ratio at the split sg"]["mean"] > 0
    assert "Not judged, because it takes 5 seeds" in by_id["C11"]["note"]

    def never(*args: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(lab, "train_missing", never)
    for path in (tmp_path / "results").iterdir():
        path.unlink()
    again = reproduce(names, progress=False, **options)
    for old, new in zip(found.results, again.results, strict=True):
        assert old["measured"] == new["measured"]


@pytest.mark.usefixtures("undrawn")
def test_a_trained_claim_is_kept(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"quick": True, "seeds": 2, "out": tmp_path, "jobs": 1}
    found = reproduce(["C10"], progress=False, **options)
    stores = list((tmp_path / "networks").glob("bp-0-*.zarr"))
    study = repsim.open_study(stores[0])
    assert list(study.children) == ["bp"]
    assert {"training"} <= set(study["bp/0"].children)
    monkeypatch.setattr(lab, "train_missing", None)
    for path in (tmp_path / "results").iterdir():
        path.unlink()
    again = reproduce(["C10"], progress=False, **options)
    assert found.results[0]["measured"] == again.results[0]["measured"]


def blobs(shift: float, classes: int = 10) -> Callable[..., xr.Dataset]:
    def load(split: str, root: object) -> xr.Dataset:
        rng = np.random.default_rng(split == "test")
        label = np.arange(400) % classes
        features = 3 * np.eye(classes)[label] + rng.normal(shift, 1, (400, classes))
        return xr.Dataset(
            {
                "features": (("example", "feature"), features.astype("float32")),
                "label": ("example", label),
            }
        )

    return load


@pytest.mark.usefixtures("undrawn", "tiny")
def test_claims_are_asked_of_data_of_ones_own(tmp_path: Path) -> None:
    def run(loader: Callable[..., xr.Dataset]) -> tuple[dict[str, Any], list[str]]:
        repsim.datasets.register("blobs", loader)
        try:
            options: dict[str, Any] = {"dataset": "blobs", "quick": True, "seeds": 2}
            found = reproduce(["C10"], out=tmp_path, progress=False, **options)
        finally:
            repsim.datasets.unregister("blobs")
        kept = sorted(path.name for path in (tmp_path / "networks").glob("*.zarr"))
        return found.results[0], kept

    first, kept = run(blobs(0.0))
    assert first["dataset"] == "blobs"
    assert run(blobs(0.0)) == (first, kept)
    # Other data under the same name are judged anew.
    second, more = run(blobs(5.0))
    assert second["measured"] != first["measured"] and set(kept) < set(more)
    sentence = "'blobs' to hold the 10 classes 0 to 9 .* its labels are 0, 1, 2;"
    with pytest.raises(ValueError, match=sentence):
        run(blobs(0.0, classes=3))


def test_code_changed_while_networks_are_trained_is_told(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = trained.train_missing

    def edited(cell: trained.Cell, *args: Any) -> trained.Cell:
        monkeypatch.setattr(trained, "rule_code", lambda name: "another")
        return known(cell, *args)

    monkeypatch.setattr(lab, "train_missing", edited)
    with pytest.raises(ValueError, match="Expected the code of rule 'bp', .* changed"):
        reproduce(["C10"], progress=False, quick=True, seeds=1, out=tmp_path, jobs=1)
    assert not list((tmp_path / "networks").glob("*.zarr"))


def test_rates_are_tuned_alike_on_other_networks(tiny: None, tmp_path: Path) -> None:
    work = Lab(Settings(quick=True, seeds=1), tmp_path)
    grid = work.grid(["bp", "sg"])
    assert {name: list(row) for name, row in grid.items()} == {
        "bp": [1e-3, 1e-2], "sg": [1e-3, 1e-2],
    }  # fmt: skip
    assert work.rate("bp") == min(grid["bp"], key=lambda lr: grid["bp"][lr])
    assert work.rate("sg_shared") == work.rate("sg")
    stores = list(work.folder.glob("*.zarr"))
    assert {int(s.name.split("-")[1]) for s in stores} == {lab.TUNING_SEED}
    areas = work.grid(["bp"], "area")["bp"]
    assert all(-1 <= value <= 0 for value in areas.values())


def test_a_grid_grows_until_the_best_rate_is_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = {"bp": 0.1, "sg": 1e-3, "none": 0.0, "dfa": 1e-2}
    asked: list[float] = []

    def numbers(self: Lab, cells: list[trained.Cell]) -> list[dict[str, Any]]:
        asked.extend(cell.lr for cell in cells)
        return [
            {"loss": [abs(math.log10(max(best[c.label], 1e-9) / c.lr))]} for c in cells
        ]

    monkeypatch.setattr(Lab, "numbers", numbers)
    work = Lab(Settings(quick=True, size=(("grid", (3e-3, 1e-2, 3e-2)),)), tmp_path)
    grid = work.grid(list(best))
    assert list(grid["dfa"]) == [3e-3, 1e-2, 3e-2]
    assert list(grid["bp"]) == [3e-3, 1e-2, 3e-2, 0.1, 0.3]
    assert list(grid["sg"]) == [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    # Lower is better for ever: it ends after four.
    assert list(grid["none"]) == [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    assert len(asked) == sum(map(len, grid.values()))
    assert work.tuned(list(best)) == {"bp": 0.1, "sg": 1e-3, "none": 3e-5, "dfa": 1e-2}
    assert lab.further({1e-3: 2.0, 1e-2: 1.0}) == []  # Two are a choice.


def test_equal_accuracy_is_looked_for_at_every_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {"bp": 1.0, "sg_every": 6.3}

    def numbers(self: Lab, cells: list[trained.Cell]) -> list[dict[str, Any]]:
        found = []
        for cell in cells:
            between = cell.evaluated or range(0, cell.steps, cell.steps // 20)
            step = sorted({0, *between, cell.steps})
            curve = [t / (t + 20 * slow[cell.label] + cell.seed) for t in step]
            found.append({"step": step, "test_accuracy": curve})
        return found

    monkeypatch.setattr(Lab, "numbers", numbers)
    monkeypatch.setattr(Lab, "rate", lambda self, label: 1e-3)
    monkeypatch.setattr(Lab, "tuned", lambda self, labels: dict.fromkeys(labels, 1e-3))
    work = Lab(Settings(quick=True, size=(("steps", 500),)), tmp_path)
    cells = work.matched("bp", "sg_every")
    assert {cell.steps for cell in cells["sg_every"]} == {500}
    (stopped,) = {cell.steps for cell in cells["bp"]}

    def mean(label: str, t: int) -> float:
        return float(np.mean([t / (t + 20 * slow[label] + seed) for seed in range(5)]))

    assert mean("bp", stopped - 1) < mean("sg_every", 500) <= mean("bp", stopped)
    assert stopped % (500 // 20)  # Not one of the long run's evaluations.
    assert all(cell.measured for cell in cells["bp"])


def test_initial_weights_are_shared_only_where_asked(tiny: None) -> None:
    work = Lab(Settings(quick=True), Path())
    assert work.cell("bp", 1e-3, 0).init != work.cell("sg", 1e-3, 0).init
    assert work.cell("bp", 1e-3, 0).init == work.cell("sg_shared", 1e-3, 0).init
    changed = replace(work.cell("bp", 1e-3, 0), steps=3)
    assert changed.key != work.cell("bp", 1e-3, 0).key


Plugin = Callable[..., str]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    """Return what writes modules, imports them, and registers the rule of the last."""
    monkeypatch.chdir(tmp_path)  # a plugin puts it on the path: not the checkout's
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**texts: str) -> str:
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        if "mine" in learning.names():
            learning.unregister("mine")
        learning.register("mine", module.Mine)
        sources.look_again()
        return sources.rule_code("mine")

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    if "mine" in learning.names():
        learning.unregister("mine")


HEAD = "from repsim.learning.rules.backpropagation import Backpropagation as B\n"


def test_a_repaired_rule_is_judged_anew(
    tmp_path: Path, counted: list[str], plugin: Plugin
) -> None:
    def run() -> None:
        options: dict[str, Any] = {"quick": True, "seeds": 1, "rule": "mine"}
        reproduce(["X1"], out=tmp_path / "out", progress=False, **options)

    wrong = plugin(plug_rule=f"{HEAD}class Mine(B):\n    rate = 1\n")
    run()
    run()
    assert counted == ["X1"]
    mended = plugin(plug_rule=f"{HEAD}class Mine(B):\n    rate = 22\n")
    assert mended != wrong
    run()
    run()
    assert counted == ["X1", "X1"]


@pytest.mark.parametrize(
    "imported", ["import plug_help as h", "from plug_help import *", "import plug_via"]
)
def test_a_helper_that_a_rule_calls_is_part_of_it(
    imported: str, plugin: Plugin
) -> None:
    uses = {
        "import plug_help as h": "h.scale(cut.incoming)",
        "from plug_help import *": "scale(cut.incoming)",
        "import plug_via": "plug_via.plug_help.scale(cut.incoming)",
    }[imported]
    rule = (
        f"{HEAD}{imported}\nclass Mine(B):\n    def error(self, cut):\n"
        f"        return {uses}\n"
    )
    helper = "def scale(e):\n    return {} * e\n"
    others = {"plug_via": "import plug_help\n", "plug_rule": rule}
    first = plugin(plug_help=helper.format("1.0"), **others)
    assert plugin(plug_help=helper.format("1.0"), **others) == first
    second = plugin(plug_help=helper.format("0.25"), **others)
    assert second != first
    # Edited again, but not imported again: what this process runs is the old one.
    Path(sys.modules["plug_help"].__file__ or "").write_text(helper.format("1.0"))
    sources.look_again()
    assert sources.rule_code("mine") not in (first, second)


def test_a_rule_without_a_file_is_told_by_what_it_does() -> None:
    def made(body: str, constant: float = 1.0) -> str:
        space: dict[str, Any] = {"__name__": "nowhere", "FACTOR": constant}
        exec(  # noqa: S102
            f"{HEAD}def halve(e):\n    return {body}\n"
            "class Mine(B):\n    def error(self, cut):\n"
            "        return FACTOR * halve(cut.incoming)\n",
            space,
        )
        learning.register("mine", space["Mine"])
        try:
            return sources.rule_code("mine")
        finally:
            learning.unregister("mine")

    assert made("e / 2") == made("e / 2")
    assert len({made("e / 2"), made("e / 3"), made("e / 2", 2.0)}) == 3


def test_all_that_measures_a_network_decides_its_name() -> None:
    followed = set(source_files([trained]).values())
    for name in (
        "probes.linear",
        "geometry.stacks",
        "measures.dissimilarity.distances",
    ):
        assert f"repsim.{name}" in followed
    assert not {n for n in followed if n.startswith(("repsim.plot", "repsim.cli"))}
    assert "numpy" not in followed


def test_what_is_kept_is_told_by_code_and_all_settings(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = registered()["C4"].run.__module__
    work = Lab(Settings(quick=True), tmp_path)
    key, cell = work.key(module), work.cell("bp", 1e-3, 0).key
    for changed in (
        Settings(quick=True, seeds=2),
        Settings(quick=True, seed=1),
        Settings(quick=True, rule="dni"),
        Settings(quick=True, dataset="mnist"),
    ):
        assert Lab(changed, tmp_path).key(module) != key
    assert Lab(Settings(quick=True), tmp_path).key(module) == key
    monkeypatch.setattr(lab, "code", lambda *m: str(len(m)))
    assert Lab(Settings(quick=True), tmp_path).key(module) != key
    for changed_cell in (
        {"steps": 3},
        {"decay": (0.5,)},
        {"p_update": 0.5},
        {"evaluated": (1, 2)},
    ):
        assert replace(work.cell("bp", 1e-3, 0), **changed_cell).key != cell


def test_a_shorter_run_is_the_longer_ones_beginning(tiny: None, tmp_path: Path) -> None:
    work = Lab(Settings(quick=True), tmp_path)
    long = work.cell("bp", 1e-3, 0, steps=9, measured=False)
    short = replace(long, steps=6, evaluated=(2, 5))
    whole, part = work.numbers([long, short])
    assert part["step"] == [0, 2, 5, 6]
    assert whole["step"] == list(range(10))
    for name in ("accuracy", "test_accuracy"):
        assert part[name] == [whole[name][t] for t in part["step"]]


def test_rates_fall_and_segments_rest(tiny: None, tmp_path: Path) -> None:
    cell = Lab(Settings(quick=True), tmp_path).cell(
        "sg_every", 1e-3, 0, steps=20, decay=(0.6, 0.8), p_update=0.5
    )
    net = repsim.networks.mlp(64, [8] * 4, 10, seed=0)
    rule = learning.make("sg", net, lr=1e-3, **json.loads(cell.options))
    callbacks: Any = cell.prepared(rule)
    rates = []

    def note(step: int, losses: Any) -> None:
        rates.append(rule.optimizers["network"].param_groups[0]["lr"])

    data = repsim.datasets.load("digits", limit=64)
    repsim.train(rule, data, 20, callbacks=[*callbacks, note], progress=False)
    assert rates == pytest.approx([1e-3] * 11 + [1e-4] * 4 + [1e-5] * 5)
    assert len(callbacks) == 2 and isinstance(rule.schedule, Stochastic)
    assert Lab(Settings(), tmp_path).cell("bp", 1e-3, 0).prepared(rule) == []


CALLS: list[int] = []


def halved(number: int, name: str) -> list[Any]:
    """Return half a number, and refuse 13 once."""
    CALLS.append(number)
    if number == 13 and CALLS.count(13) == 1:
        raise InterruptedError
    return [number / 2, name]


def test_what_is_finished_of_many_calls_is_kept(tmp_path: Path) -> None:
    CALLS.clear()
    work = Lab(Settings(quick=True), tmp_path)
    calls = [(1, "a"), (2, "b"), (13, "c"), (4, "d")]
    with pytest.raises(InterruptedError):
        work.each(halved, calls)
    wanted = [[0.5, "a"], [1.0, "b"], [6.5, "c"], [2.0, "d"]]
    assert work.each(halved, calls) == wanted == work.each(halved, calls)
    assert CALLS == [1, 2, 13, 13, 4]
    assert Lab(Settings(quick=True, rule="dni"), tmp_path).each(halved, calls) == wanted
    assert len(CALLS) == 9


@pytest.mark.usefixtures("undrawn")
def test_pages_keep_the_prose(tmp_path: Path) -> None:
    found = reproduce(["C2", "C3"], quick=True, out=tmp_path / "out", progress=False)
    page = tmp_path / "paper.md"
    stale = replaced("# Paper\n", "verdicts", "stale text\n")
    page.write_text(f"{stale}Prose.\n")
    main([str(page), str(found.path), str(found.path)])
    text = page.read_text()
    assert text.startswith("# Paper\n") and text.endswith("\nProse.\n")
    assert "stale" not in text
    row = next(line for line in text.splitlines() if line.startswith("| C2 |"))
    assert row.count("[holds](claims/digits_quick.md#c2) | true gradient: 6 |") == 2
    assert (
        "`repsim reproduce --dataset digits --quick --seeds 5 --claims C2,C3`" in text
    )
    details = (tmp_path / "claims" / "digits_quick.md").read_text()
    assert "## C3\n\n**holds**: Where everything" in details
    assert "| way moved in 100 steps | 0 | – | 0 | 0 | 1 |" in details
    about = json.loads((found.path.parent / "about.json").read_text())
    about["settings"]["size"] = [["grid", [0.003, 0.01]], ["width", 16]]
    sized = tmp_path / "sized"
    sized.mkdir()
    (sized / "about.json").write_text(json.dumps(about))
    (sized / "claims.json").write_text(found.path.read_text())
    *_, beside = write_markdown(page, [found.path, sized / "claims.json"])
    assert beside.name == "digits_quick_grid_0.003_0.01_width_16.md"
    fresh = tmp_path / "fresh" / "page.md"
    fresh.parent.mkdir()
    assert write_markdown(fresh, [found.path])[0] == fresh
    assert fresh.read_text().startswith("<!-- verdicts: begin -->")


def test_what_was_asked_wrongly(tmp_path: Path) -> None:
    out = tmp_path / "out"
    wrong: list[tuple[str, dict[str, Any]]] = [
        (r"`claim` to be one of .* Did you mean 'C1[0-9]?'", {"claims": ["C1O"]}),
        ("at least one claim", {"claims": []}),
        ("`seeds` to be at least 1", {"seeds": 0}),
        ("`seed` at least 0", {"seed": -1}),
        ("`dataset` to be one of digits, mnist", {"dataset": "lin_2"}),
        ("`rule` to be one of bp", {"rule": "gs"}),
        ("`jobs` to be at least 1", {"jobs": 0}),
    ]
    for sentence, options in wrong:
        with pytest.raises(ValueError, match=sentence):
            reproduce(**{"quick": True, "out": out, "progress": False, **options})
    with pytest.raises(FileNotFoundError, match="data folder"):
        reproduce(["C10"], dataset="mnist", root=tmp_path / "none", out=out)
    assert not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="to be a folder"):
        reproduce(["C2"], quick=True, out=tmp_path / "file", progress=False)


@pytest.mark.usefixtures("undrawn")
def test_without_mnist_digits_are_used_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPSIM_DATA", raising=False)
    found = reproduce(["C2"], root=tmp_path, out=tmp_path / "out", progress=False)
    assert any("MNIST was not found" in note for note in found.notes)
    assert found.results[0]["dataset"] == "digits"
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"")
    found = reproduce(["C2"], root=tmp_path, out=tmp_path / "out", progress=False)
    assert found.results[0]["dataset"] == "mnist"


@pytest.mark.usefixtures("undrawn")
def test_one_seed_leaves_comparisons_of_seeds_open(tiny: None, tmp_path: Path) -> None:
    found = reproduce(
        ["C11"], quick=True, seeds=1, out=tmp_path, jobs=1, progress=False
    )
    for result in found.results:
        assert result["verdict"] == "reported"
        assert "Not judged, because it takes" in result["note"]
    assert "p, CKA of matched layers not measured (< 0.05)" in found.table()


def test_an_explicit_folder_without_mnist_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    found = reproduce(["C2"], root=missing, out=tmp_path / "out", progress=False)
    assert f"MNIST was not found below '{missing}', which does not" in found.notes[0]
    with pytest.raises(OSError, match="to be a folder to write in"):
        reproduce(["C2"], quick=True, out="/dev/null/x", progress=False)


@pytest.mark.slow
def test_the_quick_command_runs_every_claim_on_digits(tmp_path: Path) -> None:
    # The command itself with one seed: five take minutes.
    words = ["reproduce", "--quick", "--seeds", "1", "--json", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from repsim.cli import main; main()", *words],
        capture_output=True, text=True, cwd=tmp_path, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results == json.loads((tmp_path / "out/claims.json").read_text())
    assert [r["id"] for r in results] == list(registered())
    verdict = {r["id"]: r["verdict"] for r in results}
    exact = ("C1", "C2", "C3", "C4", "C5", "C6", "C17", "M1", "M2", "T5", "T9", "T10")
    assert {verdict[name] for name in (*exact, "T11")} == {"holds"}
    assert verdict["C15"] == verdict["E3"] == "reported"
    assert "To do:" in done.stderr and "Quick: networks of" in done.stderr
    page = (tmp_path / "out/claims.html").read_text()
    assert page.count("data:image/png;base64,") == len(results)


@pytest.mark.slow
def test_all_trained_claims_run(tiny: None, tmp_path: Path) -> None:
    names = [claim.id for claim in registered().values() if claim.uses]
    found = reproduce(names, quick=True, seeds=2, out=tmp_path, jobs=2, progress=False)
    assert [r["id"] for r in found.results] == names
    assert all(Path(tmp_path, r["figure"]).is_file() for r in found.results)
