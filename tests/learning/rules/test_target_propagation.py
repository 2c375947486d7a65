"""Difference target propagation: targets through learned inverses."""

from typing import Any

import numpy as np
import torch

from repsim import learning, networks


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("dtp", step_size=0.2, sigma=0.3, seed=3)
    slow, inverse = made.slow, made.rule.inverses["hidden_1"]
    g, c = (p.detach().double().numpy().copy() for p in inverse.parameters())
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(7, 5, generator=generator).double().numpy()
    expected, of_inverse = [], np.zeros_like(g)
    for z, (x, y) in zip(noise, made.examples(), strict=True):
        h = slow.forward(x)
        last, at_2 = slow.back(2, h[2], slow_error(h[3], y))
        target_2 = h[2] - 0.2 * at_2
        target_1 = h[1] + (g @ target_2 + c) - (g @ h[2] + c)
        error_1 = (h[1] - target_1) / 0.2
        middle, _ = slow.back(1, h[1], at_2)
        expected.append([slow.back(0, h[0], error_1)[0], middle, last])
        noisy = h[1] + 0.3 * z
        above = slow.layer(1, noisy)
        of_inverse += 2 * np.outer(g @ above + c - noisy, above) / 7
    made.step(*expected)
    np.testing.assert_allclose(
        inverse.weight.detach().numpy(), g - 0.1 * of_inverse, atol=1e-6
    )


def test_inverses_learn_to_reconstruct() -> None:
    net = networks.mlp(6, [8, 8], 3, "identity", False, seed=0)
    rule = learning.make("dtp", net, lr=1e-3, inverse_lr=1e-2)
    x, y = torch.randn(64, 6), torch.arange(64) % 3
    losses = [float(rule.step(x, y)["inverse_loss"]) for _ in range(200)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_one_hidden_block_needs_no_inverse() -> None:
    rule = learning.make("dtp", networks.mlp(6, [5], 3, seed=0))
    assert set(rule.step(torch.randn(8, 6), torch.arange(8) % 3)) == {"loss"}
    assert rule.inverses == {}


def test_inverses_of_maps_and_of_flattened_maps() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3, stride=2),
        torch.nn.Conv2d(3, 4, 2),
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 5)),
        torch.nn.Linear(5, 3),
    )
    rule = learning.make("dtp", net)
    rule.step(torch.randn(4, 1, 8, 8), torch.arange(4) % 3)
    shapes = [tuple(p.shape) for g in rule.inverses.values() for p in g.parameters()]
    assert shapes == [(3, 4, 3, 3), (3,), (16, 5), (16,)]
