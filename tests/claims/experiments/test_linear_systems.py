"""The arithmetic for many seeds at once gives what the rules give for one."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from repsim import learning
from repsim.claims.experiments.linear_systems import Layers, count, train
from repsim.networks import mlp


def network(flat: torch.Tensor, sizes: list[int]) -> nn.Sequential:
    """Return a PyTorch network with the weights of one seed."""
    if len(sizes) == 2:
        affine = nn.Sequential(OrderedDict(linear=nn.Linear(*sizes)))
        net = nn.Sequential(OrderedDict(hidden_1=affine, output=nn.Identity()))
    else:
        net = mlp(
            sizes[0], sizes[1:-1], sizes[-1], activation="identity", batch_norm=False
        )
    layers = Layers.shaped(flat[None].clone(), sizes)
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for module, weight, bias in zip(
            linear, layers.weights, layers.biases, strict=True
        ):
            module.weight.copy_(weight[0].T)
            module.bias.copy_(bias[0, 0])
    return net


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("sizes", "split"), [([3, 2], 1), ([3, 4, 4, 4, 2], 2)])
@pytest.mark.parametrize("rule", ["bp", "sg"])
def test_equal_to_the_rules(loss: str, sizes: list[int], split: int, rule: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 20, 3, generator=generator)
    label = torch.randint(0, 2, (2, 20), generator=generator)
    y = nn.functional.one_hot(label, 2).float()
    start = torch.randn(2, count(sizes), generator=generator) / 2
    before = start.clone()
    losses = train(
        x, y, start, sizes, loss=loss, split=None if rule == "bp" else split, steps=30,
        decay=False,
    )  # fmt: skip
    torch.testing.assert_close(start, before, rtol=0, atol=0)
    for seed in range(2):
        options = {} if rule == "bp" else {"at": [split], "sg_lr": 3e-3}
        one = learning.make(
            rule, network(start[seed], sizes), lr=3e-3, loss=loss, **options
        )
        expected = [float(one.step(x[seed], label[seed])["loss"]) for _ in range(30)]
        torch.testing.assert_close(
            losses[:-1, seed], torch.tensor(expected), rtol=2e-4, atol=2e-6
        )


def test_the_sigmoid_predictor_is_zero_at_first_and_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 50, 2, generator=generator)
    y = nn.functional.one_hot((x[..., 0] > 0).long(), 2).float()
    start = torch.randn(1, count([2, 2]), generator=generator)
    losses = train(
        x, y, start, [2, 2], loss="cross_entropy", split=1, steps=300, lr=1e-2,
        predictor="sigmoid",
    )  # fmt: skip
    assert losses[0, 0] == losses[1, 0]
    assert losses[-1, 0] < 0.5 * losses[0, 0]


def test_the_rate_falls_to_zero_over_the_second_half() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 20, 2, generator=generator)
    y = nn.functional.one_hot((x[..., 0] > 0).long(), 2).float()
    start = torch.randn(1, count([2, 2]), generator=generator)
    way = {
        decay: train(
            x, y, start, [2, 2], loss="mse", split=None, steps=40, decay=decay
        ).diff(dim=0).abs()
        for decay in (False, True)
    }  # fmt: skip
    torch.testing.assert_close(way[True][:20], way[False][:20])
    assert way[True][-1] < 0.2 * way[False][-1]
