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
    processes: list[subprocess.Popen[str]] = []
    for rank in (0, 1):
        command = [sys.executable, str(script), str(rank), str(folder)]
        group = processes[0].pid if rank else 0  # a group of their own, for Ctrl-C
        processes.append(
            subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, process_group=group
            )
        )
    errors = [process.communicate(timeout=900)[1] for process in processes]
    assert [p.returncode for p in processes] == [0, -9], errors
    assert not any("Traceback" in error for error in errors), errors
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


def test_ctrl_c_is_one_sentence_in_each_and_training_goes_on(folder: Path) -> None:
    first, second = (
        json.loads((folder / f"said-{rank}.json").read_text())["interrupted"]
        for rank in (0, 1)
    )
    sentence = "Stopped by Ctrl-C; the rule is as after step {0}, from where "
    sentence += "train(start={0}) goes on."
    at, later = first[0][2], first[1][2]
    assert 0 < at < later and at % 20 == later % 20 == 0
    # To both at once, as a terminal sends it, and then to the second one alone.
    assert first[0] == ["KeyboardInterrupt", sentence.format(at), at] == second[0]
    assert second[1] == ["KeyboardInterrupt", sentence.format(later), later]
    kind, told, _ = first[1]
    assert kind == "ValueError" and "but worker 2 of 2, which ends with block" in told
    assert told.endswith(
        f"with KeyboardInterrupt: Ctrl-C. The rule is as after step {later}, the last "
        "checkpoint."
    )
    ours, theirs = (torch.load(folder / f"interrupted-{rank}.pt") for rank in (0, 1))
    for key, value in ours["network"].items():
        assert torch.equal(value, theirs["network"][key]), key
    rule = _rule("sg")
    rule.load_state_dict(ours)
    data = repsim.datasets.load("digits")
    log = repsim.train(rule, data, later + 20, start=later, progress=False)
    assert rule.steps == later + 20 and float(log.accuracy[-1]) > 0.4


SILENT = """
import os, signal, sys
from datetime import timedelta
import torch, repsim

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2,
    timeout=timedelta(seconds=15),
)
rule = repsim.learning.make("sg", repsim.networks.mlp(64, [32] * 4, seed=0), lr=3e-3)

def hold(step, losses):
    if rank == 1 and step == 40:
        os.kill(os.getpid(), signal.SIGSTOP)

try:
    repsim.train(
        rule, repsim.datasets.load("digits"), 10**6, workers=2, progress=False,
        diagnostics=False, eval_every=range(0, 10**6, 20), callbacks=[hold],
    )
except ValueError as error:
    print(error)
os._exit(0)
"""


@pytest.mark.slow
def test_a_silent_process_is_told_after_the_timeout_of_the_group(
    tmp_path: Path,
) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", SILENT, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = both[0].communicate(timeout=900)[0]
    both[1].kill()
    both[1].communicate()
    assert "Expected all workers to live, but another process, has ended or" in said
    assert "the rule is as after step 40, from where train(start=40) goes on" in said
