"""A slow reference: one example at a time, every layer's derivative by hand."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from repsim import learning, networks

Array = np.ndarray


class SlowNetwork:
    """A tanh network without normalisation, in float64, on one example."""

    def __init__(self, rule: learning.Rule) -> None:
        state = {k: v.double().numpy() for k, v in rule.network.state_dict().items()}
        self.weight = [v for k, v in state.items() if k.endswith("weight")]
        self.bias = [v for k, v in state.items() if k.endswith("bias")]
        self.depth = len(self.weight) - 1

    def layer(self, i: int, h: Array) -> Array:
        """Return what layer i, from 0, makes of its input."""
        z = self.weight[i] @ h + self.bias[i]
        return z if i == self.depth else np.tanh(z)

    def forward(self, x: Array) -> list[Array]:
        """Return the input and all outputs."""
        h = [x]
        for i in range(self.depth + 1):
            h.append(self.layer(i, h[-1]))
        return h

    def gate(self, i: int, h: Array, error: Array) -> Array:
        """Return the error in front of layer i's activation, for its input."""
        return error if i == self.depth else error * (1 - self.layer(i, h) ** 2)

    def back(self, i: int, h: Array, error: Array) -> tuple[tuple[Array, Array], Array]:
        """Return layer i's gradients, and the error at its input."""
        gated = self.gate(i, h, error)
        return (np.outer(gated, h), gated), gated @ self.weight[i]


def output_error(output: Array, label: int) -> Array:
    """Return softmax minus one-hot."""
    share = np.exp(output - output.max())
    share /= share.sum()
    share[label] -= 1
    return share


class FirstUpdate:
    """A rule's first update by plain gradient descent, and what it started from."""

    lr = 0.1

    def __init__(self, name: str, **options: Any) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(7, 6, generator=generator)
        self.y = torch.randint(0, 3, (7,), generator=generator)
        net = networks.mlp(6, [5, 4], 3, "tanh", False, seed=0)
        self.rule = learning.make(
            name, net, lr=self.lr, optimizer=torch.optim.SGD, **options
        )
        self.slow = SlowNetwork(self.rule)

    def examples(self) -> Iterator[tuple[Array, int]]:
        """Yield one example after another."""
        for x, y in zip(self.x, self.y, strict=True):
            yield x.double().numpy(), int(y)

    def step(self, *expected: list[tuple[Array, Array]]) -> dict[str, torch.Tensor]:
        """Make the update; hold it against a list of layers' gradients per example."""
        losses = self.rule.step(self.x, self.y)
        after = SlowNetwork(self.rule)
        for i in range(self.slow.depth + 1):
            for kind in (0, 1):
                before = (self.slow.weight, self.slow.bias)[kind][i]
                grad = sum(layers[i][kind] for layers in expected) / len(self.x)
                found = (after.weight, after.bias)[kind][i]
                np.testing.assert_allclose(
                    found, before - self.lr * grad, rtol=0, atol=1e-6
                )
        return losses


@pytest.fixture
def first_update() -> type[FirstUpdate]:
    """The class, which tests of this folder cannot import."""
    return FirstUpdate


@pytest.fixture
def slow_error() -> Any:
    """The error at the output, of one example."""
    return output_error
