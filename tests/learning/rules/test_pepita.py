"""PEPITA: what the error changes on the way up."""

from typing import Any

import numpy as np
import pytest
import torch

from repsim import learning, networks


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("pepita", scale=2.0)
    slow, projection = made.slow, made.rule.projection.double().numpy()
    expected = []
    for x, y in made.examples():
        h = slow.forward(x)
        error = slow_error(h[3], y)
        moved = slow.forward(x + error @ projection)
        errors = [h[1] - moved[1], h[2] - moved[2], error]
        expected.append([(np.outer(errors[i], moved[i]), errors[i]) for i in range(3)])
    made.step(*expected)


def test_the_projection_has_the_size_the_docstring_says() -> None:
    rule = learning.make("pepita", networks.mlp(400, [3], 50, seed=0), scale=0.5)
    expected = 0.5 * (2 / 400) ** 0.5
    assert float(rule.projection.std()) == pytest.approx(expected, rel=0.05)


def test_normalisation_counts_the_first_pass_and_rests() -> None:
    net = networks.mlp(6, [5], 3, seed=0)
    rule = learning.make("pepita", net)
    scale = net.get_submodule("hidden_1.norm").weight
    rule.step(torch.randn(8, 6), torch.arange(8) % 3)
    assert int(net.get_submodule("hidden_1.norm").num_batches_tracked) == 1
    assert torch.equal(scale, torch.ones(5))


def test_convolutions_without_pooling() -> None:
    net = networks.cnn((1, 6, 6), [3, 4], 3, pool=1, seed=0)
    rule = learning.make("pepita", net)
    before = net.get_submodule("hidden_1.conv").weight.detach().clone()
    rule.step(torch.randn(8, 1, 6, 6), torch.arange(8) % 3)
    assert not torch.equal(before, net.get_submodule("hidden_1.conv").weight)


def test_blocks_for_which_it_is_not_defined_are_refused() -> None:
    rule = learning.make("pepita", networks.cnn((1, 6, 6), [3], 3, seed=0))
    with pytest.raises(ValueError, match="'hidden_1' to end with the shape .3, 6, 6."):
        rule.step(torch.randn(8, 1, 6, 6), torch.arange(8) % 3)
    two = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 5))
    net = torch.nn.Sequential(two, torch.nn.Linear(5, 3))
    with pytest.raises(ValueError, match="one linear layer or convolution each for"):
        learning.make("pepita", net)
    with pytest.raises(ValueError, match="Expected `scale` to be a positive"):
        learning.make("pepita", networks.mlp(4, [3], 2), scale=0)
