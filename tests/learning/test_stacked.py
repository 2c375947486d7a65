"""Networks trained as one are what they are alone."""

from typing import Any

import pytest
import torch
import xarray as xr

import repsim
from repsim import learning, networks
from repsim.learning.stacked import StackedRules, can_stack
from repsim.training import train_together


def _rules(name: str, dtype: torch.dtype, **options: Any) -> list[learning.Rule]:
    options = {"lr": 1e-2, "optimizer": torch.optim.RMSprop, **options}
    return [
        learning.make(name, networks.mlp(6, [5] * 4, 3, seed=s).to(dtype), **options)
        for s in range(3)
    ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bp", {}),
        ("bp", {"loss": "mse"}),
        ("sg", {}),
        ("sg", {"at": "every"}),
        ("dni", {"at": [1, 3]}),
    ],
)
def test_steps_together_are_steps_alone(name: str, options: dict[str, Any]) -> None:
    alone, together = (_rules(name, torch.float64, **options) for _ in "ab")
    stack = StackedRules(together)
    for k in range(6):
        if k == 4:
            stack.hand_back()
        generator = torch.Generator().manual_seed(k)
        x = torch.randn(3, 9, 6, generator=generator, dtype=torch.float64)
        y = torch.randint(0, 3, (3, 9), generator=generator)
        found = (
            stack.step(x, y)
            if k < 4
            else [
                rule.step(*batch) for rule, *batch in zip(together, x, y, strict=True)
            ]
        )
        for rule, losses, *batch in zip(alone, found, x, y, strict=True):
            expected = rule.step(*batch)
            assert expected.keys() == losses.keys()
            for key, value in expected.items():
                torch.testing.assert_close(losses[key], value, rtol=1e-7, atol=1e-9)
    for a, b in zip(alone, together, strict=True):
        assert a.steps == b.steps == 6
        state, other = a.network.state_dict(), b.network.state_dict()
        for key, value in state.items():
            torch.testing.assert_close(other[key], value, rtol=1e-6, atol=1e-7)


def test_in_float32_the_first_update_is_equal_to_rounding() -> None:
    alone, together = (
        _rules("sg", torch.float32, at="every", optimizer=torch.optim.SGD) for _ in "ab"
    )
    x, y = torch.randn(3, 9, 6), torch.randint(0, 3, (3, 9))
    StackedRules(together).step(x, y)
    for a, b, *batch in zip(alone, together, x, y, strict=True):
        a.step(*batch)
        for p, q in zip(a.network.parameters(), b.network.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_stacked_is_refused_and_trained_one_by_one() -> None:
    different = [_rules("bp", torch.float32)[0], _rules("sg", torch.float32)[0]]
    rates = [_rules("bp", torch.float32, lr=lr)[0] for lr in (1e-2, 1e-3)]
    for rules in (different, rates, _rules("fa", torch.float32)):
        assert not can_stack(rules)
        with pytest.raises(
            ValueError, match="Expected rules `bp`, `sg` or `dni` of one"
        ):
            StackedRules(rules)
    with pytest.raises(
        ValueError, match="a seed and a list of callbacks for each, but"
    ):
        train_together([], repsim.datasets.load("digits"))


@pytest.mark.parametrize("name", ["sg", "fa"])
def test_records_are_those_of_runs_alone(name: str) -> None:
    def make() -> list[learning.Rule]:
        return [
            learning.make(
                name, networks.mlp(64, [8] * 3, seed=s).double(), lr=1e-2, seed=s,
                optimizer=torch.optim.SGD,
            )
            for s in (3, 4)
        ]  # fmt: skip

    data = repsim.datasets.load("digits", limit=300)
    options: dict[str, Any] = {"eval_every": 10, "progress": False, "test": data}
    seen: list[int] = []
    logs = train_together(
        make(), data, 20, seeds=[5, 6],
        callbacks=[[lambda step, losses: seen.append(step)], []], **options,
    )  # fmt: skip
    for rule, seed, log in zip(make(), (5, 6), logs, strict=True):
        alone = repsim.train(rule, data, 20, seed=seed, **options)
        drop = {"wall_s": 0}
        xr.testing.assert_allclose(log, alone, rtol=1e-6, atol=1e-8)
        assert {**log.attrs, **drop} == {**alone.attrs, **drop}
    assert seen == list(range(1, 21))
