"""The definition of the system, by a second way, and that wrong steps stray from it."""

import numpy as np
import pytest
import torch

from repsim import learning
from repsim.claims.experiments.linear_systems import (
    F64,
    affine,
    by_definition,
    descend,
    descent,
    deviations,
    fitted,
    flat,
    put_back,
    read_predictor,
    stable_rate,
    strays,
    write_predictor,
)
from repsim.networks import mlp


def normal(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=F64)


def test_the_definition_is_that_of_finite_differences() -> None:
    net = affine([3, 4, 2], 0)
    x, y, phi = normal(0, 20, 3), normal(1, 20, 2), normal(2, 4 + 1 + 2, 4)
    rule = learning.make("sg", net, at=[1], loss="mse", optimizer=descent)
    write_predictor(rule, phi)
    found = by_definition(rule, x, y)
    h = dict(net.named_children())["hidden_1"](x).detach()
    seen = torch.cat([h, h.new_ones(20, 1), y], 1)
    synthetic = seen @ phi
    weight = net.get_parameter("output.weight").detach()
    delta = (net(x).detach() - y) @ weight

    def lower(w: torch.Tensor) -> float:  # linear in w, with gradient S
        return float(((x @ w.T) * synthetic).sum() / 20)

    def upper(w: torch.Tensor) -> float:
        output = h @ w.T + net.get_parameter("output.bias").detach()
        return float(0.5 * (output - y).square().sum() / 20)

    def regression(w: torch.Tensor) -> float:
        return float((seen @ w - delta).square().sum() / 20)

    for name, function, start in (
        ("hidden_1.linear.weight", lower, net.get_parameter("hidden_1.linear.weight")),
        ("output.weight", upper, weight),
        ("S hidden_1.weight", regression, phi),
    ):
        at = start.detach().clone()
        slope = torch.zeros_like(at)
        for i in np.ndindex(*at.shape):
            for sign in (1, -1):
                moved = at.clone()
                moved[i] += sign * 1e-5
                slope[i] += sign * function(moved) / 2e-5
        torch.testing.assert_close(found[name], slope, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("at", [[2], [1, 3], [1, 2, 3]])
@pytest.mark.parametrize("options", [{}, {"conditioned": False}, {"loss": "mse"}])
def test_the_rule_makes_the_steps_of_the_definition(
    at: list[int], options: dict[str, object]
) -> None:
    net = mlp(5, [6] * 3, 3, batch_norm="after", seed=0).double()
    x, y = normal(0, 12, 5), torch.arange(12) % 3
    assert strays("sg", net, x, y, at=at, **options) < 1e-12
    rule = learning.make("sg", net, at=at, lr=0.5, optimizer=descent)
    assert max(deviations(rule, x, y, 0.25).values()) > 1e-3


def test_affine_networks_with_a_predictor_at_the_output() -> None:
    net, x = affine([3, 2], 0, at_output=True), normal(0, 4, 3)
    assert [name for name, _ in net.named_children()] == ["hidden_1", "output"]
    plain = affine([3, 2], 0)
    torch.testing.assert_close(net(x), plain(x), rtol=0, atol=0)


def test_predictors_are_fitted_written_and_read() -> None:
    h, y, phi = normal(0, 30, 4), normal(1, 30, 2), normal(2, 7, 4)
    delta = torch.cat([h, h.new_ones(30, 1), y], 1) @ phi
    torch.testing.assert_close(fitted(h, y, delta), phi)
    rule = learning.make("sg", affine([4, 4, 2], 0), at=[1], loss="mse")
    write_predictor(rule, phi)
    torch.testing.assert_close(read_predictor(rule), phi, rtol=0, atol=0)
    assert stable_rate(2 * h, 2 * y) < stable_rate(h, y)


def test_parameters_are_put_back_as_copies() -> None:
    net = affine([2, 3, 2], 0)
    kept = flat(net.parameters())
    before = kept.clone()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    put_back(net, kept)
    with torch.no_grad():
        next(net.parameters()).add_(1)
    torch.testing.assert_close(kept, before, rtol=0, atol=0)


def test_the_rate_falls_to_zero_over_the_second_half() -> None:
    x, y = normal(0, 20, 3), normal(1, 20, 2)
    way = {}
    for decay in (False, True):
        rule = learning.make("bp", affine([3, 3, 2], 0), loss="mse", lr=1e-2)
        way[decay] = np.abs(np.diff(descend(rule, x, y, 40, 1e-2, decay)))
    np.testing.assert_allclose(way[True][:19], way[False][:19])
    assert way[True][-1] < 0.2 * way[False][-1]
