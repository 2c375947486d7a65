"""The two properties that make a gradient synthetic: where it starts, what it moves."""

from typing import Any

import torch
from torch import Tensor, nn

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.experiments.linear_systems import (
    DEFINED,
    F64,
    RATE,
    STRAYS,
    affine,
    descent,
    deviations,
    flat,
    strays,
)
from repsim.claims.experiments.one_frame import small_batch, small_network
from repsim.claims.lab import Lab
from repsim.learning.rule import Rule
from repsim.networks import mlp


@claim(
    "M1",
    order=28,
    statement=(
        "A predictor starts at zero, so the first update leaves everything below the "
        "split where it is; and a network that makes no error stays where it is."
    ),
    source="Jaderberg et al. 2017 (zero last layer); Czarnecki et al. 2017, section 3",
    experiment=(
        "One update of the rule by plain descent; and 500 updates from a linear "
        "network whose targets are its own outputs."
    ),
    gates=[
        Gate("way of the lower weights in one update", "==", 0.0, "zero by definition"),
        Gate(
            "way from a point of zero loss in 500 updates", "<", 1e-9, "zero by theory"
        ),
        DEFINED,
    ],
)
def starts_at_zero(lab: Lab) -> Evidence:
    """Measure what the rule does before its predictor has learned anything."""
    first, still, apart = [], [], []
    for seed in lab.seeds:
        net, (x, y) = small_network(seed, 4), small_batch(seed)
        rule = _rule(lab, net, seed)
        before = _lower(rule)
        rule.step(x, y)
        first.append(float((_lower(rule) - before).abs().max()))
        teacher = affine([6, 5, 5, 2], seed)
        x = torch.randn(50, 6, dtype=F64, generator=torch.Generator().manual_seed(seed))
        y = teacher(x).detach()
        options: dict[str, Any] = {"at": [1], "loss": "mse", "seed": seed}
        apart.append(strays(lab.rule, teacher, x, y, **options))
        start = flat(teacher.parameters())
        rule = lab.make(lab.rule, teacher, lr=1e-2, **options)
        for _ in range(500):
            rule.step(x, y)
        still.append(float((flat(teacher.parameters()) - start).abs().max()))
    return Evidence(
        {
            "way of the lower weights in one update": first,
            "way from a point of zero loss in 500 updates": still,
            STRAYS: apart,
        }
    )


def _rule(lab: Lab, net: nn.Module, seed: int) -> Rule:
    return lab.make(
        lab.rule, net, at=[2], lr=RATE, sg_lr=RATE, optimizer=descent, seed=seed
    )


def _lower(rule: Rule) -> Tensor:
    """Return a copy of the parameters below the split."""
    blocks = list(rule.blocks)
    below = blocks[: blocks.index(rule.splits[0]) + 1]
    return flat(p for name in below for p in rule.blocks[name].parameters())


@claim(
    "M2",
    order=29,
    statement=(
        "Above the split the network follows the true gradient and below it the "
        "predicted one; the predictor's own regression moves neither."
    ),
    source="Czarnecki et al. 2017, section 2 (the system's update rule)",
    experiment=(
        "After 20 updates, one more by plain descent, in float64; every parameter's "
        "change is compared with derivatives taken by autograd from the detached "
        "activation, the predicted error and the predictor's regression."
    ),
    gates=[
        Gate(f"{part} step − definition", "<", 1e-10, "equal by definition; float64")
        for part in ("upper", "lower", "predictor")
    ],
    holds_for={"away": "a step is what it is from any predictor; M1 asks the start"},
)
def two_gradients(lab: Lab) -> Evidence:
    """Measure one update of the rule against its definition."""
    measured: dict[str, list[float]] = {}
    for seed in lab.seeds:
        net = mlp(8, [16] * 4, 4, batch_norm=False, seed=seed).double()
        rule = _rule(lab, net, seed)
        x, y = small_batch(seed)
        for _ in range(20):
            rule.step(x.double(), y)
        for part, value in deviations(rule, x.double(), y, RATE).items():
            measured.setdefault(f"{part} step − definition", []).append(value)
    return Evidence(measured)
