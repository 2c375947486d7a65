"""No backpropagation: the floor."""

from typing import Any

import numpy as np
import pytest
import torch

from repsim import learning, networks


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("none")
    slow, expected = made.slow, []
    rest = [
        (np.zeros_like(slow.weight[i]), np.zeros_like(slow.bias[i])) for i in (0, 1)
    ]
    for x, y in made.examples():
        h = slow.forward(x)
        expected.append([*rest, slow.back(2, h[2], slow_error(h[3], y))[0]])
    made.step(*expected)


@pytest.mark.parametrize("optimizer", [None, torch.optim.AdamW])
def test_hidden_weights_rest_to_the_last_bit(optimizer: Any) -> None:
    rule = learning.make(
        "none", networks.mlp(6, [5, 4], 3, seed=0), optimizer=optimizer
    )
    before = [p.detach().clone() for p in rule.network.parameters()]
    for _ in range(3):
        rule.step(torch.randn(8, 6), torch.arange(8) % 3)
    moved = [
        not torch.equal(a, b)
        for a, b in zip(before, rule.network.parameters(), strict=True)
    ]
    assert moved == [False] * 8 + [True] * 2
