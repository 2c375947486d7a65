"""Kolen–Pollack: feedback that becomes the transposed weights."""

from typing import Any

import numpy as np
import pytest
import torch

from repsim import learning, networks


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("kolen_pollack", decay=0)
    slow = made.slow
    feedback = [b.double().numpy().copy() for b in made.rule.feedback.values()]
    expected = []
    for x, y in made.examples():
        h = slow.forward(x)
        error, layers = slow_error(h[3], y), []
        for i in (2, 1, 0):
            layers.insert(0, slow.back(i, h[i], error)[0])
            error = slow.gate(i, h[i], error) @ feedback[i]
        expected.append(layers)
    made.step(*expected)
    for i, (before, after) in enumerate(
        zip(feedback, made.rule.feedback.values(), strict=True)
    ):
        grad = sum(layers[i][0] for layers in expected) / 7
        np.testing.assert_allclose(after.numpy(), before - 0.1 * grad, atol=1e-6)


@pytest.mark.parametrize("optimizer", [None, torch.optim.SGD])
def test_feedback_and_weights_approach_each_other(optimizer: Any) -> None:
    net = networks.mlp(6, [5, 4], 3, seed=0).double()
    rule = learning.make("kolen_pollack", net, decay=0.1, optimizer=optimizer, lr=0.01)
    x = torch.randn(16, 6, dtype=torch.float64)
    y = torch.arange(16) % 3
    weights = {p: net.get_submodule(p).weight for p in rule.feedback}
    before = {p: (weights[p] - rule.feedback[p]).detach() for p in weights}
    for _ in range(10):
        rule.step(x, y)
    for path, gap in before.items():
        now = (weights[path] - rule.feedback[path]).detach()
        torch.testing.assert_close(now, gap * 0.9**10)


def test_wrong_decay() -> None:
    with pytest.raises(ValueError, match="Expected `decay` to be at least 0 and below"):
        learning.make("kolen_pollack", networks.mlp(4, [3], 2), decay=1)
