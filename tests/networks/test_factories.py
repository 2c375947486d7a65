"""Networks by name: one signature, named blocks, what every learning rule takes."""

from typing import Any

import pytest
import torch

from repsim import learning, networks


def _make(name: str, **changes: Any) -> torch.nn.Module:
    options = {"depth": 3, "width": 4, "activation": "relu", "seed": 0, **changes}
    return networks.get(name)((1, 8, 8), 5, **options)


def _input(name: str, n: int = 6) -> torch.Tensor:
    return torch.rand(n, 64) if name == "mlp" else torch.rand(n, 1, 8, 8)


@pytest.mark.parametrize("name", networks.names())
def test_blocks_seeds_and_shapes(name: str) -> None:
    random = torch.get_rng_state()
    net, same, other = _make(name), _make(name), _make(name, seed=1)
    assert torch.equal(random, torch.get_rng_state())
    children = [child for child, _ in net.named_children()]
    assert children == ["hidden_1", "hidden_2", "hidden_3", "output"]
    x = _input(name)
    net.eval(), same.eval(), other.eval()
    assert net(x).shape == (6, 5)
    assert torch.equal(net(x), same(x)) and not torch.equal(net(x), other(x))
    with pytest.raises(ValueError, match="Expected `activation` to be one of"):
        _make(name, activation="softpuls")


@pytest.mark.parametrize("name", networks.names())
@pytest.mark.parametrize("rule", learning.names())
def test_every_rule_trains_every_network(name: str, rule: str) -> None:
    made = learning.make(rule, _make(name))
    x, y = _input(name), torch.arange(6) % 5
    if rule == "pepita" and name != "mlp":
        with pytest.raises(ValueError, match="for rule 'pepita'|leave pooling out"):
            made.step(x, y)
        return
    losses = made.step(x, y)
    assert all(torch.isfinite(value) for value in losses.values())


def test_tokens_carry_their_place() -> None:
    net = networks.vit((1, 8, 8), 5, depth=1, width=8, seed=0)
    h = net[0](torch.zeros(1, 1, 8, 8))[0]
    assert h.shape == (16, 8) and len(torch.unique(h, dim=0)) == 16
    with pytest.raises(ValueError, match="Expected `patch` to divide the sides"):
        networks.vit((1, 8, 8), patch=3)


def test_stages_halve_the_side() -> None:
    net = networks.resnet((3, 32, 32), depth=6, width=4, seed=0)
    h, shapes = torch.zeros(2, 3, 32, 32), []
    for block in list(net)[:-1]:
        h = block(h)
        shapes.append(tuple(h.shape[1:]))
    assert shapes == [
        *[(4, 32, 32)] * 2, *[(8, 16, 16)] * 2, *[(16, 8, 8)] * 2,
    ]  # fmt: skip


def test_names_of_networks() -> None:
    with pytest.raises(ValueError, match="Expected `name` to be free, but got 'mlp'"):
        networks.register("mlp", networks.cnn)
    with pytest.raises(ValueError, match="Expected `network` to be one of mlp"):
        networks.get("mlpp")
    with pytest.raises(TypeError, match="Expected `factory` to be a function"):
        networks.register("mine", 3)  # type: ignore[arg-type]
