"""What conditioning on the label buys, and what batch normalisation hides (float64)."""

import torch
from torch import Tensor

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.experiments.critical_points import F64
from repsim.claims.lab import Lab

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
        "squares optimum; both predictors fitted by least squares; gradient of the "
        "lower weights against the true one."
    ),
    gates=[
        Gate("unlabelled gradient / true, bottleneck", "<", 1e-8, "zero by theory"),
        Gate("labelled error / true, bottleneck", "<", 1e-10, "zero by theory"),
        Gate("unlabelled error / true, no bottleneck", "<", 1e-10, "zero by theory"),
    ],
)
def bottleneck(lab: Lab) -> Evidence:
    """Measure parameter gradients of both predictors with and without a bottleneck."""
    measured: dict[str, list[float]] = {
        "unlabelled gradient / true, bottleneck": [],
        "labelled error / true, bottleneck": [],
        "unlabelled error / true, no bottleneck": [],
    }
    for seed in lab.seeds:
        for width in RANKS:
            blind, seeing, relative = _gradients(seed, width)
            if width < 10:
                measured["unlabelled gradient / true, bottleneck"].append(relative)
                measured["labelled error / true, bottleneck"].append(seeing)
            else:
                measured["unlabelled error / true, no bottleneck"].append(blind)
    return Evidence(measured)


def _gradients(seed: int, width: int) -> tuple[float, float, float]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=F64)

    x, w = normal(500, 10), normal(10, width)
    y = x @ normal(10, 2) + normal(500, 2)
    h = x @ w
    # Without a bottleneck the optimum has no gradient left; any other V will do.
    ones = torch.ones(500, 1, dtype=F64)
    upper = normal(width + 1, 2)
    if width < 10:
        upper = torch.linalg.lstsq(torch.cat([h, ones], 1), y).solution
    v, c = upper[:-1], upper[-1]
    delta = (h @ v + c - y) @ v.T
    true = x.T @ delta
    blind, seeing = (
        x.T @ (design @ torch.linalg.lstsq(design, delta, driver="gelsd").solution)
        for design in (torch.cat([h, ones], 1), torch.cat([h, y, ones], 1))
    )
    size = true.norm()
    return (
        float((blind - true).norm() / size),
        float((seeing - true).norm() / size),
        float(blind.norm() / size),
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
        "One linear layer and batch normalisation in training mode, random predictors; "
        "the weights' gradient with and without a constant added to the error."
    ),
    gates=[
        Gate("change of the weights' gradient / its size", "<", 1e-10, "zero by theory")
    ],
)
def normalisation_hides_constants(lab: Lab) -> Evidence:
    """Measure what a constant error does below batch normalisation."""
    change, offset = [], []
    for seed in lab.seeds:
        generator = torch.Generator().manual_seed(seed)
        x, error = (torch.randn(64, d, generator=generator, dtype=F64) for d in (10, 8))
        weight = torch.randn(8, 10, generator=generator, dtype=F64).requires_grad_()
        beta = torch.zeros(8, dtype=F64, requires_grad=True)
        h = torch.nn.functional.batch_norm(
            x @ weight.T, None, None, bias=beta, training=True, eps=1e-12
        )
        constant = torch.randn(8, generator=generator, dtype=F64)
        plain = torch.autograd.grad(h, (weight, beta), error, retain_graph=True)
        moved = torch.autograd.grad(h, (weight, beta), error + constant)
        change.append(float((moved[0] - plain[0]).norm() / plain[0].norm()))
        offset.append(float((moved[1] - plain[1]).norm() / plain[1].norm()))
    return Evidence(
        {
            "change of the weights' gradient / its size": change,
            "change of the shift's gradient / its size": offset,
        }
    )
