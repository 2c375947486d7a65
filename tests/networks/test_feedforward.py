"""The paper's networks: names, order, seeds."""

from typing import Any

import pytest
import torch
from torch import nn

from repsim import networks


def test_children_are_hidden_and_output() -> None:
    net = networks.mlp(784, hidden=[256] * 20, classes=10, activation="relu")
    names = [name for name, _ in net.named_children()]
    assert names == [*(f"hidden_{i}" for i in range(1, 21)), "output"]
    kinds = [type(m) for m in net[0].children()]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert net(torch.zeros(3, 784)).shape == (3, 10)


def test_order_of_normalisation() -> None:
    def kinds(batch_norm: networks.BatchNorm) -> list[str]:
        net = networks.mlp(4, [3], 2, "tanh", batch_norm)
        return [name for name, _ in net[0].named_children()]

    assert kinds(True) == kinds("before") == ["linear", "norm", "activation"]
    assert kinds("after") == ["linear", "activation", "norm"]
    assert kinds(False) == ["linear", "activation"]


def test_a_linear_network_has_no_hidden_block() -> None:
    net = networks.mlp(4, [], 2, seed=0)
    assert [name for name, _ in net.named_children()] == ["output"]


@pytest.mark.parametrize("make", ["mlp", "cnn"])
def test_seeds_leave_the_global_generator_alone(make: str) -> None:
    def net(seed: int | None) -> torch.Tensor:
        made = (
            networks.mlp(4, [3], 2, seed=seed)
            if make == "mlp"
            else networks.cnn((1, 4, 4), [3], 2, seed=seed)
        )
        return torch.cat([p.detach().flatten() for p in made.parameters()])

    before = torch.get_rng_state()
    first = net(3)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    assert torch.equal(first, net(3)) and not torch.equal(first, net(4))
    torch.manual_seed(7)
    drawn = net(None)
    torch.manual_seed(7)
    assert torch.equal(drawn, net(None)) and not torch.equal(
        before, torch.get_rng_state()
    )


def test_initialisation_is_pytorchs() -> None:
    torch.manual_seed(5)
    expected = nn.Linear(4, 3).weight
    assert torch.equal(networks.mlp(4, [3], seed=5)[0][0].weight, expected)


def test_convolutional_blocks() -> None:
    net = networks.cnn((3, 12, 10), [4, 8, 8, 8, 8], 5, "gelu", kernel_size=5)
    shapes, h = [], torch.zeros(2, 3, 12, 10)
    for block in net:
        h = block(h)
        shapes.append(tuple(h.shape[1:]))
    assert shapes == [(4, 6, 5), (8, 3, 2), (8, 1, 1), (8, 1, 1), (8, 1, 1), (5,)]
    kept = networks.cnn((1, 7, 7), [2], pool=1, batch_norm="after")
    assert kept[0](torch.zeros(2, 1, 7, 7)).shape == (2, 2, 7, 7)
    assert [n for n, _ in kept[0].named_children()] == ["conv", "activation", "norm"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "Expected `features` to be positive, but got 0"),
        ({"hidden": [3, -1]}, "Expected `hidden` to be positive, but got -1"),
        ({"classes": 0}, "Expected `classes` to be positive, but got 0"),
        ({"activation": "rleu"}, "Expected `activation` .* Did you mean 'relu'"),
        ({"batch_norm": "befor"}, "Expected `batch_norm` .* Did you mean 'before'"),
    ],
)
def test_wrong_mlps(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks.mlp(**{"features": 4, "hidden": [3], **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1, 0, 4)}, "Expected `shape` to be positive, but got 0"),
        ({"channels": [0]}, "Expected `channels` to be positive, but got 0"),
        ({"kernel_size": 2}, "Expected `kernel_size` to be odd, but got 2"),
        ({"pool": 0}, "Expected `pool` to be positive, but got 0"),
        ({"activation": "x"}, "Expected `activation` to be one of"),
    ],
)
def test_wrong_cnns(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks.cnn(**{"shape": (1, 4, 4), "channels": [3], **options})
