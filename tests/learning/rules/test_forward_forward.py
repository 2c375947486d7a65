"""Forward–forward: goodness up on right labels, down on wrong ones."""

from typing import Any

import numpy as np
import pytest
import torch

from repsim import learning, networks


def _goodness_error(h: np.ndarray, sign: float, threshold: float) -> np.ndarray:
    """Return the derivative of log(1 + exp(±(θ − mean h²))) by h."""
    argument = sign * (threshold - (h**2).mean())
    return -sign / (1 + np.exp(-argument)) * 2 * h / h.size


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("forward_forward", threshold=0.4, seed=5)
    slow, patterns = made.slow, made.rule.patterns.double().numpy()
    drawn = torch.randint(1, 3, (7,), generator=torch.Generator().manual_seed(5))
    expected = []
    for k, (x, y) in zip(drawn.tolist(), made.examples(), strict=True):
        right = slow.forward(x + patterns[y])
        wrong = slow.forward(x + patterns[(y + k) % 3])
        plain = slow.forward(x)
        layers = []
        for i in (0, 1):
            parts = [
                slow.back(i, h[i], _goodness_error(h[i + 1], sign, 0.4))[0]
                for h, sign in ((right, 1), (wrong, -1))
            ]
            layers.append(tuple(a + b for a, b in zip(*parts, strict=True)))
        layers.append(slow.back(2, plain[2], slow_error(plain[3], y))[0])
        expected.append(layers)
    made.step(*expected)
    made = first_update("forward_forward", threshold=0.4, seed=5)
    used = made.rule.errors(made.x, made.y)["hidden_2"][0][0]
    x, y = next(made.examples())
    h = slow.forward(x + patterns[y])[2]
    np.testing.assert_allclose(used.numpy(), _goodness_error(h, 1, 0.4), atol=1e-6)


def test_labels_without_wrong_ones_are_refused() -> None:
    rule = learning.make("forward_forward", networks.mlp(4, [3], 2, seed=0))
    with pytest.raises(ValueError, match="Expected integer labels `y` for rule 'forw"):
        rule.step(torch.rand(3, 4), torch.rand(3, 2))
    with pytest.raises(ValueError, match="two classes or more for rule 'forward_forw"):
        learning.make("forward_forward", networks.mlp(4, [3], 1))
