"""Predictive coding: activities settle, then weights learn."""

from typing import Any

import numpy as np
import pytest
import torch

from repsim import learning, networks


def _settled(slow: Any, slow_error: Any, x: Any, y: int, nudge: float) -> Any:
    """Return the activities after five steps of .2 down the energy, layer by layer."""
    _, *s, _ = slow.forward(x)
    for _ in range(5):
        below = [x, *s]
        gaps = [s[i] - slow.layer(i, below[i]) for i in range(2)]
        output = nudge * slow_error(slow.layer(2, s[1]), y)
        pull_1 = gaps[0] - slow.gate(1, s[0], gaps[1]) @ slow.weight[1]
        pull_2 = gaps[1] + output @ slow.weight[2]
        s = [s[0] - 0.2 * pull_1, s[1] - 0.2 * pull_2]
    return s


def _layers(slow: Any, slow_error: Any, x: Any, y: int, nudge: float) -> Any:
    """Return the gradients of the energy by all weights at the settled activities."""
    s = _settled(slow, slow_error, x, y, nudge)
    below = [x, *s]
    errors = [slow.layer(i, below[i]) - s[i] for i in range(2)]
    errors.append(nudge * slow_error(slow.layer(2, s[1]), y))
    return [slow.back(i, below[i], errors[i])[0] for i in range(3)]


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("predictive_coding", iterations=5, step_size=0.2)
    expected = [_layers(made.slow, slow_error, x, y, 1.0) for x, y in made.examples()]
    made.step(*expected)


def test_two_nudges_are_the_slow_references(first_update: Any, slow_error: Any) -> None:
    made = first_update("equilibrium", beta=0.5, iterations=5, step_size=0.2)
    expected = []
    for x, y in made.examples():
        up, down = (_layers(made.slow, slow_error, x, y, b) for b in (0.5, -0.5))
        pairs = zip(up, down, strict=True)
        expected.append([(a[0] - b[0], a[1] - b[1]) for a, b in pairs])
    made.step(*expected)


def test_one_nudge_is_the_slow_references(first_update: Any, slow_error: Any) -> None:
    options = {"beta": 0.5, "iterations": 5, "step_size": 0.2}
    made = first_update("equilibrium", centred=False, **options)
    expected = []
    for x, y in made.examples():
        up = _layers(made.slow, slow_error, x, y, 0.5)
        expected.append([(2 * weight, 2 * bias) for weight, bias in up])
    made.step(*expected)


def test_three_phases_are_wrong_by_the_nudge_squared_and_two_by_the_nudge() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(9, 6, generator=generator).double(), torch.arange(9) % 3

    def gradient(name: str, **options: Any) -> Any:
        net = networks.mlp(6, [5, 4], 3, "tanh", False, seed=0).double()
        learning.make(name, net, **options).accumulate(x, y)
        grads = [p.grad for p in net.parameters()]
        return torch.cat([g.flatten() for g in grads if g is not None])

    exact = gradient("bp")
    for centred, order in ((True, 4.0), (False, 2.0)):
        near, far = (
            (gradient("equilibrium", beta=b, centred=centred, iterations=200) - exact)
            for b in (0.02, 0.04)
        )
        ratio = float(far.norm() / near.norm())
        assert abs(ratio / order - 1) < 0.05, (centred, ratio)


def test_small_nudges_and_long_settling_are_backpropagation() -> None:
    x, y = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 3
    rules = [
        learning.make(
            name, networks.mlp(6, [5, 4], 3, "tanh", False, seed=0).double(), **options
        )
        for name, options in (
            ("bp", {}),
            ("equilibrium", {"beta": 1e-3, "iterations": 400}),
        )
    ]
    for rule in rules:
        rule.accumulate(x, y)
    pairs = zip(*(rule.network.parameters() for rule in rules), strict=True)
    for exact, found in pairs:
        torch.testing.assert_close(found.grad, exact.grad, rtol=1e-4, atol=1e-6)
    for used, true in rules[1].errors(x, y).values():
        np.testing.assert_allclose(used.numpy(), true.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["predictive_coding", "equilibrium"])
def test_statistics_move_once_and_wrong_options_are_refused(name: str) -> None:
    net = networks.mlp(6, [5, 4], 3, seed=0)
    rule = learning.make(name, net, iterations=3)
    rule.step(torch.randn(9, 6), torch.arange(9) % 3)
    assert int(net.get_submodule("hidden_2.norm").num_batches_tracked) == 1
    with pytest.raises(ValueError, match="`iterations`"):
        learning.make(name, net, iterations=0)
    with pytest.raises(ValueError, match="Expected `step_size` to be a positive"):
        learning.make(name, net, step_size=-1)
    with pytest.raises(ValueError, match="Expected `beta` to be a positive"):
        learning.make("equilibrium", net, beta=0)
    with pytest.raises(TypeError, match="Expected `centred` to be True or False"):
        learning.make("equilibrium", net, centred=1)
