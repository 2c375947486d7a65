"""A study whose networks, rules or metrics are mended under the same name."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.cli.training_commands import _made
from repsim.studies.completeness import of_own
from repsim.studies.own_code import changed

MINE = """
import torch
from torch import nn
import repsim

def helper(x):
    return x * 1.0

class Scaled(nn.Module):
    def forward(self, x):
        return helper(x)

def network(shape, classes, *, depth, width, activation, seed):
    torch.manual_seed(seed)
    features = shape[0] * shape[1] ** 2
    return nn.Sequential(
        nn.Sequential(nn.Flatten(), nn.Linear(features, width), Scaled(), nn.ReLU()),
        nn.Linear(width, classes),
    )

class Half(repsim.learning.Rule):
    name, cuts = "half", property(lambda self: self.hidden[:1])
    def error(self, cut):
        return cut.incoming / 2

def metric(output, y):
    return float((output.argmax(-1) == y).double().mean()) / 1

repsim.networks.register("mine", network)
repsim.learning.register("half", Half)
repsim.learning.register(
    "halves", lambda network, lr=1e-2, seed=0: Half(network, lr=lr)
)
"""
GIVEN: dict[str, Any] = {
    "conditions": ["bp"], "seeds": 1, "plugins": ["own_code_mine"], "out": "s",
    "steps": 2, "lr": 1e-2, "depth": 1, "width": 4, "examples": 12, "jobs": 1,
    "progress": False, "network": "mine",
}  # fmt: skip
NAME = "own_code_mine"
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return what writes a plugin and runs a study of it; it gives what went wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def study(text: str = MINE, **options: Any) -> str:
        (tmp_path / f"{NAME}.py").write_text(text)
        forget()
        importlib.invalidate_caches()
        try:
            repsim.run_study(**(GIVEN | options))
        except ValueError as error:
            return str(error)
        return ""

    yield study
    forget()


def forget() -> None:
    """Forget what the plugin registered, as a new process would."""
    sys.modules.pop(NAME, None)
    for registry, name in (
        (repsim.networks, "mine"),
        (repsim.learning, "half"),
        (repsim.learning, "halves"),
    ):
        if name in registry.names():
            registry.unregister(name)


def test_a_mended_network_is_no_longer_the_study_s(run: Run, tmp_path: Path) -> None:
    assert run() == ""
    before = (tmp_path / "s/study.json").read_text()
    comments = MINE.replace("x * 1.0", "x  *  1.0  # as it is")
    assert run(comments) == ""  # found whole
    given = GIVEN | {"seeds": 2}
    subprocess.run(  # another process goes on
        [
            *(sys.executable, "-B", "-P", "-c"),
            "import sys; sys.path.insert(0, '.'); import repsim\n"
            f"if __name__ == '__main__': repsim.run_study(**{given!r})",
        ],
        check=True,
    )
    code = json.loads(before)["spec"]["code"]
    now = json.loads((tmp_path / "s/study.json").read_text())
    assert now["spec"]["code"] == code
    mended = MINE.replace("x * 1.0", "x * 1.5")
    for seeds in (1, 2, 3):
        sentence = run(mended, seeds=seeds)
        assert "but its network 'mine' has changed; choose another `out`" in sentence
    assert run(mended, out="t", seeds=1) == ""
    # The way out for who knows better, as the sentence says.
    now["spec"].pop("code")
    (tmp_path / "s/study.json").write_text(json.dumps(now))
    assert run(mended, seeds=2) == ""


def test_a_mended_rule_or_metric_is_no_longer_the_study_s(run: Run) -> None:
    options: dict[str, Any] = {
        "conditions": ["bp", "half", "halves"], "network": f"{NAME}:network",
        "metric": f"{NAME}:metric",
    }  # fmt: skip
    assert run(**options) == ""
    assert run(**options) == ""
    for old, new, what in (
        ("incoming / 2", "incoming / 3", "rule 'half'"),
        ("network, lr=lr)", "network, lr=2 * lr)", "rule 'halves'"),
        (".mean()) / 1", ".mean()) / 2", f"metric '{NAME}:metric'"),
        ("nn.ReLU()", "nn.GELU()", f"network '{NAME}:network'"),
    ):
        assert old in MINE
        sentence = run(MINE.replace(old, new), **options)
        assert f"but its {what} has changed" in sentence
    # Not asked for in this call, but a part of the study that would be continued.
    options |= {"conditions": ["bp"], "seeds": 2}
    sentence = run(MINE.replace("incoming / 2", "incoming / 3"), **options)
    assert "but its rule 'half' has changed" in sentence


def test_a_function_without_a_file_is_told_by_what_it_does(tmp_path: Path) -> None:
    """As in a notebook, whose cell runs again, mended or not."""
    text = (
        "def cell(shape, classes, *, depth, width, activation, seed):\n"
        "    net = repsim.networks.cnn(shape, [width] * depth, classes, seed=seed)\n"
        "    return net{}\n"
    )

    def run(end: str, seeds: int, jobs: int = 1, out: str = "s") -> None:
        space: dict[str, Any] = {"__name__": "__main__", "repsim": repsim}
        exec(text.format(end), space)  # noqa: S102
        repsim.networks.register("cell", space["cell"])
        try:
            repsim.run_study(
                ["bp"], seeds=seeds, out=tmp_path / out, network="cell", steps=2,
                lr=1e-2, depth=1, width=4, examples=12, jobs=jobs, progress=False,
            )  # fmt: skip
        finally:
            repsim.networks.unregister("cell")

    run("", 1)
    run("  # the same", 1)
    run("", 2, jobs=2)
    with pytest.raises(ValueError, match="but its network 'cell' has changed"):
        run(".double().float()", 1)
    run(".double().float()", 1, out="t")


def test_of_what_is_one_s_own_the_command_does_not_judge_by_names(
    run: Run, tmp_path: Path
) -> None:
    """It looks before torch is imported, when own data have no hash yet."""
    rows = np.eye(3, dtype="float32")[np.arange(30) % 3]
    data = xr.Dataset(
        {
            "features": (("example", "feature"), rows),
            "label": ("example", np.arange(30) % 3),
        }
    )
    settings: dict[str, Any] = {"steps": 1, "lr": 1e-2, "depth": 1, "width": 4}
    rest = {"seeds": 1, "jobs": 1, "examples": 12, "progress": False}
    for out, given in (
        ("shipped", {}),
        ("data", {"dataset": (data, data)}),
        ("code", {"metric": lambda output, y: 0.5}),
    ):
        repsim.run_study(["bp"], out=out, **settings, **rest, **given)
        assert of_own(tmp_path / out) == (out != "shipped")
    assert not of_own(tmp_path / "nothing")
    options = {**settings, "examples": 12}
    dataset = "given"
    assert _made(("bp",), dataset, 1, tmp_path / "data", None, options) is None


def test_of_another_python_s_byte_code_nothing_is_known() -> None:
    assert changed({"a": "x:1", "b": "x:2"}, {"a": "x:1", "b": "x:3"}) == "b"
    assert changed({"a": "x:1", "new": "x:2"}, {"a": "y:5", "gone": "x:3"}) is None


def test_what_ships_leaves_no_hash(tmp_path: Path) -> None:
    repsim.run_study(
        ["bp"], seeds=1, out=tmp_path, network="cnn", steps=1, lr=1e-2, depth=1,
        width=4, examples=12, jobs=1, progress=False,
    )  # fmt: skip
    assert json.loads((tmp_path / "study.json").read_text())["spec"]["code"] == {}
