"""Which critical points synthetic gradients keep, and which they add (float64)."""

from collections.abc import Callable
from typing import Any

import torch
from scipy import optimize
from torch import Tensor, nn

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.experiments.linear_systems import (
    DEFINED,
    F64,
    RATE,
    STRAYS,
    affine,
    descent,
    design,
    fitted,
    flat,
    read_predictor,
    stable_rate,
    strays,
    write_predictor,
)
from repsim.claims.lab import Lab
from repsim.networks import mlp

WRITTEN = "the predictor is written here, so where it starts plays no part"


@claim(
    "C1",
    order=1,
    statement=(
        "A critical point of the original problem whose error signal the predictor "
        "can represent is a critical point of the synthetic-gradient system too."
    ),
    source="Czarnecki et al. 2017, Proposition 1",
    experiment=(
        "Two layers (linear, and tanh) with an affine output and squared error, "
        "trained to a vanishing gradient; the conditioned linear predictor is fitted "
        "by least squares and written into the rule, which then makes 50 steps by "
        "plain descent."
    ),
    gates=[
        Gate("true gradient at the start", "<", 1e-7, "a critical point; float64"),
        Gate("way of the network in 50 steps", "<", 1e-6, "zero by theory"),
        Gate("way of the predictor in 50 steps", "<", 1e-6, "zero by theory"),
        DEFINED,
    ],
    holds_for={"away": WRITTEN},
    seconds=lambda settings: 3.0 * settings.seeds,
)
def keeps_critical_points(lab: Lab) -> Evidence:
    """Measure how far the rule moves from critical points of the loss."""
    measured: dict[str, list[float]] = {
        "true gradient at the start": [],
        "way of the network in 50 steps": [],
        "way of the predictor in 50 steps": [],
        STRAYS: [],
    }
    for seed in lab.seeds:
        for activation in ("identity", "tanh"):
            values = _way_from_critical_point(lab, seed, activation)
            for name, value in zip(measured, values, strict=True):
                measured[name].append(value)
    return Evidence(measured)


def _way_from_critical_point(lab: Lab, seed: int, activation: str) -> tuple[float, ...]:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(40, d, generator=generator, dtype=F64) for d in (4, 2))
    net = mlp(4, [3], 2, activation=activation, batch_norm=False, seed=seed).double()
    names = [name for name, _ in net.named_parameters()]
    shapes = [p.shape for p in net.parameters()]

    def unpack(vector: Tensor) -> dict[str, Tensor]:
        parts = torch.split(vector, [s.numel() for s in shapes])
        pairs = zip(names, parts, shapes, strict=True)
        return {name: part.reshape(shape) for name, part, shape in pairs}

    def loss(vector: Tensor) -> Tensor:
        output = torch.func.functional_call(net, unpack(vector), (x,))
        value: Tensor = 0.5 * (output - y).square().sum(1).mean()
        return value

    size = len(flat(net.parameters()))
    for _ in range(20):  # Some starts lead a tanh to infinity, where no point is.
        point = _minimise(loss, torch.randn(size, generator=generator, dtype=F64) / 2)
        slope = torch.autograd.grad(loss(point.requires_grad_()), point)[0]
        if slope.norm() < 1e-10:
            break
    point = point.detach()
    net.load_state_dict(unpack(point))
    options: dict[str, Any] = {"at": [1], "loss": "mse", "seed": seed}
    deviation = strays(lab.rule, net, x, y, **options)
    h = dict(net.named_children())["hidden_1"](x).detach()
    rates = {"lr": RATE / 10, "sg_lr": stable_rate(h, y)}
    rule = lab.make(lab.rule, net, optimizer=descent, **rates, **options)
    weight = net.get_parameter("output.weight").detach()
    phi = fitted(h, y, (net(x).detach() - y) @ weight)
    write_predictor(rule, phi)
    for _ in range(50):
        rule.step(x, y)
    return (
        float(slope.norm()),
        float((flat(net.parameters()) - point).norm()),
        float((read_predictor(rule) - phi).norm()),
        deviation,
    )


def _minimise(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Return a point with a vanishing gradient: BFGS, then Newton steps."""

    def gradient(theta: Tensor) -> Tensor:
        theta = theta.clone().requires_grad_()
        return torch.autograd.grad(loss(theta), theta)[0]

    search: Any = optimize.minimize  # scipy's own types know no options by name
    result = search(
        lambda values: float(loss(torch.from_numpy(values))),
        start.numpy(),
        jac=lambda values: gradient(torch.from_numpy(values)).numpy(),
        method="BFGS",
        options={"maxiter": 1000, "gtol": 1e-7},
    )
    theta = torch.from_numpy(result.x)
    for _ in range(60):
        slope = gradient(theta)
        if slope.norm() < 1e-13:
            break
        curvature: Any = torch.autograd.functional.hessian  # torch does not type it
        hessian = curvature(loss, theta)
        theta = theta - torch.linalg.pinv(hessian, rtol=1e-10) @ slope
    return theta


class ConstantOnly(torch.optim.SGD):
    """Plain descent on the network, and on a linear predictor's constant alone."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Keep the predictor's A and B (the rows but number 1 of [h, 1, y]) at zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim == 3 and p.grad is not None:
                    p.grad[:, 0], p.grad[:, 2:] = 0.0, 0.0
        return super().step(closure)


def constant_only(parameters: Any, lr: float) -> ConstantOnly:
    """Return the optimiser; the factory that rules take."""
    return ConstantOnly(parameters, lr=lr)


@claim(
    "C2",
    order=2,
    statement=(
        "Synthetic gradients can add critical points that the original problem does "
        "not have."
    ),
    source="Czarnecki et al. 2017, supplement A (one-dimensional example)",
    experiment=(
        "x in {-2, -1, 1, 2}, f(x) = ax + b, loss sum |f|, one trainable constant in "
        "place of the gradient at f; the rule makes 100 steps from a = 1, b = 0."
    ),
    gates=[
        Gate("true gradient", "==", 6.0, "by hand"),
        Gate("way moved in 100 steps", "==", 0.0, "by hand"),
        Gate("the constant after 100 steps", "==", 0.0, "by hand"),
        DEFINED,
    ],
    holds_for={"leaky": "the loss is straight in f, so the target has nothing to leak"},
)
def adds_critical_points(lab: Lab) -> Evidence:
    """Measure both gradients in the one-dimensional example."""
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=F64)
    net = affine([1, 1], 0, at_output=True)
    start = torch.tensor([1.0, 0.0], dtype=F64)  # a, b
    with torch.no_grad():
        for p, value in zip(net.parameters(), start, strict=True):
            p.fill_(value)
    options: dict[str, Any] = {"at": [1], "loss": _absolute, "conditioned": False}
    deviation = strays(lab.rule, net, x, x, **options)
    a, b = net.parameters()
    total = torch.autograd.grad((x @ a.T + b).abs().sum(), a)[0]
    rule = lab.make(
        lab.rule, net, lr=0.01, sg_lr=0.1, optimizer=constant_only, **options
    )
    for _ in range(100):
        rule.step(x, x)
    return Evidence(
        {
            "true gradient": [float(total)],
            "way moved in 100 steps": [float((flat(net.parameters()) - start).norm())],
            "the constant after 100 steps": [float(read_predictor(rule)[1].abs())],
            STRAYS: [deviation],
        }
    )


def _absolute(output: Tensor, y: Tensor) -> Tensor:
    return output.abs().sum(1)


@claim(
    "C3",
    order=3,
    statement=(
        "Where everything above the split is affine and the loss is squared error, the "
        "conditioned linear predictor is exact: A = VV', B = -V', C = cV'."
    ),
    source="follows from Czarnecki et al. 2017, section 3 (derivation ours)",
    experiment=(
        "Random affine stacks of one to five layers above h. The formula is written "
        "into the rule, which makes a step by plain descent: the weights below must "
        "move as under the true gradient and the predictor must stay. Beside it, the "
        "least-squares fit of the true errors on [h, 1, y]."
    ),
    gates=[
        Gate("error of the formula", "<", 1e-10, "exact by theory; float64"),
        Gate("error of the fit", "<", 1e-10, "exact by theory; float64"),
        Gate("lower step − true gradient", "<", 1e-10, "exact by theory; float64"),
        Gate("step of the predictor", "<", 1e-10, "zero by theory; float64"),
        DEFINED,
    ],
    holds_for={"away": WRITTEN},
)
def is_exact_for_squared_error(lab: Lab) -> Evidence:
    """Measure the predictor of the closed form against the true gradient."""
    measured: dict[str, list[float]] = {
        "error of the formula": [],
        "error of the fit": [],
        "lower step − true gradient": [],
        "step of the predictor": [],
        STRAYS: [],
    }
    for seed in lab.seeds:
        for layers in range(1, 6):
            values = _exactness(lab, seed, layers)
            for name, value in zip(measured, values, strict=True):
                measured[name].append(value)
    return Evidence(measured)


def _exactness(lab: Lab, seed: int, layers: int) -> tuple[float, ...]:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(200, d, generator=generator, dtype=F64) for d in (6, 3))
    net = affine([6, *[6] * layers, 3], seed)
    linear: list[Any] = [m for m in net.modules() if isinstance(m, nn.Linear)]
    v, c = torch.eye(6, dtype=F64), torch.zeros(6, dtype=F64)
    for module in linear[1:]:
        v, c = v @ module.weight.detach().T, c @ module.weight.detach().T
        c = c + module.bias.detach()
    h = linear[0](x).detach()
    delta = (h @ v + c - y) @ v.T
    exact = torch.cat([v @ v.T, (c @ v.T)[None], -v.T])
    options: dict[str, Any] = {"at": [1], "loss": "mse", "seed": seed}
    deviation = strays(lab.rule, net, x, y, **options)
    rule = lab.make(lab.rule, net, lr=RATE, sg_lr=RATE, optimizer=descent, **options)
    write_predictor(rule, exact)
    lower = list(linear[0].parameters())
    loss = 0.5 * (net(x) - y).square().sum(1).mean()
    true = flat(torch.autograd.grad(loss, lower))
    before = flat(lower)
    rule.step(x, y)
    return (
        float((design(h, y) @ exact - delta).abs().max()),
        float((fitted(h, y, delta) - exact).abs().max()),
        float(((before - flat(lower)) / RATE - true).abs().max()),
        float((read_predictor(rule) - exact).abs().max() / RATE),
        deviation,
    )
