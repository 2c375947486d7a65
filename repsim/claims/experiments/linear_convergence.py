"""Convergence of linear and deep linear systems, and what 'close enough' means."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from joblib import delayed
from torch import Tensor, nn

from repsim import learning
from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.drawing import curves, figure
from repsim.claims.experiments.critical_points import WRITTEN
from repsim.claims.experiments.linear_systems import (
    DEFINED,
    F64,
    RATE,
    STRAYS,
    affine,
    descend,
    descent,
    design,
    fitted,
    flat,
    put_back,
    read_predictor,
    set_rates,
    strays,
    write_predictor,
)
from repsim.claims.lab import Lab
from repsim.core.threads import one_thread
from repsim.learning.rule import Rule

RATES = (0.1, 0.3, 0.5, 0.75, 1.0, 1.5, 1.8)
"""The model's fixed rate as a multiple r of 1/lambda_max; descent needs r < 2."""

ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Rise of the potential, of its first value, that float64 may make up (sums of 600
squares); rises that fixed rates make are larger by ten orders of magnitude."""


@claim(
    "C4",
    order=6,
    statement=(
        "Linear regression with a linear predictor converges to the global optimum "
        "when the predictor's rate is chosen by line search and the model's in each "
        "iteration; the squared errors of network and predictor fall together."
    ),
    source="Czarnecki et al. 2017, Theorem 1 (potential: its proof idea)",
    experiment=(
        "n = 300, 5 inputs, 2 outputs, predictor from zero. In each iteration the rule "
        "makes a step of the predictor alone, its rate by exact line search, and a "
        "step of the model alone, its rate halved until the potential does not rise. "
        "Fixed rates of the model are reported as a curve."
    ),
    gates=[
        Gate("gap from the optimum", "<", 1e-8, "theory says zero; float64"),
        Gate("rises of the potential", "==", 0.0, "Theorem 1, in every iteration"),
        DEFINED,
    ],
    holds_for={"away": "the theorem holds from any predictor"},
    seconds=lambda settings: 6.0 * settings.seeds,
)
def linear_regression_converges(lab: Lab) -> Evidence:
    """Measure gap and potential with rates chosen as the theorem lets one choose."""
    runs = lab.parallel(delayed(_regressions)(lab.rule, seed) for seed in lab.seeds)
    measured: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run["measured"].items():
            measured.setdefault(name, []).append(value)
    drawn = curves(
        {name: np.maximum(values, 1e-17) for name, values in runs[0]["gaps"].items()},
        xlabel="iteration",
        ylabel="loss − optimum",
        log=True,
        title="Line-searched predictor, by the model's rate",
    )
    table = {
        f"r = {rate:g}": {
            "seeds in which it rises": sum(run["rises"][rate] for run in runs),
            "of": len(runs),
        }
        for rate in RATES
    }
    return Evidence(
        measured,
        drawn,
        {"potential at a fixed rate r / lambda_max, first 60 iterations": table},
        "Potential: squared distance from the optimum plus squared error of the "
        "predictor, per example; a rise counts above "
        f"{ROUNDING:.1g} of the first value. The theorem lets the model's rate be "
        "chosen in each iteration; no fixed rate is demanded of it.",
    )


@one_thread()
def _regressions(name: str, seed: int) -> dict[str, Any]:
    """Return what the theorem asks of one seed, and what fixed rates do."""
    system = Regression(name, seed)
    path = system.backtracked(3000)
    outcome: dict[str, Any] = {
        "measured": {
            "gap from the optimum": float(path["gap"][-1]),
            "rises of the potential": float(_rises(path).sum()),
            "smallest rate · lambda_max": float(path["rate"].min()),
            "iterations": float(len(path["gap"])),
            STRAYS: system.strays,
        },
        "gaps": {"rate chosen in each iteration": path["gap"]},
        "rises": {},
    }
    for rate in RATES:
        held = Regression(name, seed).fixed(rate, 60)
        outcome["rises"][rate] = int(_rises(held).any())
        outcome["gaps"][f"fixed, r = {rate:g}"] = held["gap"]
    return outcome


def _rises(path: dict[str, np.ndarray]) -> np.ndarray:
    up: np.ndarray = np.diff(path["potential"]) > ROUNDING * path["potential"][0]
    return up


class Regression:
    """Linear regression under a rule: its step in two halves, each with its rate."""

    def __init__(self, name: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n, d, k = 300, 5, 2
        x = rng.standard_normal((n, d))
        seen = np.c_[x, np.ones(n)]
        y = seen @ rng.standard_normal((d + 1, k)) + 0.5 * rng.standard_normal((n, k))
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)
        self.best = torch.from_numpy(seen @ np.linalg.lstsq(seen, y, rcond=None)[0])
        self.optimum = float(0.5 * (self.best - self.y).square().sum() / n)
        self.largest = float(np.linalg.eigvalsh(seen.T @ seen / n)[-1])
        self.net = affine([d, k], seed, at_output=True)
        with torch.no_grad():
            for p in self.net.parameters():
                p.zero_()
        options: dict[str, Any] = {"at": [1], "loss": "mse", "seed": seed}
        self.strays = strays(name, self.net, self.x, self.y, **options)
        self.rule = learning.make(
            name, self.net, lr=RATE, sg_lr=RATE, optimizer=descent, **options
        )

    def backtracked(self, iterations: int) -> dict[str, np.ndarray]:
        """Return gap, potential and rate · λmax, the rate halved until none rises."""
        rate = 1 / self.largest
        path: dict[str, list[float]] = {"gap": [], "potential": [], "rate": []}
        self.search()
        for _ in range(iterations):
            before, theta = self.potential(), flat(self.net.parameters())
            path["gap"].append(self.gap())
            path["potential"].append(before)
            if self.gap() < 1e-10:
                path["rate"].append(rate * self.largest)
                break
            rate = min(2 * rate, 1.9 / self.largest)
            for _ in range(40):
                self.move(rate)
                phi = read_predictor(self.rule).clone()
                self.search()
                if self.potential() <= before * (1 + ROUNDING):
                    break
                put_back(self.net, theta)
                write_predictor(self.rule, phi)
                rate /= 2
            path["rate"].append(rate * self.largest)
        return {name: np.array(values) for name, values in path.items()}

    def fixed(self, r: float, iterations: int) -> dict[str, np.ndarray]:
        """Return gap and potential where the model's rate is r / λmax throughout."""
        path: dict[str, list[float]] = {"gap": [], "potential": []}
        for _ in range(iterations):
            self.search()
            path["gap"].append(self.gap())
            path["potential"].append(self.potential())
            self.move(r / self.largest)
        return {name: np.array(values) for name, values in path.items()}

    def search(self) -> None:
        """Let the rule move its predictor to the lowest point along its gradient."""
        h, y = self.output(), self.y
        rows = design(h, y)
        residual = rows @ read_predictor(self.rule) - (h - y)
        slope = rows.T @ residual
        curvature = max(float((rows @ slope).square().sum()), 1e-300)
        searched = float(slope.square().sum()) / curvature * len(h) / 2
        set_rates(self.rule, network=0.0, predictors=searched)
        self.rule.step(self.x, y)

    def move(self, rate: float) -> None:
        """Let the rule move the model alone."""
        set_rates(self.rule, network=rate, predictors=0.0)
        self.rule.step(self.x, self.y)

    def output(self) -> Tensor:
        """Return what the model says, (n, 2)."""
        with torch.no_grad():
            values: Tensor = self.net(self.x)
        return values

    def gap(self) -> float:
        """Return the loss above the optimum's."""
        loss = 0.5 * (self.output() - self.y).square().sum() / len(self.x)
        return abs(float(loss) - self.optimum)

    def potential(self) -> float:
        """Return the squared errors of model and predictor, per example."""
        h = self.output()
        synthetic = design(h, self.y) @ read_predictor(self.rule)
        away = (h - self.best).square().sum() + (synthetic - h + self.y).square().sum()
        return float(away / len(h))


@claim(
    "C5",
    order=7,
    statement=(
        "Deep linear networks under squared error converge with a linear predictor "
        "between two of their layers."
    ),
    source="Czarnecki et al. 2017, Corollary 1",
    experiment=(
        "Depths 3 and 10, width 5. Exact: the predictor is refitted before every step "
        "of the rule and the rate backtracked on the true loss. Learned: full batches, "
        "Adam 3e-3 falling to zero, against backpropagation from the same start."
    ),
    gates=[
        Gate("gap with exact tracking", "<", 1e-6, "theory says zero"),
        Gate("rises with exact tracking", "==", 0.0, "backtracked rate"),
        Gate("gap with a learned predictor", "<", 1e-3, "trials of ours: 4e-4"),
        DEFINED,
    ],
    holds_for={"away": "the corollary holds from any predictor"},
    seconds=lambda settings: (
        (4.0 + 0.006 * settings.scale.learned_steps) * settings.seeds
    ),
)
def deep_linear_converges(lab: Lab) -> Evidence:
    """Measure the distance from the optimum with exact and with learned predictors."""
    steps = lab.settings.scale.learned_steps
    cells = [(depth, seed) for depth in (3, 10) for seed in lab.seeds]
    runs = lab.parallel(
        delayed(_deep)(lab.rule, depth, seed, steps) for depth, seed in cells
    )
    measured: dict[str, list[float]] = {}
    shown: dict[str, np.ndarray] = {}
    for run in runs:
        for name, value in run["measured"].items():
            measured.setdefault(name, []).append(value)
        for name, values in run["paths"].items():
            shown.setdefault(name, np.maximum(values, 1e-17))
    drawn = curves(
        shown,
        xlabel="iteration",
        ylabel="loss − optimum",
        log=True,
        title="Deep linear networks, squared error",
    )
    return Evidence(measured, drawn)


@one_thread()
def _deep(name: str, depth: int, seed: int, steps: int) -> dict[str, Any]:
    """Return gaps of one deep linear network, and its losses above the optimum."""
    x, y, optimum = _linear_task(seed)
    options: dict[str, Any] = {"at": [depth // 2], "loss": "mse", "seed": seed}
    net = _near_identity(depth, seed)
    apart = strays(name, net, x, y, **options)
    rule = learning.make(name, net, lr=RATE, sg_lr=RATE, optimizer=descent, **options)
    exact = _tracked(rule, x, y, optimum)
    plain = {"loss": "mse", "seed": seed}
    learned = {
        title: np.array(_learned(rule_name, depth, x, y, steps, chosen)) - optimum
        for title, rule_name, chosen in (
            ("learned", name, options),
            ("backpropagation", "bp", plain),
        )
    }
    paths = {"exact": exact, **learned}
    return {
        "measured": {
            "gap with exact tracking": float(exact[-1]),
            "gap with a learned predictor": float(
                abs(learned["learned"][-1] - learned["backpropagation"][-1])
            ),
            "rises with exact tracking": float((np.diff(exact) > 1e-14).sum()),
            STRAYS: apart,
        },
        "paths": {f"depth {depth}, {title}": path for title, path in paths.items()},
    }


def _linear_task(seed: int) -> tuple[Tensor, Tensor, float]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 5, generator=generator, dtype=F64)
    target = torch.randn(5, 2, generator=generator, dtype=F64)
    noise = torch.randn(200, 2, generator=generator, dtype=F64)
    y = x @ target + 0.3 * noise
    best = design(x, None) @ torch.linalg.lstsq(design(x, None), y).solution
    return x, y, float(0.5 * (best - y).square().sum() / len(x))


def _near_identity(depth: int, seed: int) -> nn.Module:
    """Return a deep linear network that neither shrinks nor blows up its input."""
    generator = torch.Generator().manual_seed(seed + 1)
    net = affine([5] * depth + [2], seed)
    with torch.no_grad():
        for p in net.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=F64)
            square = p.ndim == 2 and p.shape[0] == p.shape[1]
            p.copy_(torch.eye(5, dtype=F64) + 0.1 * noise if square else 0.1 * noise)
    return net


def _tracked(rule: Rule, x: Tensor, y: Tensor, optimum: float) -> np.ndarray:
    """Return loss − optimum when the predictor in the middle is refitted every step."""
    net = rule.network
    rate, path = 0.1, [_loss(net, x, y) - optimum]
    for _ in range(2000):
        if path[-1] < 1e-8:
            break
        _refit(rule, x, y)
        theta, phi = flat(net.parameters()), read_predictor(rule).clone()
        for _ in range(40):
            set_rates(rule, network=rate, predictors=0.0)
            rule.step(x, y)
            after = _loss(net, x, y) - optimum
            if after <= path[-1]:
                break
            put_back(net, theta)
            write_predictor(rule, phi)
            rate /= 2
        else:  # no step of double precision lowers the loss any further
            break
        path.append(after)
        rate *= 1.5
    return np.array(path)


def _refit(rule: Rule, x: Tensor, y: Tensor) -> None:
    """Write the least-squares predictor of the true error behind the split."""
    with torch.no_grad():
        h = x
        for name, block in rule.blocks.items():
            h = block(h)
            if name == rule.splits[0]:
                split = h
    write_predictor(rule, fitted(split, y, _true_error(rule, split, y)))


def _true_error(rule: Rule, h: Tensor, y: Tensor) -> Tensor:
    """Return the per-sample error behind the split, by autograd from the loss."""
    names = list(rule.blocks)
    output = start = h.detach().requires_grad_()
    for name in names[names.index(rule.splits[0]) + 1 :]:
        output = rule.blocks[name](output)
    (error,) = torch.autograd.grad(0.5 * (output - y).square().sum(), start)
    return error


def _loss(net: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float(0.5 * (net(x) - y).square().sum() / len(x))


def _learned(
    name: str, depth: int, x: Tensor, y: Tensor, steps: int, options: Any
) -> list[float]:
    """Return the losses under Adam, the rate falling to zero over the second half."""
    net = _near_identity(depth, options["seed"])
    rule = learning.make(name, net, lr=3e-3, **options)
    return descend(rule, x, y, steps, 3e-3)


INSIDE = (0.5, 0.9)
OUTSIDE = 1.1


@claim(
    "C6",
    order=8,
    statement=(
        "A synthetic gradient that stays close enough to the true one, relative to its "
        "size, still descends: the angle is bounded and training reaches a critical "
        "point; beyond the bound it need not."
    ),
    source="Czarnecki et al. 2017, Proposition 2 (sharper bound ours)",
    experiment=(
        "A linear network with squared error, where the exact predictor is known. "
        "Before every step it is written into the rule, disturbed so that the lower "
        "gradient errs by r times its size towards the worst angle (r = 0.5, 0.9), or "
        "straight uphill (r = 1.1)."
    ),
    gates=[
        Gate("violations of cos >= d", "==", 0.0, "exact by theory"),
        Gate("violations of cos >= sqrt(1 - r^2)", "==", 0.0, "exact by theory"),
        Gate("final gradient norm, r = 0.5", "<", 1e-6, "convergence in float64"),
        Gate("final gradient norm, r = 0.9", "<", 1e-6, "convergence in float64"),
        Gate("|error of the step / its size − r|", "<", 1e-6, "what was put; float64"),
        Gate("final gradient norm, r = 1.1", ">", 1e-3, "uphill: nothing converges"),
        DEFINED,
    ],
    holds_for={"away": WRITTEN},
    seconds=lambda settings: 8.0 * settings.seeds,
)
def close_enough_descends(lab: Lab) -> Evidence:
    """Measure angles and descent under errors of bounded relative size."""
    runs = lab.parallel(delayed(_disturbed)(lab.rule, seed) for seed in lab.seeds)
    measured: dict[str, list[float]] = {}
    for numbers, _ in runs:
        for name, value in numbers.items():
            measured.setdefault(name, []).append(value)
    drawn, axes = figure(1, 2, figsize=(9.6, 3.6))
    for r, path in runs[0][1].items():
        axes[0, 0].plot(path["norm"], label=f"r = {r:g}", lw=1.4)
        axes[0, 1].plot(path["cosine"], label=f"r = {r:g}", lw=1.4)
    axes[0, 0].set(xlabel="step", ylabel="gradient norm", yscale="log")
    axes[0, 1].set(xlabel="step", ylabel="cosine of step and true gradient")
    axes[0, 1].legend(frameon=False)
    return Evidence(measured, drawn)


@one_thread()
def _disturbed(
    name: str, seed: int
) -> tuple[dict[str, float], dict[float, dict[str, np.ndarray]]]:
    """Return what the proposition asks of one seed, and its paths by r."""
    measured: dict[str, float] = {}
    path: dict[float, dict[str, np.ndarray]] = {}
    for r in (*INSIDE, OUTSIDE):
        system = Disturbed(name, seed)
        path[r] = system.run(r, 4000 if r < 1 else 60)
        measured[f"final gradient norm, r = {r:g}"] = float(path[r]["norm"][-1])
    inside = [(r, path[r]["cosine"]) for r in INSIDE]
    bounds: tuple[tuple[str, Callable[[float], float]], ...] = (
        ("violations of cos >= d", lambda r: (1 - r) / (1 + r)),
        ("violations of cos >= sqrt(1 - r^2)", lambda r: float(np.sqrt(1 - r * r))),
    )
    for title, bound in bounds:
        measured[title] = float(sum((c < bound(r) - 1e-6).sum() for r, c in inside))
    measured["smallest cos / sqrt(1 - r^2)"] = min(
        float(c.min() / np.sqrt(1 - r * r)) for r, c in inside
    )
    measured["|error of the step / its size − r|"] = max(
        float(np.abs(p["error"] - r).max()) for r, p in path.items()
    )
    measured[STRAYS] = system.strays
    return measured, path


class Disturbed:
    """A linear network whose exact predictor is disturbed before each of its steps."""

    def __init__(self, name: str, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(50, 3, generator=generator, dtype=F64)
        target = torch.randn(3, 2, generator=generator, dtype=F64)
        noise = torch.randn(50, 2, generator=generator, dtype=F64)
        self.y = self.x @ target + 0.3 * noise
        self.net = affine([3, 4, 2], seed)
        options: dict[str, Any] = {"at": [1], "loss": "mse", "seed": seed}
        self.strays = strays(name, self.net, self.x, self.y, **options)
        self.rule = learning.make(
            name, self.net, lr=RATE, sg_lr=RATE, optimizer=descent, **options
        )
        self.rng = np.random.default_rng(seed)

    def run(self, r: float, steps: int) -> dict[str, np.ndarray]:
        """Return the gradient's norm, the step's angle to it and its relative error."""
        path: dict[str, list[float]] = {"norm": [], "cosine": [], "error": []}
        lower = list(next(iter(self.rule.blocks.values())).parameters())
        for _ in range(steps):
            loss = 0.5 * (self.net(self.x) - self.y).square().sum() / len(self.x)
            gradients = torch.autograd.grad(loss, list(self.net.parameters()))
            path["norm"].append(float(flat(gradients).norm()))
            true = flat(gradients[: len(lower)])
            if path["norm"][-1] < 1e-6 or true.norm() < 1e-9:
                break
            self.disturb(true, self.worst(true, r))
            before = flat(lower)
            set_rates(self.rule, network=RATE, predictors=0.0)
            self.rule.step(self.x, self.y)
            step = (before - flat(lower)) / RATE
            path["cosine"].append(float(step @ true / (step.norm() * true.norm())))
            path["error"].append(float((step - true).norm() / true.norm()))
        return {name: np.array(values) for name, values in path.items()}

    def worst(self, true: Tensor, r: float) -> Tensor:
        """Return the error of relative size r that turns the step furthest."""
        if r >= 1:
            return -r * true
        across = torch.from_numpy(self.rng.standard_normal(len(true)))
        across -= (across @ true) / (true @ true) * true
        across *= true.norm() / across.norm()
        error: Tensor = -r * r * true + r * float(np.sqrt(1 - r * r)) * across
        return error

    def disturb(self, true: Tensor, error: Tensor) -> None:
        """Write the exact predictor plus what gives the lower weights this error."""
        blocks: list[Any] = list(self.rule.blocks.values())
        first, last = blocks
        with torch.no_grad():
            h = first(self.x)
            v, c = last.weight.T, last.bias
            exact = torch.cat([v @ v.T, (c @ v.T)[None], -v.T])
            # Lower gradient of S: [x, 1]' S / n; h, y and 1 span the rows of S.
            seen, rows = design(self.x, None), design(h, self.y)
            way = seen.T @ rows / len(h)
            units = h.shape[1]
            weight = error[: units * 3].reshape(units, 3).T
            wanted = torch.cat([weight, error[units * 3 :][None]])
            phi = torch.linalg.lstsq(way, wanted, driver="gelsd").solution
        write_predictor(self.rule, exact + phi)
