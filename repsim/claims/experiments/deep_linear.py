"""Deep linear networks with a synthetic gradient: Corollary 1."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repsim import learning
from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.drawing import curves
from repsim.claims.experiments.linear_systems import (
    F64,
    RATE,
    STARTS,
    STRAYS,
    SYSTEM,
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
    system,
    write_predictor,
)
from repsim.claims.lab import Lab
from repsim.core.threads import one_thread
from repsim.learning.rule import Rule


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
        *SYSTEM,
    ],
    seconds=lambda settings: (
        (4.0 + 0.006 * settings.scale.learned_steps) * settings.few
    ),
)
def deep_linear_converges(lab: Lab) -> Evidence:
    """Measure the distance from the optimum with exact and with learned predictors."""
    steps = lab.settings.scale.learned_steps
    cells = [(depth, seed) for depth in (3, 10) for seed in lab.few_seeds]
    runs = lab.each(_deep, [(lab.rule, depth, seed, steps) for depth, seed in cells])
    measured: dict[str, list[float]] = {}
    shown: dict[str, np.ndarray] = {}
    for run in runs:
        for name, value in run["measured"].items():
            measured.setdefault(name, []).append(value)
        for name, values in run["paths"].items():
            shown.setdefault(name, np.maximum(values, 1e-17))
    # The learned part trains: from a predictor that starts away it takes longer.
    measured[STARTS] = system(lab)[STARTS]
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
        "paths": {f"depth {depth}, {k}": path.tolist() for k, path in paths.items()},
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
