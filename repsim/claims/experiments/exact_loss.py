"""Where the predictor is exact, the loss that it implies is the true one (float64)."""

from typing import Any, cast

import torch

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.experiments.linear_systems import (
    DEFINED,
    F64,
    RATE,
    STRAYS,
    affine,
    descent,
    predictors,
    set_rates,
    stable_rate,
    strays,
)
from repsim.claims.lab import Lab
from repsim.learning.implied_loss import reconstructed_loss


@claim(
    "T10",
    order=11,
    statement=(
        "Where the predictor is exact, the loss reconstructed from it is the true loss."
    ),
    source="Czarnecki et al. 2017, section 3 (extracting the loss)",
    experiment=(
        "Affine network above h, squared error. The rule's own steps train its "
        "predictor, from where it starts, to convergence, the network's rate being 0; "
        "the loss that it implies against the true one over all examples, constants "
        "removed."
    ),
    gates=[
        Gate("largest error of the loss", "<", 1e-10, "exact by theory; float64"),
        Gate("curl of A", "<", 1e-10, "exact by theory; float64"),
        DEFINED,
    ],
    holds_for={"away": "the regression has one optimum, from wherever it starts"},
    seconds=lambda settings: 1.0 * settings.seeds,
)
def exact_predictor_gives_the_loss(lab: Lab) -> Evidence:
    """Measure the loss that the learned predictor of an affine network implies."""
    measured: dict[str, list[float]] = {
        "largest error of the loss": [],
        "curl of A": [],
        STRAYS: [],
    }
    for seed in lab.seeds:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(200, 6, generator=generator, dtype=F64)
        y = torch.eye(3, dtype=F64)[torch.arange(200) % 3]
        net = affine([6, 6, 3], seed)
        options: dict[str, Any] = {"at": [1], "loss": "mse", "seed": seed}
        measured[STRAYS].append(strays(lab.rule, net, x, y, **options))
        first, last = (cast(Any, block) for block in net.children())
        with torch.no_grad():  # Equal variances: the regression converges fast.
            first.linear.weight.copy_(torch.linalg.qr(x[:6, :6]).Q)
            h = first(x)
            true = 0.5 * (last(h) - y).square().sum(1)
        rule = lab.make(
            lab.rule, net, lr=RATE, sg_lr=RATE, optimizer=descent, **options
        )
        set_rates(rule, network=0.0, predictors=stable_rate(h, y))
        for _ in range(1500):
            rule.step(x, y)
        implied = reconstructed_loss(
            predictors(rule)[rule.splits[0]], h, y, true_loss=true, points=2
        )
        measured["largest error of the loss"].append(
            float((implied.values - true).abs().max())
        )
        measured["curl of A"].append(implied.curl)
    return Evidence(measured)
