"""Local losses: a head at every block, and the similarities of a batch."""

from typing import Any

import numpy as np
import pytest
import torch

from repsim import learning, networks
from repsim.learning.rules.local_losses import LocalLosses, cosines


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("local")
    slow, heads = made.slow, list(made.rule.heads.values())
    weight = [head[0].weight.detach().double().numpy() for head in heads]
    bias = [head[0].bias.detach().double().numpy() for head in heads]
    expected, of_head = [], np.zeros_like(weight[0])
    for x, y in made.examples():
        h = slow.forward(x)
        layers = []
        for i in (0, 1):
            own = slow_error(weight[i] @ h[i + 1] + bias[i], y)
            layers.append(slow.back(i, h[i], own @ weight[i])[0])
            of_head += np.outer(own, h[1]) / 7 if i == 0 else 0
        layers.append(slow.back(2, h[2], slow_error(h[3], y))[0])
        expected.append(layers)
    losses = made.step(*expected)
    np.testing.assert_allclose(
        heads[0][0].weight.detach().numpy(), weight[0] - 0.1 * of_head, atol=1e-6
    )
    by_hand = torch.zeros(())
    made = first_update("local")
    h = made.x
    for name in made.rule.hidden:
        h = made.rule.blocks[name](h)
        loss = torch.nn.functional.cross_entropy(made.rule.heads[name](h), made.y)
        by_hand = by_hand + loss
    torch.testing.assert_close(losses["local_loss"], by_hand.detach())


def test_similarities_are_cosines_of_centred_examples(
    rng: np.random.Generator,
) -> None:
    rows = rng.normal(size=(5, 4))
    expected = np.corrcoef(rows)
    np.testing.assert_allclose(cosines(torch.from_numpy(rows)).numpy(), expected)


def test_the_similarity_loss_is_what_the_formula_says(first_update: Any) -> None:
    made = first_update("local", similarity=0.3)
    rule, n = made.rule, len(made.x)
    used = rule.errors(made.x, made.y)["hidden_1"][0]
    h = rule.blocks["hidden_1"](made.x).detach().double().requires_grad_()
    head, linear = rule.heads["hidden_1"].double(), rule.maps["hidden_1"].double()
    ours = torch.corrcoef(linear(h))
    theirs = torch.corrcoef(torch.nn.functional.one_hot(made.y, 3).double())
    gap = sum((ours[i, j] - theirs[i, j]) ** 2 for i in range(n) for j in range(n))
    loss = 0.7 * torch.nn.functional.cross_entropy(head(h), made.y) + 0.3 * gap / n
    (expected,) = torch.autograd.grad(loss * n, h)
    torch.testing.assert_close(used.double(), expected, rtol=1e-4, atol=1e-6)


def test_heads_read_vectors_maps_and_tokens() -> None:
    net = networks.cnn((1, 8, 8), [3, 4, 5, 6, 7], 4, seed=0)
    rule = learning.make("local", net, head=[9], similarity=0.5)
    rule.step(torch.rand(6, 1, 8, 8), torch.arange(6) % 4)
    sizes = [next(head.parameters()).shape[1] for head in rule.heads.values()]
    assert sizes == [3 * 4, 4 * 4, 5, 6, 7]
    tokens = torch.nn.Sequential(
        torch.nn.Linear(5, 8),
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 4)),
    )
    rule = LocalLosses(tokens)
    rule.step(torch.rand(6, 3, 5), torch.arange(6) % 4)
    assert next(rule.heads["0"].parameters()).shape == (4, 8)


def test_regression_has_local_losses_too() -> None:
    net = networks.mlp(4, [5, 5], 2, seed=0)
    rule = learning.make("local", net, loss="mse", lr=1e-2)
    x = torch.randn(32, 4)
    y = x[:, :2] * 2
    first = float(rule.step(x, y)["local_loss"])
    for _ in range(50):
        last = rule.step(x, y)
    assert float(last["local_loss"]) < first / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": 2}, "Expected `similarity` between 0 and 1, but got 2"),
        ({"head": [0]}, "Expected `head` to hold positive sizes"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learning.make("local", networks.mlp(4, [3], 2), **options)
