"""A rule's state is all that a later run needs."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim import learning, networks


def _mlp() -> nn.Module:
    return networks.mlp(5, [6, 6, 6], 3, seed=0)


def _dropped() -> nn.Module:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.3), nn.ReLU()) for _ in "abc"]
    return nn.Sequential(*blocks, nn.Linear(5, 3))


def _batch(k: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(k)
    return torch.randn(8, 5, generator=g), torch.randint(0, 3, (8,), generator=g)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)


CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in learning.names()),
    ("sg", {"at": "every", "targets": 0.5}),
    ("sg", {"predictor": "mlp", "predictor_hidden": (4,), "at": [1, 3]}),
    ("sg", {"predictor": "sigmoid", "optimizer": torch.optim.RMSprop}),
]


@pytest.mark.parametrize("make", [_mlp, _dropped])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_run_continues_bit_for_bit(
    name: str, options: dict[str, Any], make: Callable[[], nn.Module]
) -> None:
    whole = learning.make(name, make(), **options)
    for k in range(5):
        whole.step(*_batch(k))
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    for k in range(5, 9):
        whole.step(*_batch(k))
    torch.manual_seed(99)
    network = make()
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    later = learning.make(name, network, **options)
    file.seek(0)
    later.load_state_dict(torch.load(file, weights_only=True))
    assert later.steps == 5
    for k in range(5, 9):
        later.step(*_batch(k))
    assert _equal(whole.state_dict(), later.state_dict())
    assert _equal(whole.initial, later.initial)


def test_runs_continue_in_another_process_bit_for_bit(tmp_path: Path) -> None:
    script = Path(__file__).with_name("continue_runs.py")
    spec = spec_from_file_location("continue_runs", script)
    assert spec is not None and spec.loader is not None
    runs = module_from_spec(spec)
    spec.loader.exec_module(runs)
    states, ends = {}, {}
    for case in runs.CASES:
        rule = runs.rule_of(case, seed=0)
        runs.run(rule, case, 0, runs.MADE)
        states[case] = rule.state_dict()
        runs.run(rule, case, runs.MADE, runs.MADE + runs.LEFT)
        ends[case] = rule.state_dict()
        assert not _equal(states[case]["network"], ends[case]["network"])
    torch.save(states, tmp_path / "states.pt")
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-P", str(script), str(tmp_path)]
    subprocess.run(command, check=True, env=os.environ | threads)
    found = torch.load(tmp_path / "ends.pt", weights_only=True)
    assert found.keys() == ends.keys()
    assert {case.split()[0] for case in ends} >= set(learning.names())
    assert [case for case in ends if not _equal(found[case], ends[case])] == []


def test_a_state_is_a_copy() -> None:
    rule = learning.make("sg", _mlp())
    state = rule.state_dict()
    before = state["network"]["output.weight"].clone()
    rule.step(*_batch(0))
    assert torch.equal(state["network"]["output.weight"], before)
    rule.load_state_dict(state)
    rule.step(*_batch(0))
    assert torch.equal(state["network"]["output.weight"], before)


def test_a_convolutional_state_needs_no_first_step() -> None:
    def make() -> learning.Rule:
        return learning.make("dfa", networks.cnn((1, 6, 6), [3, 4], 3, seed=0), seed=4)

    rule = make()
    x, y = torch.randn(8, 1, 6, 6), torch.arange(8) % 3
    rule.step(x, y)
    later = make()
    later.load_state_dict(rule.state_dict())
    rule.step(x, y)
    later.step(x, y)
    assert _equal(rule.state_dict(), later.state_dict())


def test_another_rules_state_is_refused() -> None:
    state = learning.make("bp", _mlp()).state_dict()
    with pytest.raises(ValueError, match="Expected a state of rule 'sg', but got 'bp'"):
        learning.make("sg", _mlp()).load_state_dict(state)
    with pytest.raises(ValueError, match="Expected a state of options"):
        learning.make("bp", _mlp(), lr=1.0).load_state_dict(state)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    rule = learning.make("bp", _mlp())
    good = rule.state_dict()
    other = learning.make("bp", networks.mlp(5, [6, 7, 6], 3)).state_dict()
    deeper = learning.make("bp", networks.mlp(5, [6] * 4, 3)).state_dict()
    lacking = {k: v for k, v in good.items() if k != "steps"}
    for state, message in (
        (
            other,
            "same network, but 'hidden_2.linear.weight' has the shape .7, 6. there",
        ),
        (
            deeper,
            r"'hidden_4.linear.weight' has the shape .* and none \(it is missing\)",
        ),
        (lacking, "Expected a rule's state, but it lacks steps"),
        ({}, "Expected a rule's state, but it lacks rule, options"),
    ):
        with pytest.raises(ValueError, match=message):
            rule.load_state_dict(state)
        assert _equal(rule.state_dict(), good)
    with pytest.raises(TypeError, match="Expected `state` to be a rule's state_dict"):
        rule.load_state_dict(None)  # type: ignore[arg-type]


def test_seeds_decide_feedback_and_noise() -> None:
    for name in ("fa", "dfa", "noise"):
        found = []
        for seed in (0, 0, 1):
            torch.manual_seed(len(found))
            rule = learning.make(name, _mlp(), seed=seed)
            rule.step(*_batch(0))
            rule.step(*_batch(1))
            found.append(rule.state_dict()["network"])
        assert _equal(found[0], found[1]) and not _equal(found[0], found[2]), name
