"""Linear regression with a synthetic gradient: Theorem 1."""

from typing import Any

import numpy as np
import torch
from joblib import delayed
from torch import Tensor

from repsim import learning
from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.drawing import curves
from repsim.claims.experiments.linear_systems import (
    DEFINED,
    RATE,
    STRAYS,
    affine,
    descent,
    design,
    flat,
    put_back,
    read_predictor,
    set_rates,
    strays,
    write_predictor,
)
from repsim.claims.lab import Lab
from repsim.core.threads import one_thread

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
