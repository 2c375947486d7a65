"""Diagnostics against their definitions, written out again."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim import learning, networks
from repsim.learning.diagnostics import NAMES, compared, curl
from repsim.learning.rules.predictors import LinearPredictor, make_predictor
from repsim.learning.rules.synthetic import SyntheticGradient


def _normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def test_errors_are_compared_by_definition() -> None:
    used, true = _normal(6, 4, 2), _normal(6, 4, 2, seed=1)
    used[0] = 0
    a, b = used.reshape(6, -1).numpy(), true.reshape(6, -1).numpy()
    each = [
        a[i] @ b[i] / np.linalg.norm(a[i]) / np.linalg.norm(b[i]) for i in range(1, 6)
    ]
    expected = {
        "error_cosine": (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b),
        "error_cosine_per_sample": np.mean(each),
        "error_relative_norm": np.linalg.norm(a) / np.linalg.norm(b),
        "error_relative_distance": np.linalg.norm(a - b) / np.linalg.norm(b),
        "error_sign_agreement": np.mean(np.sign(a[1:]) == np.sign(b[1:])),
    }
    assert compared(used, true) == pytest.approx(expected, rel=1e-12)


def test_no_error_has_no_direction() -> None:
    found = compared(torch.zeros(2, 3), torch.ones(2, 3))
    assert math.isnan(found["error_cosine"]) and found["error_relative_norm"] == 0


def test_the_cosine_of_parameter_gradients() -> None:
    net = networks.mlp(5, [4, 4], 3, seed=0).double()
    rule = learning.make("dfa", net)
    x, y = _normal(7, 5), torch.arange(7) % 3
    found = learning.error_diagnostics(rule, x, y)
    assert list(found) == list(NAMES)
    net.eval()
    loss = nn.functional.cross_entropy(net(x), y)
    block = list(net.get_submodule("hidden_1").parameters())
    true = torch.cat([g.flatten() for g in torch.autograd.grad(loss, block)])
    used = rule.errors(x, y)["hidden_1"][0]
    pulled = torch.autograd.grad(net.get_submodule("hidden_1")(x), block, used)
    mine = torch.cat([g.flatten() for g in pulled])
    expected = float(mine @ true / mine.norm() / true.norm())
    assert found["parameter_cosine"]["hidden_1"] == pytest.approx(expected, rel=1e-9)
    assert found["parameter_cosine"]["output"] == pytest.approx(1)
    assert all(math.isnan(value) for value in found["curl"].values())
    assert all(p.grad is None for p in net.parameters())


def test_curl_is_the_asymmetry_of_a() -> None:
    a = _normal(4, 4)
    expected = float((a - a.T).norm() / (a + a.T).norm())
    assert curl([a]) == pytest.approx(expected)
    net = networks.mlp(5, [4, 4], 3, seed=0).double()
    rule = learning.make("sg", net, at=[2])
    assert isinstance(rule, SyntheticGradient)
    rule.predictors["hidden_2"].A.data.copy_(a)  # type: ignore[operator,union-attr]
    found = learning.error_diagnostics(rule, _normal(6, 5), torch.arange(6) % 3)
    assert found["curl"]["hidden_2"] == pytest.approx(expected)
    assert math.isnan(found["curl"]["hidden_1"])


@pytest.mark.parametrize("kind", ["linear", "sigmoid", "mlp"])
def test_jacobians_are_derivatives(kind: str) -> None:
    s = make_predictor(kind, (4,), 2, maps=False, hidden=(6,)).double()
    with torch.no_grad():
        for p in s.parameters():
            p.copy_(_normal(*p.shape))
    h, labels = _normal(1, 4), torch.eye(2).double()[:1]
    (jacobian,) = s.jacobians(h, labels)
    step = 1e-6
    for j in range(4):
        moved = h.clone()
        moved[0, j] += step
        slope = (s(moved, labels) - s(h, labels))[0] / step
        torch.testing.assert_close(jacobian[:, j], slope, atol=1e-4, rtol=1e-4)


def _true_loss(h: Tensor, y: Tensor, top: nn.Linear) -> Tensor:
    return 0.5 * (top(h) - y).square().sum(1).detach()


def test_t10_the_reconstructed_loss_is_the_true_one() -> None:
    top = nn.Linear(5, 3).double()
    v, c = top.weight.detach().T, top.bias.detach()
    s = LinearPredictor(5, 3).double()
    assert s.B is not None
    s.A.data.copy_(v @ v.T)
    s.B.data.copy_(-v.T)
    s.C.data.copy_(c @ v.T)
    h = _normal(30, 5)
    labels = torch.eye(3).double()[torch.arange(30) % 3]
    true = _true_loss(h, labels, top)
    free = learning.reconstructed_loss(s, h, labels)
    for label in range(3):
        gap = (free.values - true)[label::3]
        assert (gap - gap[0]).abs().max() < 1e-10
    assert free.curl < 1e-12 and free.path_difference < 1e-10
    anchored = learning.reconstructed_loss(s, h, labels, true_loss=true)
    torch.testing.assert_close(anchored.values, true, atol=1e-10, rtol=0)
    moved = learning.reconstructed_loss(s, h, labels, base=h[0])
    assert abs(float(moved.values[0])) < 1e-12


def test_closed_form_and_line_integral_agree() -> None:
    s = LinearPredictor(4, 0).double()
    a = _normal(4, 4)
    s.A.data.copy_(a)
    s.C.data.copy_(_normal(4, seed=1))
    body = nn.Linear(4, 4).double()
    body.weight.data.copy_(a.T)
    body.bias.data.copy_(s.C)
    other = make_predictor("mlp", (4,), 0, maps=False).double()
    other.body = body
    h = _normal(9, 4, seed=2)
    closed = learning.reconstructed_loss(s, h)
    integral = learning.reconstructed_loss(other, h, points=2)
    torch.testing.assert_close(closed.values, integral.values)
    assert closed.path_difference == pytest.approx(integral.path_difference)
    assert closed.curl == pytest.approx(integral.curl)
    # Two paths from 0, straight and over the mean m, differ by h(A - A')m'/2.
    mean = h.mean(0)
    gap = h @ (a - a.T) @ mean / 2
    straight = 0.5 * ((h @ a) * h).sum(1) + h @ s.C.detach()
    expected = gap.square().mean().sqrt() / straight.std(correction=0)
    assert closed.path_difference == pytest.approx(float(expected), rel=1e-9)
    torch.testing.assert_close(closed.values, straight.detach())


def test_the_line_integral_is_that_of_a_slow_sum() -> None:
    s = make_predictor("mlp", (4,), 0, maps=False, hidden=(6,)).double()
    with torch.no_grad():
        for k, p in enumerate(s.parameters()):
            p.copy_(_normal(*p.shape, seed=k))
    h = _normal(9, 4, seed=20)

    def slow(*corners: Tensor, pieces: int = 20_000) -> Tensor:
        total = torch.zeros(9, dtype=torch.float64)
        for a, b in pairwise(corners):
            for t in (torch.arange(pieces).double() + 0.5).split(1000):
                at = a + t[:, None, None] / pieces * (b - a)
                total += (s(at, None) * (b - a)).sum((0, 2)).detach() / pieces
        return total

    start, mean = torch.zeros_like(h), h.mean(0).expand_as(h)
    straight, bent = slow(start, h), slow(start, mean, h)
    found = learning.reconstructed_loss(s, h, points=400)
    torch.testing.assert_close(found.values, straight, atol=1e-4, rtol=1e-4)
    gap = (straight - bent).square().mean().sqrt() / straight.std(correction=0)
    assert found.path_difference == pytest.approx(float(gap), abs=1e-4)


def test_wrong_anchors_are_refused() -> None:
    s = LinearPredictor(4, 0)
    with pytest.raises(
        ValueError, match=r"Expected `true_loss` to have the shape \(3,\)"
    ):
        learning.reconstructed_loss(s, torch.ones(3, 4), true_loss=torch.ones(2))
    with pytest.raises(ValueError, match="Expected `points` to be positive"):
        learning.reconstructed_loss(s, torch.ones(3, 4), points=0)
    plain = learning.reconstructed_loss(s, torch.ones(3, 4), true_loss=torch.ones(3))
    assert plain.values.tolist() == [1.0, 1.0, 1.0] and math.isnan(
        plain.path_difference
    )


def test_vectors_as_labels_are_each_their_own_in_anchoring() -> None:
    s = LinearPredictor(2, 2).double()
    labels = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    true = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    found = learning.reconstructed_loss(s, _normal(3, 2), labels, true_loss=true)
    assert found.values.tolist() == [2.0, 2.0, 5.0]
