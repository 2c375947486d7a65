"""Losses are means over examples, whatever they were asked for."""

import pytest
import torch
from torch import nn

from repsim.learning.losses import check_labels, mse, one_hot, resolve


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss, nn.MSELoss, nn.HuberLoss, nn.L1Loss]
)
def test_reductions_are_one(loss: type[nn.Module]) -> None:
    p = torch.randn(6, 3)
    y = torch.arange(6) % 3 if loss is nn.CrossEntropyLoss else torch.randn(6, 3)
    found = [resolve(loss(reduction=r))[1](p, y) for r in ("mean", "sum", "none")]
    for value in found:
        torch.testing.assert_close(value, loss()(p, y))


def test_batchmean_stays() -> None:
    p, y = torch.randn(6, 3).log_softmax(1), torch.rand(6, 3)
    name, found = resolve(nn.KLDivLoss(reduction="batchmean"))
    assert name == "KLDivLoss"
    torch.testing.assert_close(found(p, y), nn.KLDivLoss(reduction="batchmean")(p, y))


def test_functions() -> None:
    p, y = torch.randn(6, 3), torch.arange(6) % 3
    for function in (
        nn.functional.cross_entropy,
        lambda a, b: nn.functional.cross_entropy(a, b, reduction="none"),
    ):
        found = resolve(function)[1](p, y)
        torch.testing.assert_close(found, nn.functional.cross_entropy(p, y))


def test_half_the_squared_error() -> None:
    p, y = torch.randn(6, 3, requires_grad=True), torch.arange(6) % 3
    (grad,) = torch.autograd.grad(mse(p, y) * 6, p)
    torch.testing.assert_close(grad, (p - one_hot(y, 3)).detach())


def test_labels() -> None:
    assert check_labels(torch.tensor([1], dtype=torch.int32), 1, 2).dtype == torch.long
    assert check_labels(torch.ones(2, 3), 2, 3).dtype == torch.float32


def test_class_weights_do_not_tie_examples_together() -> None:
    weight = torch.tensor([1.0, 2.0, 5.0])
    p, y = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 2])
    each = nn.functional.cross_entropy(p, y, weight, reduction="none")
    for reduction in ("mean", "sum", "none"):
        found = resolve(nn.CrossEntropyLoss(weight, reduction=reduction))[1](p, y)
        torch.testing.assert_close(found, each.mean())
