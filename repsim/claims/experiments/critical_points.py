"""Which critical points synthetic gradients keep, and which they add (float64)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.lab import Lab

F64 = torch.float64


def fit_predictor(h: Tensor, y: Tensor, delta: Tensor) -> Tensor:
    """Return the least-squares linear predictor [h, y, 1] -> delta."""
    design = torch.cat([h, y, torch.ones(len(h), 1, dtype=h.dtype)], 1)
    found: Tensor = torch.linalg.lstsq(design, delta, driver="gelsd").solution
    return found


def predict(phi: Tensor, h: Tensor, y: Tensor) -> Tensor:
    """Return S(h, y) of a stacked linear predictor."""
    design = torch.cat([h, y, torch.ones(len(h), 1, dtype=h.dtype)], 1)
    return design @ phi


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
        "by least squares and the three residuals of the synthetic system are taken."
    ),
    gates=[
        Gate("predictor error", "<", 1e-8, "exact by theory; float64"),
        Gate("upper gradient", "<", 1e-7, "exact by theory; float64"),
        Gate("lower synthetic gradient", "<", 1e-7, "exact by theory; float64"),
        Gate("predictor gradient", "<", 1e-7, "exact by theory; float64"),
    ],
)
def keeps_critical_points(lab: Lab) -> Evidence:
    """Measure the residuals of the synthetic system at points that BP has reached."""
    names = (
        "predictor error",
        "upper gradient",
        "lower synthetic gradient",
        "predictor gradient",
        "true gradient",
    )
    measured: dict[str, list[float]] = {name: [] for name in names}
    for seed in lab.seeds:
        for activation in ("linear", "tanh"):
            residuals = _critical_residuals(seed, activation)
            for name, value in zip(names, residuals, strict=True):
                measured[name].append(value)
    return Evidence(measured)


def _critical_residuals(seed: int, activation: str) -> tuple[float, ...]:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(40, d, generator=generator, dtype=F64) for d in (4, 2))
    shapes = [(4, 3), (3,), (3, 2), (2,)]
    sizes = [int(np.prod(s)) for s in shapes]

    def unpack(vector: Tensor) -> list[Tensor]:
        parts = torch.split(vector, sizes)
        return [part.reshape(s) for part, s in zip(parts, shapes, strict=True)]

    def forward(vector: Tensor) -> tuple[Tensor, Tensor]:
        w, b, v, c = unpack(vector)
        h = x @ w + b
        h = torch.tanh(h) if activation == "tanh" else h
        return h, h @ v + c

    def loss(vector: Tensor) -> Tensor:
        return 0.5 * (forward(vector)[1] - y).square().sum(1).mean()

    start = torch.randn(sum(sizes), generator=generator, dtype=F64) / 2
    theta = _minimise(loss, start).requires_grad_()
    h, output = forward(theta)
    delta = (output - y).detach() @ unpack(theta.detach())[2].T
    phi = fit_predictor(h.detach(), y, delta)
    synthetic = predict(phi, h.detach(), y)
    true = torch.autograd.grad(loss(theta), theta)[0]
    (lower,) = torch.autograd.grad(h, theta, synthetic / len(x))
    design = torch.cat([h.detach(), y, torch.ones(len(x), 1, dtype=F64)], 1)
    n_lower = sizes[0] + sizes[1]
    return (
        float((synthetic - delta).abs().max()),
        float(true[n_lower:].norm()),
        float(lower[:n_lower].norm()),
        float((2 * design.T @ (synthetic - delta) / len(x)).norm()),
        float(true.norm()),
    )


def _minimise(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Return a point with a vanishing gradient: BFGS, then Newton steps."""

    def gradient(theta: Tensor) -> Tensor:
        theta = theta.clone().requires_grad_()
        return torch.autograd.grad(loss(theta), theta)[0]

    search: Any = optimize.minimize  # scipy's own types know no options by name
    found = search(
        lambda values: float(loss(torch.from_numpy(values))),
        start.numpy(),
        jac=lambda values: gradient(torch.from_numpy(values)).numpy(),
        method="BFGS",
        options={"maxiter": 1000, "gtol": 1e-7},
    )
    theta = torch.from_numpy(found.x)
    for _ in range(60):
        slope = gradient(theta)
        if slope.norm() < 1e-13:
            break
        hessian = _hessian(loss, theta)
        theta = theta - torch.linalg.pinv(hessian, rtol=1e-10) @ slope
    return theta


def _hessian(loss: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    theta = theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(theta), theta, create_graph=True)
    rows = [torch.autograd.grad(s, theta, retain_graph=True)[0] for s in slope]
    return torch.stack(rows)


@claim(
    "C2",
    order=2,
    statement=(
        "Synthetic gradients can add critical points that the original problem does "
        "not have."
    ),
    source="Czarnecki et al. 2017, supplement A (one-dimensional example)",
    experiment=(
        "x in {-2, -1, 1, 2}, f(x) = ax + b, loss sum |f|, one constant c in place of "
        "the gradient at f; at a = 1, b = 0 the gradients are compared."
    ),
    gates=[
        Gate("synthetic gradient", "==", 0.0, "by hand"),
        Gate("true gradient", "==", 6.0, "by hand"),
        Gate("way moved in 100 steps", "==", 0.0, "by hand"),
    ],
)
def adds_critical_points(lab: Lab) -> Evidence:
    """Measure both gradients in the one-dimensional example."""
    x = np.array([-2.0, -1.0, 1.0, 2.0])
    a, b = 1.0, 0.0
    delta = np.sign(a * x + b)
    c = float(delta.mean())
    synthetic = float(np.hypot(c * x.sum(), c * len(x)))
    true = float((delta * x).sum())
    path = _descend_constant(x, a, b)
    return Evidence(
        {
            "best constant": [c],
            "synthetic gradient": [synthetic],
            "true gradient": [true],
            "way moved in 100 steps": [path],
        }
    )


def _descend_constant(x: np.ndarray, a: float, b: float) -> float:
    """Return how far (a, b) moves in 100 synthetic steps with c trained along."""
    start, c = (a, b), 0.0
    for _ in range(100):
        delta = np.sign(a * x + b)
        a, b = a - 0.01 * c * float(x.sum()), b - 0.01 * c * len(x)
        c -= 0.1 * 2 * (c - float(delta.mean()))
    return float(np.hypot(a - start[0], b - start[1]))


@claim(
    "C3",
    order=3,
    statement=(
        "Where everything above the split is affine and the loss is squared error, the "
        "conditioned linear predictor is exact: A = VV', B = -V', C = cV'."
    ),
    source="follows from Czarnecki et al. 2017, section 3 (derivation ours)",
    experiment=(
        "Random affine stacks of one to five layers above h; least squares of the true "
        "errors on [h, y, 1] is compared with the formula."
    ),
    gates=[
        Gate("error of the formula", "<", 1e-10, "exact by theory; float64"),
        Gate("error of the fit", "<", 1e-10, "exact by theory; float64"),
    ],
)
def is_exact_for_squared_error(lab: Lab) -> Evidence:
    """Measure the fitted predictor against the closed form."""
    formula: list[float] = []
    fitted: list[float] = []
    for seed in lab.seeds:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float = 1.0, g: torch.Generator = generator):  # type: ignore[no-untyped-def]
            return torch.randn(*shape, generator=g, dtype=F64) * scale

        h, y = normal(200, 6), normal(200, 3)
        for layers in range(1, 6):
            sizes = [6] * layers + [3]
            stack = [
                (normal(m, n, scale=m**-0.5), normal(n))
                for m, n in zip(sizes, sizes[1:], strict=False)
            ]
            v, c = torch.eye(6, dtype=F64), torch.zeros(6, dtype=F64)
            output = h.clone()
            for weight, bias in stack:
                v, c, output = v @ weight, c @ weight + bias, output @ weight + bias
            delta = (output - y) @ v.T
            exact = torch.cat([v @ v.T, -v.T, (c @ v.T)[None]])
            formula.append(float((predict(exact, h, y) - delta).abs().max()))
            fitted.append(float((fit_predictor(h, y, delta) - exact).abs().max()))
    return Evidence({"error of the formula": formula, "error of the fit": fitted})
