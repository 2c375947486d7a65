"""What 'close enough' means: errors of a bounded size, turned to the worst angle."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from joblib import delayed
from torch import Tensor

from repsim import learning
from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.drawing import figure
from repsim.claims.experiments.critical_points import WRITTEN
from repsim.claims.experiments.linear_systems import (
    DEFINED,
    F64,
    RATE,
    STRAYS,
    affine,
    descent,
    design,
    flat,
    set_rates,
    strays,
    write_predictor,
)
from repsim.claims.lab import Lab
from repsim.core.threads import one_thread

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
