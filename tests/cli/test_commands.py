"""The commands: exit status, one sentence on stderr, and what they leave behind."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.analyses import sources
from repsim.cli.commands import main
from repsim.datasets.inputs import fetching
from repsim.probes import LinearProbe, probe_layers
from repsim.studies import fingerprints

QUICK = [
    "--depth", "2", "--width", "8", "--steps", "12", "--seeds", "2", "--lr", "0.003",
    "--examples", "60", "--jobs", "1", "--quiet",
]  # fmt: skip


def _run(*words: str) -> int:
    before = sys.argv
    sys.argv = ["repsim", *words]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


# Networks this small have units that never fire.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Some examples have no",
    "ignore:Constant over the examples",
    "ignore:.* pairs are NaN",
)


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    blank_figures: Callable[[], AbstractContextManager[None]],
) -> Path:
    out = tmp_path_factory.mktemp("cli") / "study"
    with blank_figures():  # test_page_in_browser draws them all
        assert _run("study", "--rules", "bp,sg", "--out", str(out), *QUICK) == 0
    return out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("version") == 0
    assert capsys.readouterr().out.startswith("repsim ")
    assert _run("version", "--json") == 0
    assert "torch" in json.loads(capsys.readouterr().out)


def test_show_of_a_store_says_a_sentence_a_recording(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = folder / "runs.zarr"
    assert _run("show", str(folder), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == [str(store / r / s) for r in ("bp", "sg") for s in "01"]
    assert _run("show", str(store / "sg")) == 0
    lines = capsys.readouterr().out.splitlines()
    place = str(store / "sg" / "0")
    assert lines[0] == f"{place}: {said[place]}" and len(lines) == 2


def test_zsh_completes_from_the_first_tab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # Typer asks for the shell's name where it does not look which one this is.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    for _ in range(2):
        assert _run("--install-completion", "zsh") == 0
    script = (tmp_path / ".zfunc" / "_repsim").read_text()
    assert script.count('_repsim_completion "$@"') == 1
    if shutil.which("zsh") is None:
        pytest.skip("no zsh to load it")
    first_tab = (
        "compdef() {}; env() { echo print asked }; words=(repsim); CURRENT=1; "
        f"fpath=({tmp_path / '.zfunc'}); autoload -Uz _repsim; _repsim"
    )
    said = subprocess.check_output(["zsh", "-fc", first_tab], text=True)
    assert said == "asked\n"


@pytest.mark.parametrize(
    "command",
    [
        "study", "report", "reproduce", "compare", "probe", "rdm", "show", "import",
        "export", "doctor", "version",
    ],
)  # fmt: skip
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(command, "--help") == 0
    said = capsys.readouterr().out
    assert f"Example: repsim {command}" in said
    assert "--json" in said


def test_the_doctor_tells_which_data_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path))
    known = fetching.registry()["mnist"]
    for name in known["files"]:
        file = tmp_path / known["folder"] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert _run("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {"digits", "mnist"} <= set(found["data sets at hand"])
    assert "kmnist" in found["data sets to be fetched"]
    assert "mnist" not in found["data sets to be fetched"]
    assert found["data folder"] == str(tmp_path)
    assert found["this folder writable"] is True and found["threads"] > 0
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path / "none"))
    assert _run("doctor") == 0
    assert "to exist, but it does not; create it" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_any_tree_and_of_measured_rdms(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = {name: sources()[name] for name in ("learning_curves", "measured_geometry")}
    monkeypatch.setattr(fingerprints, "sources", lambda: few)
    store = folder / "runs.zarr"
    examples = repsim.open_recording(store / "bp" / "0").sizes["example"]
    np.save(tmp_path / "brain.npy", np.arange(examples * (examples - 1) / 2))
    joined = ("--from", str(store), "--rdm", str(tmp_path / "brain.npy"))
    assert (
        _run("study", *joined, "--out", str(tmp_path / "s"), "--jobs", "1", "--quiet")
        == 0
    )
    page = (tmp_path / "s" / "report.html").read_text()
    assert "Nearest to the measured geometry: bp" in page
    capsys.readouterr()
    out = ("--out", str(tmp_path / "r"), "--jobs", "1")
    assert _run("report", str(store), *out, "--quiet", "--json") == 0
    written = json.loads(capsys.readouterr().out)["report"]
    assert Path(written) == tmp_path / "r" / "report.html"
    assert Path(written).is_file()
    assert _run("report", str(tmp_path / "nothing")) == 1
    assert "found none; run `repsim study`" in capsys.readouterr().err


def test_a_folder_elsewhere_is_refused_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command, instead in (
        (("--out", "s3://bucket/study"), "give the address as `store` (--store)"),
        (("--out", "s3://bucket/study", "--depth", "1,2"), "give the address as"),
        (("--from", "s3://bucket/runs.zarr", "--out", "here"), "copy what lies there"),
    ):
        assert _run("study", *command) != 0
        said = " ".join(capsys.readouterr().err.split())
        assert "to be a folder of this machine" in said, said
        assert instead in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("examples", "more", "message"),
    [
        ([40], ["--examples", "360"], "of the 360 test examples, but got some of 40"),
        ([40, 39], [], "but got 40 in brain0.npy and 39 in brain1.npy"),
        ([], ["--rdm", "nope.npy"], "a file at nope.npy, but found none"),
        ([360], ["--depth", "2,3"], "one --depth with --rdm, but got [2, 3]"),
    ],
)
def test_measured_rdms_that_do_not_fit_are_told_before_training(
    examples: list[int],
    more: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = []
    for i, n in enumerate(examples):
        np.save(f"brain{i}.npy", np.arange(n * (n - 1) / 2))
        files += ["--rdm", f"brain{i}.npy"]
    assert _run("study", *QUICK, *files, *more, "--out", "s") > 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("s").exists()


def test_a_study_leaves_every_file(folder: Path) -> None:
    content = json.loads((folder / "study.json").read_text())
    assert content["finished"] is True
    assert content["spec"]["conditions"] == ["bp", "sg"]
    assert set(content["summary"]["learning_curves"]) == {"bp", "sg"}
    assert content["wall_s"]["networks_total"] > 0
    assert (folder / "runs.zarr").is_dir()
    assert (folder / "results.zarr").is_dir()
    for stem in ("learning_curves", "cka_heatmaps", "displacement", "class_margin"):
        assert (folder / "figures" / f"{stem}.png").exists()
        assert (folder / "figures" / f"{stem}.svg").exists()
    page = (folder / "report.html").read_text()
    assert 'src="data:image/svg+xml;base64,' in page
    assert not re.search(r"<script[^>]*\ssrc", page)
    assert 'href="http' not in page
    assert 'src="http' not in page


def test_again_on_the_same_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "results.zarr" / "layer_similarity").stat().st_mtime_ns
    out = ["--rules", "bp,sg", "--out", str(folder), "--json", *QUICK]
    assert _run("study", *out) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["finished"] is True
    after = (folder / "results.zarr" / "layer_similarity").stat().st_mtime_ns
    assert after == before


def test_a_finished_study_is_told_from_its_documents_alone(folder: Path) -> None:
    words = ["study", "--rules", "bp,sg", "--out", str(folder), *QUICK]
    code = f"""
import atexit, sys
heavy = ("torch", "xarray", "zarr", "matplotlib", "scipy", "sklearn")
atexit.register(lambda: print("LOADED", [n for n in heavy if n in sys.modules]))
sys.argv[1:] = {words!r}
from repsim.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert f"report: {folder / 'report.html'}\n" in done.stdout
    assert "LOADED []" in done.stdout


def test_compare_writes_a_picture_and_its_numbers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (str(folder / "runs.zarr" / rule / "0") for rule in ("bp", "sg"))
    heat = tmp_path / "heat.png"
    assert _run("compare", a, b, "--out", str(heat), "--json") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["dims"] == ["layer_a", "layer_b"]
    assert heat.stat().st_size > 5000
    assert len(heat.with_suffix(".csv").read_text().splitlines()) == 10
    assert _run("compare", a, "--step", "all", "--out", str(tmp_path / "c.json")) == 0
    assert _run("compare", a, "--step", "all", "--out", str(tmp_path / "all.png")) == 0
    assert (tmp_path / "all.png").stat().st_size > 10_000
    capsys.readouterr()
    assert _run("rdm", a) == 0
    assert "within classes" in capsys.readouterr().out
    assert _run("rdm", a, "--json") == 0
    said = capsys.readouterr().out
    assert "between classes" in json.loads(said)["data_vars"] and len(said) < 5_000
    assert _run("compare", str(Path(a).parent), a) == 1
    assert "got a group of 2; name one of" in capsys.readouterr().err
    assert json.loads((tmp_path / "c.json").read_text())["dims"][0] == "step"
    option = ["--measure", "mutual_knn", "--option", "k=3"]
    assert _run("compare", a, b, *option) == 0


def test_maps_and_tokens_are_reduced_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    words = rng.normal(size=(30, 4, 3))
    mask = np.arange(4) < rng.integers(1, 5, 30)[:, None]
    run = xr.Dataset(
        {"h": (("example", "h_token", "h_unit"), words)},
        {"mask": (("example", "token"), mask), "label": ("example", np.arange(30) % 2)},
    )
    path = str(tmp_path / "run.zarr")
    repsim.save_recording(run, path)
    for command in ("compare", "rdm", "probe"):
        capsys.readouterr()
        assert _run(command, path) == 1
        assert "first (reduce=, --reduce)" in capsys.readouterr().err
        assert _run(command, path, "--reduce", "last", "--json") == 0
        assert _run(command, path, "--reduce", "lost") == 2
        assert "Did you mean 'last'?" in capsys.readouterr().err
    out = tmp_path / "r.json"
    assert _run("rdm", path, "--reduce", "last", "--out", str(out)) == 0
    last = words[np.arange(30), mask.sum(1) - 1]
    found = json.loads(out.read_text())["data"][0]
    np.testing.assert_allclose(found, repsim.rdm(last), atol=1e-6)


def test_rdm_and_probe_write_pictures(folder: Path, tmp_path: Path) -> None:
    run = str(folder / "runs.zarr" / "bp" / "0")
    assert _run("rdm", run, "--out", str(tmp_path / "rdms.png")) == 0
    assert (tmp_path / "rdms.png").stat().st_size > 5000
    arguments = ["--control", "shuffled", "--layers", "hidden_1,hidden_2"]
    assert _run("probe", run, *arguments, "--out", str(tmp_path / "probe.png")) == 0
    assert "hidden_2" in (tmp_path / "probe.csv").read_text()
    over_time = ["--step", "all", "--out", str(tmp_path / "history.png")]
    assert _run("probe", run, *over_time) == 0
    assert (tmp_path / "history.png").stat().st_size > 5000


def test_probe_takes_the_options_of_probe_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    stimulus = np.arange(120) % 30
    x = rng.normal(size=(120, 5)) + stimulus[:, None] % 3
    run = xr.Dataset(
        {"h": (("example", "h_unit"), x)},
        coords={
            "label": ("example", stimulus % 3),
            "stimulus": ("example", stimulus),
            "age": ("example", 20 + stimulus),
        },
    )
    path = str(tmp_path / "run.zarr")
    repsim.save_recording(run, path)

    def said(*words: str) -> dict[str, Any]:
        assert _run("probe", path, *words, "--json") == 0
        return dict(json.loads(capsys.readouterr().out))

    words = ["--C", "100", "--class-weight", "balanced", "--standardise", "units"]
    words += ["--groups", "stimulus", "--repeats", "3", "--test-size", "0.5"]
    found = said(*words)
    expected = probe_layers(
        run,
        estimator=LinearProbe(C=100, class_weight="balanced"),
        standardise="units",
        groups="stimulus",
        repeats=3,
        test_size=0.5,
    )
    assert (
        found["data_vars"]["accuracy"]["data"] == expected["accuracy"].values.tolist()
    )
    assert found["attrs"]["groups"] == "stimulus"
    assert "accuracy_se" in found["data_vars"]
    drawn = said("--control", "shuffled", "--control-draws", "3", "--repeats", "2")
    assert {"control_sd", "selectivity_se"} < set(drawn["data_vars"])
    assert "control_sd_se" not in drawn["data_vars"]
    ages = said("--target", "age", "--task", "regression", "--groups", "stimulus")
    assert "r2" in ages["data_vars"]
    assert _run("probe", path, "--standardise", "unit") == 2
    assert "Did you mean 'units'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare", "rdm", "probe"])
def test_a_study_is_not_a_recording(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folder, folder / "runs.zarr"):
        assert _run(command, str(path)) == 1
        said = capsys.readouterr().err
        assert "a study of several; name one of" in said
        assert str(folder / "runs.zarr" / "bp" / "0") in said


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["study", "--dataset", "digts"], 2, "Did you mean 'digits'?"),
        (["study", "--rules", "bp,sgg"], 2, "Did you mean 'sg'?"),
        (["study", "--rules", "sg:at=99"], 2, "99"),
        (["study", "--depth", "-1"], 2, "`depth` to be at least 1, but got -1"),
        (["study", "--colour"], 2, "Expected an option of repsim study, one of --"),
        (["study", "--plugin", "no_such_module"], 2, "no_such_module"),
        (["study", "--device", "foo"], 2, "`device` to work here, but got 'foo'"),
        (["study", "--dataset", "mnist", "--root", "nowhere"], 1, "nowhere"),
        (["compare", "missing.zarr"], 1, "missing.zarr"),
        (["rdm", "missing.zarr"], 1, "missing.zarr"),
        (["probe", "missing.zarr"], 1, "missing.zarr"),
        (["compare", "run.zarr", "--plugin", "no_such_module"], 2, "no_such_module"),
        (["reproduce", "--plugin", "no_such_module"], 2, "no_such_module"),
        (["rdm", "run.zarr", "--out", "x.gif"], 2, ".png, .svg, .pdf, .csv or .json"),
        (["import", "missing.npz", "--out", "new.zarr"], 1, "missing.npz"),
        (["export", "missing.zarr", "--out", "x.npz"], 1, "missing.zarr"),
        (["reproduce", "--claims", "C99"], 2, "C99"),
        (["reproduce", "--seeds", "0"], 2, "`seeds` to be at least 1"),
        (["reproduce", "--dataset", "lin_2"], 2, "`dataset` to be one of digits"),
        (["nonsense"], 2, "No such command"),
        (["show", "s4://x/y"], 2, ": Expected a path, or an address that begins with"),
        (["compare", "foo://a", "bar://b"], 2, ": Expected a path, or an address that"),
        (["export", "file://a", "--out", "b"], 2, ": Expected three slashes in the ad"),
        (["report", "ftp://x"], 2, ": Expected a path, or an address that begins with"),
        (["study", "--store", "ftp://x"], 2, ": Expected a path, or an address that b"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str],
    status: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPSIM_DATA", raising=False)
    assert _run(*words) == status
    said = capsys.readouterr()
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert said.err.count("Error") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_plugin_that_fails_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_plugin.py").write_text("def f(:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert _run("study", "--plugin", "broken_plugin") == 2
    said = capsys.readouterr().err
    assert "plugin 'broken_plugin' to import, but got SyntaxError" in said
    assert "Traceback" not in said


def test_a_file_where_the_folder_should_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "study"
    taken.write_text("mine")
    assert _run("study", "--out", str(taken), *QUICK) == 1
    assert "is a file" in capsys.readouterr().err
    assert taken.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["compare", "run.zarr", "--step", "7"], 2, "run.zarr holds a single moment"),
        (["compare", "run.zarr", "--layers", ","], 2, "of hidden_1, but got ''."),
        (["compare", "run.zarr", "--device", "foo"], 2, "`device` to work here"),
        (["compare", "run.zarr", "--out", "text.txt/x.png"], 1, "a folder at text.txt"),
        (["compare", "text.txt"], 1, "a file of another kind"),
        (["compare", "bad.zarr"], 1, "bad.zarr/zarr.json to be a zarr v3 document"),
        (["probe", "run.zarr", "--C", "-1"], 2, "`C` to be positive and finite"),
        (["probe", "run.zarr", "--test-size", "2"], 2, "`test_size` to be between"),
        (["probe", "run.zarr", "--repeats", "0"], 2, "`repeats` to be at least 1"),
        (["probe", "run.zarr", "--seed", "-1"], 2, "`seed` between 0 and"),
        (["probe", "run.zarr", "--class-weight", "b"], 2, "`class_weight` to be one"),
        (["probe", "run.zarr", "--control", "suffled"], 2, "Did you mean 'shuffled'?"),
        (["import", "bad.csv", "--out", "n.zarr"], 1, "bad.csv to be a table, but"),
        (["import", "three.npy", "--out", "n.zarr"], 1, "--axes 'example token unit'"),
        (["import", "three.npy", "--out", "n.zarr", "--axes", "a"], 2, "and axes 'a'"),
        (
            ["import", "three.npy", "--out", "n.zarr", "--axes", "subject a channel"],
            2,
            "to name each axis, condition and channel",
        ),
        (["report", "run.zarr", "--jobs", "0"], 2, "`jobs` to be at least 1"),
        (["export", "run.zarr", "--out", "text.txt/x.npz"], 1, "to read or write text"),
    ],
)
def test_one_kind_of_mistake_has_one_exit_status(
    words: list[str],
    status: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """2 where an argument cannot be, 1 where the arguments meet what cannot be used."""
    monkeypatch.chdir(tmp_path)
    values = np.eye(8, 3)
    run = repsim.from_arrays({"hidden_1": values}, labels=[0, 1] * 4)
    repsim.save_recording(run, "run.zarr")
    np.save("three.npy", np.arange(120.0).reshape(4, 5, 6))
    Path("text.txt").write_text("hello")
    Path("bad.csv").write_text("a,b\n1\n2,3,4\n")
    Path("bad.zarr").mkdir()
    Path("bad.zarr/zarr.json").write_text("{")
    before = sorted(tmp_path.iterdir())
    assert _run(*words) == status
    said = " ".join(capsys.readouterr().err.split())
    assert sentence in said
    assert said.count("Error:") == 1
    assert "Traceback" not in said and "[Errno" not in said and "\x1b" not in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--measure", "ckaa"], "Did you mean 'cka'?"),
        (["--layers", "hiden_1"], "Did you mean 'hidden_1'?"),
        (["--step", "7"], "--step to be last, all or one of"),
        (["--option", "kernel"], "--option NAME=VALUE"),
        (["--out", "heat.gif"], ".png, .svg, .pdf, .csv or .json"),
    ],
)
def test_compare_says_what_was_expected(
    folder: Path,
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("compare", str(folder / "runs.zarr" / "bp" / "0"), *words) == 2
    assert sentence in capsys.readouterr().err
