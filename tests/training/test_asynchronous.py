"""Segments in processes of their own: what is learned, logged, replayed and refused."""

import multiprocessing
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import repsim
from repsim.training import replay
from repsim.training.order import as_tensors
from repsim.training.segment_groups import shared_out

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"
)


def _children() -> list[multiprocessing.Process]:
    """Return processes of ours that still run; joblib keeps its own for later."""
    children = multiprocessing.active_children()
    return [child for child in children if not child.name.startswith("LokyProcess")]


def _rule(name: str, depth: int = 4, **options: Any) -> repsim.learning.Rule:
    net = repsim.networks.mlp(64, [32] * depth, seed=0)
    return repsim.learning.make(name, net, **{"lr": 3e-3, **options})


def _train(rule: repsim.learning.Rule, steps: int = 120, **changes: Any) -> xr.Dataset:
    options = {"eval_every": 60, "progress": False, "diagnostics": False, "workers": 2}
    data = repsim.datasets.load("digits")
    return repsim.train(rule, data, steps, **{**options, **changes})


def _same(a: repsim.learning.Rule, b: repsim.learning.Rule) -> bool:
    x, y = a.network.state_dict(), b.network.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)


CASES: list[tuple[str, dict[str, Any], int]] = [
    ("sg", {}, 2),
    ("dni", {"at": "every"}, 3),
    ("local", {}, 2),
    ("dfa", {}, 3),
]


@pytest.mark.parametrize(("name", "options", "workers"), CASES)
def test_it_learns_and_is_replayed_to_the_last_bit(
    name: str, options: dict[str, Any], workers: int
) -> None:
    rule, again = (_rule(name, **options) for _ in "ab")
    log = _train(rule, workers=workers)
    assert _children() == []
    assert float(log.accuracy[-1]) > (0.5 if name == "dni" else 0.9)
    assert rule.steps == 120 and log.attrs["workers"] == workers
    late = log.staleness
    assert late.dims == ("worker", "update") and late.shape == (workers, 120)
    assert late["update"].values.tolist() == list(range(1, 121))
    waiting = late[: 0 if name == "local" else -1].values
    assert (waiting >= 0).all() and (late[-1].values == -1).all()
    # All meet at step 60, so that nothing of the first half is taken in the second.
    assert (waiting[:, :60] + np.arange(60) <= 59).all()
    held = [str(segments).split(", ") for segments in late["segments"].values]
    assert [s for part in held for s in part] == [s.name for s in rule.segments]
    replay(again, repsim.datasets.load("digits"), late)
    assert again.steps == 120 and _same(rule, again)


def test_a_run_on_maps_is_replayed_from_arrays() -> None:
    rule, again = (
        repsim.learning.make(
            "local", repsim.networks.cnn((1, 8, 8), [4, 4], seed=0), lr=3e-3
        )
        for _ in "ab"
    )
    log = _train(rule, 20, batch_size=32, seed=5)
    data = as_tensors(repsim.datasets.load("digits"), again.network)
    replay(again, data, log["staleness"].values, batch_size=32, seed=5)
    assert _same(rule, again)


def test_a_run_goes_on_from_its_state_in_one_process() -> None:
    rule = _rule("sg")
    _train(rule)
    later = _rule("sg")
    later.load_state_dict(rule.state_dict())
    assert _same(rule, later)
    for made in (rule, later):
        log = _train(made, 130, start=120, workers=None)
    assert "staleness" not in log
    assert _same(rule, later)


def test_a_recorder_sees_every_due_step() -> None:
    rule = _rule("sg")
    data = repsim.datasets.load("digits", limit=20)
    inputs, _ = as_tensors(data, rule.network)
    seen: list[int] = []
    with repsim.Recorder(rule.network, inputs, every=25) as recorder:
        log = _train(
            rule,
            callbacks=[recorder, lambda step, losses: seen.append(step)],
            eval_every=[120],
        )
    run = recorder.dataset()
    assert run["step"].values.tolist() == [0, 25, 50, 75, 100]
    assert seen == [25, 50, 75, 100, 120] and log["step"].values.tolist() == [120]
    moved = np.abs(run["hidden_1"].diff("step")).max(("example", "hidden_1_unit"))
    assert (moved > 0).all()


@pytest.mark.parametrize("name", ["bp", "fa", "kickback", "predictive_coding"])
def test_locked_rules_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"not locked for `workers`, but rule '{name}'"
    ):
        _train(_rule(name))


def test_no_more_workers_than_segments() -> None:
    for name, advice in (("sg", "cut at more layers with at="), ("none", "take fewer")):
        with pytest.raises(ValueError, match=f"up to the 2 segments of .*; {advice}"):
            _train(_rule(name), workers=3)
    with pytest.raises(ValueError, match="`workers`"):
        _train(_rule("sg"), workers=0)


def test_parts_are_neighbours_of_about_equal_size() -> None:
    rule = _rule("local", 9)
    parts = shared_out(rule.segments, 3)
    assert [s for part in parts for s in part] == rule.segments
    sizes = [sum(p.numel() for s in part for p in s.parameters) for part in parts]
    largest = max(sum(p.numel() for p in s.parameters) for s in rule.segments)
    assert max(sizes) <= sum(sizes) / 3 + largest / 2
    assert [len(part) for part in shared_out(rule.segments, 10)] == [1] * 10


def test_a_dead_worker_ends_the_run_at_the_checkpoint() -> None:
    rule, twin = _rule("local"), _rule("local")

    def kill(step: int, losses: Any) -> None:
        _children()[0].kill()

    with pytest.raises(
        ValueError, match=r"worker \d of 2, .* exit code -9; the rule is"
    ):
        _train(rule, callbacks=[kill])
    assert _children() == []
    assert rule.steps == 60
    _train(twin, 60)
    assert _same(rule, twin)
    log = _train(rule, start=60)
    assert float(log.accuracy[-1]) > 0.9


def test_ctrl_c_leaves_nothing_behind() -> None:
    rule = _rule("sg")

    def interrupt(step: int, losses: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(rule, callbacks=[interrupt])
    assert _children() == [] and rule.steps == 60


def test_a_loss_that_is_nan_in_one_segment_is_one_sentence() -> None:
    rule = _rule("local", lr=1e-2)

    def poison(step: int, losses: Any) -> None:
        x[:] = float("inf")

    x, y = as_tensors(repsim.datasets.load("digits"), rule.network)
    x = x.clone().share_memory_()
    with pytest.raises(ValueError, match="stopped at step|Expected a finite loss"):
        repsim.train(
            rule, (x, y), 120, workers=2, eval_every=60, progress=False,
            diagnostics=False, callbacks=[poison],
        )  # fmt: skip
    assert _children() == [] and rule.steps == 60
    exploding = _rule("sg", optimizer=torch.optim.SGD, lr=1e30)
    with pytest.raises(repsim.learning.Diverged, match="up to 'output'; try a smaller"):
        _train(exploding)
    assert _children() == [] and exploding.steps == 0


def test_an_impossible_order_is_refused() -> None:
    rule = _rule("sg")
    data = as_tensors(repsim.datasets.load("digits"), rule.network)
    with pytest.raises(
        ValueError, match="an order of events in which all workers wait"
    ):
        # The lower worker wants a message of a batch which the upper never sends down.
        replay(rule, data, np.array([[-1, -1], [0, 0]]))
    with pytest.raises(ValueError, match=r"`staleness` of shape \(workers, updates\)"):
        replay(rule, data, np.array([0, 0]))
