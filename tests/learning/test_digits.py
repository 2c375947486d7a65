"""Every rule learns the digits at depth 5, and as maps, to a stated accuracy."""

from typing import Any

import pytest

import repsim

STATED: dict[str, tuple[float, float, dict[str, Any]]] = {
    "bp": (0.9, 1e-3, {}),
    "sg": (0.9, 1e-3, {}),
    "dni": (0.9, 1e-3, {}),
    "fa": (0.9, 2e-3, {"steps": 250}),
    "dfa": (0.9, 2e-3, {}),
    "kickback": (0.9, 2e-3, {"steps": 250}),
    "noise": (0.2, 2e-3, {}),
    "local": (0.9, 2e-3, {}),
    "signsym": (0.9, 2e-3, {}),
    "kolen_pollack": (0.9, 2e-3, {}),
    "weight_mirrors": (0.9, 2e-3, {}),
    "drtp": (0.9, 2e-3, {}),
    "dtp": (0.9, 2e-3, {}),
    "pepita": (0.75, 5e-3, {"steps": 250}),
    "forward_forward": (0.85, 1e-2, {}),
    "predictive_coding": (0.9, 5e-3, {"steps": 60, "iterations": 8}),
    "equilibrium": (0.9, 5e-3, {"steps": 60, "iterations": 8}),
    "none": (0.5, 2e-3, {}),
}
"""Rule → test accuracy, learning rate, and options (`steps` is that of training)."""

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in repsim.learning.names()),
    ("sg", {"at": "every"}),
    ("sg", {"predictor": "sigmoid"}),
    ("sg", {"prop": 0.1}),
    ("sg", {"loss": "mse"}),
    ("local", {"similarity": 0.5}),
    ("dtp", {"reconstruction": "difference"}),
    ("predictive_coding", {"loss": "mse"}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_rule_learns(name: str, options: dict[str, Any]) -> None:
    least, lr, own = STATED[name]
    own = {**own, **options}
    steps = own.pop("steps", 150)
    net = repsim.networks.mlp(64, [64] * 5, seed=1)
    rule = repsim.learning.make(name, net, lr=lr, **own)
    log = repsim.train(
        rule,
        repsim.datasets.load("digits"),
        steps=steps,
        test=repsim.datasets.load("digits", "test"),
        eval_every=[steps],
        diagnostics=False,
        progress=False,
    )
    accuracy = float(log.test_accuracy[-1])
    assert accuracy >= least
    # Floors are floors: without an error below the output little is learned.
    assert name not in ("noise", "none") or accuracy < 0.9


MAPS: dict[str, tuple[float, int, dict[str, Any]]] = {
    "noise": (0.65, 80, {}),
    "none": (0.8, 80, {}),
    "drtp": (0.8, 80, {}),
    "forward_forward": (0.8, 220, {}),
    "predictive_coding": (0.9, 60, {"iterations": 8}),
    "equilibrium": (0.8, 40, {"iterations": 8}),
}
"""Rule → accuracy, updates and options; of the others (0.9, 80, {})."""


@pytest.mark.parametrize("name", repsim.learning.names())
def test_convolutions_learn(name: str) -> None:
    least, steps, options = MAPS.get(name, (0.9, 80, {}))
    pool = 1 if name == "pepita" else 2  # it takes blocks without pooling
    net = repsim.networks.cnn((1, 8, 8), [8, 16], seed=1, pool=pool)
    rule = repsim.learning.make(name, net, lr=5e-3, **options)
    log = repsim.train(
        rule,
        repsim.datasets.load("digits"),
        steps=steps,
        eval_every=[steps],
        diagnostics=False,
        progress=False,
    )
    assert float(log.accuracy[-1]) >= least
