"""What conditioning on the label buys, and what batch normalisation hides (float64)."""

from typing import Any

import torch
from torch import Tensor, nn

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.experiments.critical_points import WRITTEN
from repsim.claims.experiments.linear_systems import (
    DEFINED,
    F64,
    RATE,
    STRAYS,
    affine,
    descent,
    fitted,
    flat,
    put_back,
    strays,
    write_predictor,
)
from repsim.claims.lab import Lab
from repsim.networks import mlp

RANKS = (3, 10, 15)
"""Width of the hidden layer; below the 10 inputs it is a bottleneck."""


@claim(
    "T5",
    order=4,
    statement=(
        "Below a bottleneck a predictor without the label is stuck wherever the upper "
        "layer is optimal, while the true gradient is large; with the label it is "
        "exact."
    ),
    source="ours (an extension; not a claim of the paper)",
    experiment=(
        "Linear layers 10 → d → 2, squared error, n = 500, the upper one at its least "
        "squares optimum; both predictors fitted by least squares and written into the "
        "rule; how its step moves the lower weights, against the true gradient."
    ),
    gates=[
        Gate("unlabelled step / true, bottleneck", "<", 1e-8, "zero by theory"),
        Gate("labelled error / true, bottleneck", "<", 1e-10, "zero by theory"),
        Gate("unlabelled error / true, no bottleneck", "<", 1e-10, "zero by theory"),
        DEFINED,
    ],
    holds_for={"away": WRITTEN},
)
def bottleneck(lab: Lab) -> Evidence:
    """Measure steps of both predictors with and without a bottleneck."""
    measured: dict[str, list[float]] = {
        "unlabelled step / true, bottleneck": [],
        "labelled error / true, bottleneck": [],
        "unlabelled error / true, no bottleneck": [],
        STRAYS: [],
    }
    for seed in lab.seeds:
        for width in RANKS:
            blind, seeing, relative, deviation = _steps(lab, seed, width)
            measured[STRAYS].append(deviation)
            if width < 10:
                measured["unlabelled step / true, bottleneck"].append(relative)
                measured["labelled error / true, bottleneck"].append(seeing)
            else:
                measured["unlabelled error / true, no bottleneck"].append(blind)
    return Evidence(measured)


def _steps(lab: Lab, seed: int, width: int) -> tuple[float, float, float, float]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=F64)

    x = normal(500, 10)
    y = x @ normal(10, 2) + normal(500, 2)
    net = affine([10, width, 2], seed)
    lower, upper = (m for m in net.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        h = lower(x)
        if width < 10:
            # Without a bottleneck the optimum has no gradient left; any V will do.
            best = fitted(h, None, y)
            upper.weight.copy_(best[:-1].T)
            upper.bias.copy_(best[-1])
        delta = (upper(h) - y) @ upper.weight
        true = torch.cat([(delta.T @ x).flatten(), delta.sum(0)]) / len(x)
    moved: dict[bool, Tensor] = {}
    deviation = 0.0
    before = flat(net.parameters())
    for conditioned in (False, True):
        options: dict[str, Any] = {
            "at": [1], "loss": "mse", "seed": seed, "conditioned": conditioned,
        }  # fmt: skip
        deviation = max(deviation, strays(lab.rule, net, x, y, **options))
        rule = lab.make(
            lab.rule, net, lr=RATE, sg_lr=RATE, optimizer=descent, **options
        )
        write_predictor(rule, fitted(h, y if conditioned else None, delta))
        rule.step(x, y)
        moved[conditioned] = (before - flat(net.parameters()))[: len(true)] / RATE
        put_back(net, before)
    size = float(true.norm())
    return (
        float((moved[False] - true).norm()) / size,
        float((moved[True] - true).norm()) / size,
        float(moved[False].norm()) / size,
        deviation,
    )


@claim(
    "T11",
    order=5,
    statement=(
        "Where the layer below the split ends in batch normalisation, the predictor's "
        "constant moves only the normalisation's own parameters: the weights below do "
        "not see it."
    ),
    source="ours (derivation; the paper's networks use batch normalisation)",
    experiment=(
        "A linear layer with batch normalisation below the split; the rule's step on "
        "the weights with and without a constant added to its predictor."
    ),
    gates=[
        Gate("change of the weights' step / its size", "<", 1e-10, "zero by theory"),
        Gate("change of the shift's step / its size", ">", 0.1, "it takes all of it"),
        DEFINED,
    ],
    holds_for={"away": WRITTEN},
)
def normalisation_hides_constants(lab: Lab) -> Evidence:
    """Measure what a predictor's constant does below batch normalisation."""
    measured: dict[str, list[float]] = {
        "change of the weights' step / its size": [],
        "change of the shift's step / its size": [],
        STRAYS: [],
    }
    for seed in lab.seeds:
        generator = torch.Generator().manual_seed(seed)
        x, phi = (
            torch.randn(*shape, generator=generator, dtype=F64)
            for shape in ((64, 10), (8 + 1 + 2, 8))
        )
        y = torch.arange(64) % 2
        net = mlp(10, [8], 2, activation="identity", batch_norm="after", seed=seed)
        net = net.double()
        options: dict[str, Any] = {"at": [1], "seed": seed}
        measured[STRAYS].append(strays(lab.rule, net, x, y, **options))
        steps = []
        before = flat(net.parameters())
        for constant in (0.0, 1.0):
            rule = lab.make(
                lab.rule, net, lr=RATE, sg_lr=RATE, optimizer=descent, **options
            )
            shifted = phi.clone()
            shifted[8] += constant * torch.arange(1.0, 9.0, dtype=F64)
            write_predictor(rule, shifted)
            rule.step(x, y)
            steps.append(before - flat(net.parameters()))
            put_back(net, before)
        # In order: weight (8, 10) and bias of the layer, scale and shift of the norm.
        for name, part in (
            ("change of the weights' step / its size", slice(0, 80)),
            ("change of the shift's step / its size", slice(96, 104)),
        ):
            plain, moved = (step[part] for step in steps)
            measured[name].append(float((moved - plain).norm() / plain.norm()))
    return Evidence(measured)
