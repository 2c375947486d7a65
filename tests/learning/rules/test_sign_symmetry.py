"""Sign symmetry: the signs of the moment go down."""

from typing import Any

import numpy as np
import torch


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("signsym")
    slow, expected = made.slow, []
    for x, y in made.examples():
        h = slow.forward(x)
        error, layers = slow_error(h[3], y), []
        for i in (2, 1, 0):
            own, _ = slow.back(i, h[i], error)
            layers.insert(0, own)
            size = np.abs(slow.weight[i]).mean()
            error = slow.gate(i, h[i], error) @ np.sign(slow.weight[i]) * size
        expected.append(layers)
    made.step(*expected)


def test_the_signs_follow_the_weights_and_the_size_does_not(first_update: Any) -> None:
    rule = first_update("signsym").rule
    before = float(rule.feedback["output"].abs().mean())
    with torch.no_grad():
        rule.network.get_submodule("output").weight.mul_(-3)
    rule.errors(torch.rand(4, 6), torch.arange(4) % 3)
    weight = rule.network.get_submodule("output").weight
    assert torch.equal(rule.feedback["output"].sign(), weight.sign())
    np.testing.assert_allclose(float(rule.feedback["output"].abs().mean()), before)
