"""Difference target propagation: targets through learned inverses."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
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


def test_the_difference_reconstruction_is_the_slow_references() -> None:
    """Three hidden blocks; each example and inverse apart, gradients by differences."""
    net = networks.mlp(5, [4, 3, 4], 2, "tanh", False, seed=1).double()
    sigma, damping, eps = 0.3, 0.5, 1e-6
    options = {"lr": 0.1, "optimizer": torch.optim.SGD, "sigma": sigma, "seed": 4}
    rule = learning.make(
        "dtp", net, reconstruction="difference", damping=damping, **options
    )
    x = torch.randn(3, 5, dtype=torch.float64)
    rule.check(x, torch.tensor([0, 1, 0]))  # builds the inverses
    blocks = [deepcopy(rule.blocks[f"hidden_{i}"]) for i in (1, 2, 3)]
    inverses = [
        [p.detach().numpy() for p in rule.inverses[f"hidden_{i}"].parameters()]
        for i in (1, 2)
    ]
    before = [[p.copy() for p in pair] for pair in inverses]
    with torch.no_grad():
        acts = [x]
        for block in blocks:
            acts.append(block(acts[-1]))
        h = [a.numpy() for a in acts[1:]]
    generator = torch.Generator().manual_seed(4)

    def noise(width: int) -> np.ndarray:
        return sigma * torch.randn(3, width, generator=generator).double().numpy()

    def down(n: int, i: int, top: np.ndarray, g: Any) -> np.ndarray:
        for j in range(1, i - 1, -1):
            w, c = g[j]
            top = h[j][n] + (w @ top + c) - (w @ h[j + 1][n] + c)
        return top

    # The cut nearest to the output learns first.
    draws = {i: (noise(h[i].shape[1]), noise(4)) for i in (1, 0)}

    def loss(i: int, g: Any) -> float:
        total = 0.0
        for n in range(3):
            low = h[i][n] + draws[i][0][n]
            with torch.no_grad():
                top = torch.tensor(low)
                for block in blocks[i + 1 :]:
                    top = block(top[None])[0]
            total += ((down(n, i, top.numpy(), g) - low) ** 2).sum()
            high = h[2][n] + draws[i][1][n]
            total += damping * ((down(n, i, high, g) - h[i][n]) ** 2).sum()
        return total / sigma**2 / 3

    rule.step(x, torch.tensor([0, 1, 0]))
    for i in (0, 1):
        for k, after in enumerate(rule.inverses[f"hidden_{i + 1}"].parameters()):
            for at in np.ndindex(*after.shape):
                ends = []
                for sign in (1, -1):
                    g = [[p.copy() for p in pair] for pair in before]
                    g[i][k][at] += sign * eps
                    ends.append(loss(i, g))
                slope = (ends[0] - ends[1]) / (2 * eps)
                expected = before[i][k][at] - 0.1 * slope
                np.testing.assert_allclose(after.detach()[at], expected, atol=1e-7)


def test_the_difference_reconstruction_finds_the_pseudo_inverse() -> None:
    """On linear blocks the way down tends to J' (J J' + damping)^-1, from the paper."""
    net = networks.mlp(6, [5, 3], 2, "identity", False, seed=0)
    rule = learning.make(
        "dtp", net, lr=1e-6, inverse_lr=5e-3, sigma=0.5, damping=0.2,
        reconstruction="difference",
    )  # fmt: skip
    x, y = torch.randn(500, 6), torch.arange(500) % 2
    for _ in range(500):
        rule.step(x, y)
    w = next(net.hidden_2.parameters()).detach().double()
    damped = w.T @ torch.linalg.inv(w @ w.T + 0.2 * torch.eye(3).double())
    inverse = next(rule.inverses["hidden_1"].parameters()).detach().double()
    assert (inverse - damped).norm() < 0.05 * damped.norm()


def test_wrong_options() -> None:
    net = networks.mlp(6, [5, 5], 3)
    with pytest.raises(ValueError, match="Did you mean 'difference'"):
        learning.make("dtp", net, reconstruction="diference")
    with pytest.raises(ValueError, match="Expected `sigma` above 0 with recon"):
        learning.make("dtp", net, reconstruction="difference", sigma=0)


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
