"""What the paper proves, with exact numbers (T2, T3, T4, T5, T11)."""

import pytest
import torch
from torch import Tensor, nn

from repsim import learning, networks
from repsim.learning.rules.predictors import LinearPredictor
from repsim.learning.rules.synthetic import SyntheticGradient


def _linear(*widths: int, seed: int = 0) -> nn.Sequential:
    net = networks.mlp(
        widths[0], widths[1:-1], widths[-1], "identity", False, seed=seed
    )
    return net.double()


def _sg(net: nn.Module, at: list[int], conditioned: bool = True) -> SyntheticGradient:
    rule = learning.make(
        "sg",
        net,
        at=at,
        loss="mse",
        conditioned=conditioned,
        optimizer=torch.optim.SGD,
        lr=1e-2,
    )
    assert isinstance(rule, SyntheticGradient)
    return rule


def _predictor(rule: SyntheticGradient) -> LinearPredictor:
    (predictor,) = rule.predictors.values()
    assert isinstance(predictor, LinearPredictor)
    return predictor


def _normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def test_t2_a_zero_loss_point_stays() -> None:
    teacher = _linear(4, 5, 5, 5, 2)
    x = _normal(64, 4)
    y = teacher(x).detach()
    rule = _sg(_linear(4, 5, 5, 5, 2), at=[2])
    rule.network.load_state_dict(teacher.state_dict())
    rule.accumulate(x, y)
    grads = [
        p.grad for o in rule.optimizers.values() for p in o.param_groups[0]["params"]
    ]
    assert all(g is not None and g.abs().max() < 1e-12 for g in grads)
    for _ in range(500):
        rule.step(x, y)
    for a, b in zip(rule.network.parameters(), teacher.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-9


def test_t3_a_critical_point_that_is_none() -> None:
    f = nn.Linear(1, 1).double()
    with torch.no_grad():
        f.weight.fill_(1.0)
        f.bias.fill_(0.0)
    net = nn.Sequential()
    net.add_module("f", f)
    net.add_module("output", nn.Identity())
    rule = learning.make(
        "sg", net, at=[1], conditioned=False, loss=lambda p, y: p.abs().mean()
    )
    assert isinstance(rule, SyntheticGradient)
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=torch.float64)
    y = torch.zeros(4, dtype=torch.float64)
    # A sum over examples, as in the paper: the count of the mean is one.
    rule.accumulate(x, y, count=1)
    of_c = _predictor(rule).weight.grad
    assert of_c is not None and of_c.shape == (2, 1) and float(of_c[1]) == 0.0
    assert f.weight.grad is not None and f.bias.grad is not None
    assert (float(f.weight.grad), float(f.bias.grad)) == (0.0, 0.0)
    true = rule.errors(x, y)["f"][1]
    assert float((true * x).sum()) == 6.0


def test_t4_linear_predictors_are_exact_under_an_affine_top_with_squared_error() -> (
    None
):
    net = _linear(6, 5, 3)
    rule = _sg(net, at=[1])
    x, y = _normal(40, 6), _normal(40, 3, seed=1)
    v, c = (
        net.get_submodule("output").weight.detach().T,
        net.get_submodule("output").bias.detach(),
    )
    s = _predictor(rule)
    assert s.B is not None
    s.A.data.copy_(v @ v.T)
    s.B.data.copy_(-v.T)
    s.C.data.copy_(c @ v.T)
    used, true = rule.errors(x, y)["hidden_1"]
    assert (used - true).abs().max() < 1e-12
    h = net.get_submodule("hidden_1")(x).detach()
    design = torch.cat([h, y, torch.ones(40, 1, dtype=torch.float64)], 1)
    found = torch.linalg.lstsq(design, true).solution
    torch.testing.assert_close(found[:5], v @ v.T, atol=1e-10, rtol=0)
    torch.testing.assert_close(found[5:8], -v.T, atol=1e-10, rtol=0)
    torch.testing.assert_close(found[8], c @ v.T, atol=1e-10, rtol=0)
    assert learning.reconstructed_loss(s, h, y).curl < 1e-12


def test_t4_a_stack_of_linear_layers_counts_as_one() -> None:
    net = _linear(6, 5, 4, 4, 3)
    rule = _sg(net, at=[1])
    x, y = _normal(60, 6), _normal(60, 3, seed=1)
    true = rule.errors(x, y)["hidden_1"][1]
    h = net.get_submodule("hidden_1")(x).detach()
    design = torch.cat([h, y, torch.ones(60, 1, dtype=torch.float64)], 1)
    v = torch.eye(5, dtype=torch.float64)
    for name in ("hidden_2.linear", "hidden_3.linear", "output"):
        v = v @ net.get_submodule(name).weight.detach().T
    found = torch.linalg.lstsq(design, true).solution
    torch.testing.assert_close(found[:5], v @ v.T, atol=1e-10, rtol=0)


def _fit(rule: SyntheticGradient, h: Tensor, y: Tensor, true: Tensor) -> None:
    """Put the predictor at its optimum, the least norm one where there are many."""
    s = _predictor(rule)
    parts = [h, *([y] if s.B is not None else []), torch.ones(len(h), 1).double()]
    found = torch.linalg.pinv(torch.cat(parts, 1), rtol=1e-10) @ true
    s.A.data.copy_(found[: h.shape[1]])
    if s.B is not None:
        s.B.data.copy_(found[h.shape[1] : -1])
    s.C.data.copy_(found[-1])


def _gradients(
    hidden: int, conditioned: bool, optimal_top: bool
) -> tuple[Tensor, Tensor]:
    """Weight gradients below the split: the optimal predictor's, and the true one."""
    x, y = _normal(500, 10), _normal(500, 10, seed=1)[:, :2] + _normal(500, 10)[:, :2]
    net = _linear(10, hidden, 2)
    hidden_map, top = net.get_submodule("hidden_1"), net.get_submodule("output")
    h = hidden_map(x).detach()
    if optimal_top:
        design = torch.cat([h, torch.ones(500, 1).double()], 1)
        solution = torch.linalg.pinv(design, rtol=1e-10) @ y
        top.weight.data.copy_(solution[:-1].T)
        top.bias.data.copy_(solution[-1])
    rule = _sg(net, at=[1], conditioned=conditioned)
    _fit(rule, h, y, rule.errors(x, y)["hidden_1"][1])
    rule.accumulate(x, y, count=1)
    used = hidden_map.get_submodule("linear").weight.grad
    bp = learning.make("bp", net, loss="mse")
    bp.zero_grad()
    bp.accumulate(x, y, count=1)
    true = hidden_map.get_submodule("linear").weight.grad
    assert used is not None and true is not None
    return used, true


def test_t5_a_bottleneck_blinds_unconditioned_predictors() -> None:
    used, true = _gradients(hidden=3, conditioned=False, optimal_top=True)
    assert true.norm() > 10
    assert used.norm() / true.norm() < 1e-8


@pytest.mark.parametrize(
    ("hidden", "conditioned"), [(3, True), (10, False), (15, False)]
)
def test_t5_labels_or_width_give_sight_back(hidden: int, conditioned: bool) -> None:
    for optimal in (True, False):
        used, true = _gradients(
            hidden, conditioned, optimal_top=optimal and hidden == 3
        )
        assert (used - true).norm() / true.norm() < 1e-10


@pytest.mark.parametrize("lean", [True, False])
def test_t11_normalisation_hides_constants_and_diagonals_from_the_weights(
    lean: bool,
) -> None:
    net = networks.mlp(6, [5, 5], 3, "identity", True, seed=0).double()
    for block in ("hidden_1", "hidden_2"):
        norm = net.get_submodule(f"{block}.norm")
        assert isinstance(norm, nn.BatchNorm1d)
        norm.eps = 1e-14
    if not lean:
        net.get_submodule("hidden_1").register_forward_hook(lambda *args: None)
    rule = learning.make("sg", net, at=[1], loss="mse")
    assert isinstance(rule, SyntheticGradient)
    x, y = _normal(32, 6), _normal(32, 3, seed=1)
    s = _predictor(rule)
    s.A.data.copy_(_normal(5, 5, seed=2))
    found = []
    for constant, diagonal in ((0.0, 0.0), (3.0, 0.0), (3.0, 2.0)):
        s.C.data.fill_(constant)
        s.A.data.copy_(_normal(5, 5, seed=2) + diagonal * torch.eye(5).double())
        rule.zero_grad()
        rule.accumulate(x, y)
        weight = net.get_submodule("hidden_1.linear").weight.grad
        shift = net.get_submodule("hidden_1.norm").bias.grad
        assert weight is not None and shift is not None
        found.append((weight.clone(), shift.clone()))
    (weight, shift), *others = found
    assert weight.abs().max() > 1e-2
    for other_weight, other_shift in others:
        assert (weight - other_weight).abs().max() < 1e-10
        assert (shift - other_shift).abs().min() > 1
