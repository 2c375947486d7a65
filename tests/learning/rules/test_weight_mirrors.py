"""Weight mirrors: feedback that learns the weights from noise."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from repsim import learning, networks


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("weight_mirrors", mirror_rate=0.3, samples=4, seed=5)
    slow = made.slow
    generator = torch.Generator().manual_seed(5)
    feedback = [b.double().numpy().copy() for b in made.rule.feedback.values()]
    for b, weight in zip(feedback, slow.weight, strict=True):
        noise = torch.randn(4, weight.shape[1], generator=generator).double().numpy()
        b *= 0.7
        for z in noise:
            b += 0.3 / 4 * np.outer(weight @ z, z)
    expected = []
    for x, y in made.examples():
        h = slow.forward(x)
        error, layers = slow_error(h[3], y), []
        for i in (2, 1, 0):
            layers.insert(0, slow.back(i, h[i], error)[0])
            error = slow.gate(i, h[i], error) @ feedback[i]
        expected.append(layers)
    made.step(*expected)
    for before, after in zip(feedback, made.rule.feedback.values(), strict=True):
        np.testing.assert_allclose(after.numpy(), before, atol=1e-6)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 2, (3, 1), groups=2, dilation=2, padding=(3, 0)),
        nn.Conv1d(2, 3, 2, stride=3),
    ],
)
def test_noise_shows_the_kernel_without_bias(convolution: Any) -> None:
    torch.manual_seed(0)
    size = (7, 7) if isinstance(convolution, nn.Conv2d) else (7,)
    x = torch.randn(4, convolution.in_channels, *size)
    first = nn.Sequential(convolution, nn.Flatten())
    net = nn.Sequential(first, nn.Linear(first(x).shape[1], 3))
    rule = learning.make(
        "weight_mirrors", net, mirror_rate=1, samples=60_000, optimizer=torch.optim.SGD
    )
    weight = convolution.weight.detach().clone()
    rule.step(x, torch.arange(4) % 3)
    # A tap's mean over m samples has a standard error of at most |kernel| * sqrt(2/m).
    bound = 5 * weight.flatten(1).norm(dim=1).max() * (2 / 60_000) ** 0.5
    assert (rule.feedback["0.0"] - weight).abs().max() < bound


@pytest.mark.parametrize("rate", [0, 1.5])
def test_wrong_rate(rate: float) -> None:
    with pytest.raises(ValueError, match="`mirror_rate` to be above 0 and at most 1"):
        learning.make("weight_mirrors", networks.mlp(4, [3], 2), mirror_rate=rate)
