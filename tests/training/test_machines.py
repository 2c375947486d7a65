"""Segments in processes that torch.distributed has joined: gloo, two on one machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import repsim
from repsim.training import replay
from repsim.training.order import as_tensors


def _rule(name: str) -> repsim.learning.Rule:
    net = repsim.networks.mlp(64, [32] * 4, seed=0)
    return repsim.learning.make(name, net, lr=3e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where two processes have left what they trained."""
    folder = tmp_path_factory.mktemp("machines")
    script = Path(__file__).with_name("machine.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [p.returncode for p in processes] == [0, -9], errors
    return folder


def _kept(folder: Path, name: str, rank: int) -> dict[str, Any]:
    return dict(torch.load(folder / f"{name}-{rank}.pt", weights_only=False))


@pytest.mark.parametrize("name", ["sg", "local", "dfa"])
def test_both_hold_the_rule_that_a_replay_gives(folder: Path, name: str) -> None:
    first, second = (_kept(folder, name, rank) for rank in (0, 1))
    # How late messages come, and so how well it does, hangs on the machine's load.
    assert first["accuracy"] == second["accuracy"] > 0.4
    assert first["steps"].tolist() == [0, 25, 50, 75, 100]
    late = first["late"]
    assert late.shape == (2, 120) and (late == second["late"]).all()
    assert (late[0] >= (-1 if name == "local" else 0)).all() and (late[1] == -1).all()
    again = _rule(name)
    data = as_tensors(repsim.datasets.load("digits"), again.network)
    replay(again, data, late)
    for key, value in again.network.state_dict().items():
        assert torch.equal(value, first["state"][key]), key
        assert torch.equal(value, second["state"][key]), key


def test_what_cannot_be_is_one_sentence(folder: Path) -> None:
    said = json.loads((folder / "said.json").read_text())
    assert "to be the 2 processes that torch.distributed has joined" in said["many"]
    assert "a rule that is not locked for `workers`" in said["locked"]
    assert "the same rule on the same data, but weights, batches" in said["other"]
    nan, steps = said["nan"]
    assert nan.startswith("Diverged: Expected a finite loss") and steps == 0
    assert nan.endswith("The rule is as after step 0, the last checkpoint.")


def test_a_dead_process_ends_the_run_at_the_checkpoint(folder: Path) -> None:
    killed, steps = json.loads((folder / "said.json").read_text())["killed"]
    assert "Expected all workers to live, but " in killed
    assert "the rule is as after step 60, from where train(start=60) goes on" in killed
    assert steps == 60
    left = torch.load(folder / "killed.pt")
    whole = _rule("sg").network.state_dict()
    assert all(torch.isfinite(v).all() for v in left.values())
    assert any(not torch.equal(left[k], whole[k]) for k in left)
