"""Every rule but noise learns the digits at depth 5."""

from typing import Any

import pytest

import repsim

RATES: dict[str, float] = {"bp": 1e-3, "sg": 1e-3, "dni": 1e-3}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in repsim.learning.names()),
    ("sg", {"at": "every"}),
    ("sg", {"predictor": "sigmoid"}),
    ("sg", {"prop": 0.1}),
    ("sg", {"loss": "mse"}),
]


def _accuracy(name: str, options: dict[str, Any]) -> float:
    net = repsim.networks.mlp(64, [64] * 5, seed=1)
    rule = repsim.learning.make(name, net, lr=RATES.get(name, 2e-3), **options)
    log = repsim.train(
        rule,
        repsim.datasets.load("digits"),
        steps=250,
        test=repsim.datasets.load("digits", "test"),
        eval_every=[250],
        diagnostics=False,
        progress=False,
    )
    return float(log.test_accuracy[-1])


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_rule_but_noise_learns(name: str, options: dict[str, Any]) -> None:
    accuracy = _accuracy(name, options)
    assert (accuracy >= 0.9) == (name != "noise")
    assert accuracy > 0.2
