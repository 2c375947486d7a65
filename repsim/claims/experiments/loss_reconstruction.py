"""The loss that a predictor implies, and how near it is to the true one."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from repsim import learning
from repsim.claims.base import Evidence, Gate, Values, claim, difference
from repsim.claims.drawing import figure
from repsim.claims.experiments.linear_systems import (
    STARTS,
    STRAYS,
    SYSTEM,
    predictors,
    strays,
    system,
)
from repsim.claims.lab import Lab
from repsim.core.threads import one_thread
from repsim.datasets import to_tensors
from repsim.datasets.inputs import toy
from repsim.learning.implied_loss import reconstructed_loss
from repsim.networks import mlp
from repsim.training.segment_groups import training_mode

SETS = ("lin", "xor")
LAYERS = 5
WIDTH = 20
"""The paper's five rectified layers; their width is our choice."""
SIDE = 25
"""Points along each side of the grid of inputs."""
EVERY = list(range(1, LAYERS + 1))


@claim(
    "C8",
    order=12,
    statement=(
        "The loss reconstructed from the predictors is nearer to the true one at "
        "layers near the output."
    ),
    source="Czarnecki et al. 2017, Figure 2",
    experiment=(
        "Five rectified layers of 20, a linear predictor behind each, on lin_2 and "
        "xor_2 with squared error and log loss; correlation of both losses over a grid "
        "of inputs for either label, at five moments of training."
    ),
    gates=[
        Gate(
            "share of moments at which the top layer is nearer",
            ">=",
            0.8,
            "ours: in four of five moments",
            "mean",
        ),
        *SYSTEM,
    ],
    seconds=lambda settings: 0.005 * settings.scale.surface_steps * settings.seeds,
)
def better_near_the_output(lab: Lab) -> Evidence:
    """Measure reconstruction by layer: Figure 2."""
    series = _surfaces(lab)
    names = list(series["correlation"])
    r = np.array([series["correlation"][name] for name in names])  # set, seed, t, layer
    measured = {
        "share of moments at which the top layer is nearer": (
            (r[..., -1] > r[..., 0]).mean((0, 2)).tolist()
        ),
        **{
            f"correlation at the end, layer {i + 1}": r[:, :, -1, i].mean(0).tolist()
            for i in range(LAYERS)
        },
        "curl at the end, mean over layers": (
            np.array(list(series["curl"].values()))[:, :, -1].mean((0, 2)).tolist()
        ),
        STRAYS: series["strays"],
        STARTS: system(lab)[STARTS],
    }
    means = {n: np.mean(series["correlation"][n], axis=0).tolist() for n in names}
    tables = {
        "correlation by moment and layer, mean over seeds": means,
        "moments": series["moments"],
    }
    return Evidence(measured, _draw_surfaces(series), tables)


@claim(
    "C9",
    order=13,
    statement=(
        "The reconstruction is best early in training and degrades late, under the log "
        "loss and under squared error."
    ),
    source="Czarnecki et al. 2017, Figure 2",
    experiment=(
        "The networks of C8 on lin_2: correlation of both losses after a tenth of "
        "training minus that at the end, mean over the layers."
    ),
    gates=[
        *(
            Gate(
                f"mean correlation lost, {loss}",
                ">",
                0.0,
                "beyond the seeds (Student)",
                "low",
                seeds=2,
            )
            for loss in ("log loss", "squared error")
        ),
        *SYSTEM,
    ],
)
def degrades_late(lab: Lab) -> Evidence:
    """Measure reconstruction early and late in training."""
    series = _surfaces(lab)
    early = series["moments"].index(lab.settings.scale.surface_steps // 10)
    measured: dict[str, Values] = {}
    for name, loss in (("lin_2 log", "log loss"), ("lin_2 mse", "squared error")):
        r = np.array(series["correlation"][name])  # seed, t, layer
        lost = (r[:, early] - r[:, -1]).mean(1)
        share = (r[:, early] > r[:, -1]).mean(1)
        measured |= {
            f"mean correlation lost, {loss}": difference(lost),
            f"share of layers nearer early, {loss}": share.tolist(),
            f"correlation early, {loss}": r[:, early].mean(1).tolist(),
            f"correlation late, {loss}": r[:, -1].mean(1).tolist(),
            f"true loss early, {loss}": series["loss"][f"{name} early"],
            f"true loss late, {loss}": series["loss"][f"{name} late"],
        }
    measured |= {STRAYS: series["strays"], STARTS: system(lab)[STARTS]}
    drawn, axes = figure(1, 2, figsize=(9.6, 3.6), sharey=True)
    for panel, name in zip(axes[0], ("lin_2 log", "lin_2 mse"), strict=True):
        values = np.array(series["correlation"][name])
        for layer in range(LAYERS):
            curve = values[:, :, layer]
            panel.plot(
                series["moments"], curve.mean(0), "o-", label=f"layer {layer + 1}"
            )
        panel.set(xscale="log", xlabel="update", title=name)
    axes[0, 0].set_ylabel("correlation with the true loss")
    axes[0, 1].legend(fontsize="small", frameon=False)
    return Evidence(measured, drawn)


def _moments(steps: int) -> list[int]:
    """Return five moments: a thirtieth, a tenth, a third, two thirds, and the end."""
    return [steps // 30, steps // 10, steps // 3, 2 * steps // 3, steps]


def _surfaces(lab: Lab) -> dict[str, Any]:
    moments = _moments(lab.settings.scale.surface_steps)
    series: dict[str, Any] = {
        "moments": moments, "correlation": {}, "curl": {}, "loss": {}, "surface": {},
    }  # fmt: skip
    jobs = [
        (f"{kind}_2 {short}", kind, loss, seed)
        for kind in SETS
        for short, loss in (("mse", "mse"), ("log", "cross_entropy"))
        for seed in lab.seeds
    ]
    runs = lab.each(
        _watch, [(lab.rule, kind, loss, seed, moments) for _, kind, loss, seed in jobs]
    )
    for (name, *_), run in zip(jobs, runs, strict=True):
        for key in ("correlation", "curl"):
            series[key].setdefault(name, []).append(run[key])
        series["loss"].setdefault(f"{name} early", []).append(run["loss"][1])
        series["loss"].setdefault(f"{name} late", []).append(run["loss"][-1])
        series["surface"].setdefault(name, run["surface"])
    x, y = to_tensors(toy.make("xor", 2, seed=0), "flat")
    net = _network(0).double()
    series["strays"] = [strays(lab.rule, net, x.double(), y, at=EVERY, loss="mse")]
    return series


def _network(seed: int) -> nn.Module:
    return mlp(2, [WIDTH] * LAYERS, 2, batch_norm=False, seed=seed)


@one_thread()
def _watch(
    name: str, kind: str, loss: str, seed: int, moments: list[int]
) -> dict[str, list[Any]]:
    """Train one network and look at its surfaces at every moment."""
    x, y = to_tensors(toy.make(kind, 2, seed=seed), "flat")
    net = _network(seed)
    rule = learning.make(name, net, at=EVERY, lr=1e-3, sg_lr=1e-2, loss=loss, seed=seed)
    series: dict[str, list[Any]] = {
        k: [] for k in ("correlation", "curl", "loss", "surface")
    }
    with training_mode(rule):
        for t in range(1, max(moments) + 1):
            value = rule.step(x, y)["loss"]
            if t not in moments:
                continue
            true, implied, curls = _grid_losses(net, predictors(rule), loss)
            series["loss"].append(float(value))
            series["correlation"].append([_correlation(true, s) for s in implied])
            series["curl"].append(curls)
            surfaces = [true, *implied]
            series["surface"].append([_anchored(true, s) for s in surfaces])
    return series


def _grid_losses(
    net: nn.Module, made: dict[str, Any], loss: str
) -> tuple[Tensor, list[Tensor], list[float]]:
    """Return true and implied losses over the grid, each (label, point), and curls."""
    line = torch.linspace(-2.5, 2.5, SIDE)
    points = torch.cartesian_prod(line, line)
    labels = torch.eye(2)
    implied, curls = [], []
    with torch.no_grad():
        h = points
        for name, block in net.named_children():
            h = block(h)
            if name in made:
                rows = [label.expand(len(h), 2) for label in labels]
                losses = [
                    reconstructed_loss(made[name], h, row, points=1) for row in rows
                ]
                implied.append(torch.stack([one.values for one in losses]))
                curls.append(losses[0].curl)
        true = torch.stack([_losses(h, label, loss) for label in labels])
    return true, implied, curls


def _losses(output: Tensor, label: Tensor, loss: str) -> Tensor:
    if loss == "mse":
        return 0.5 * (output - label).square().sum(1)
    return -(output.log_softmax(1) * label).sum(1)


def _correlation(true: Tensor, found: Tensor) -> float:
    """Return Pearson's correlation over the grid, averaged over the labels."""
    pairs = zip(true.double(), found.double(), strict=True)
    rows = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]
    return float(torch.stack(rows).nan_to_num(0.0).mean())


def _anchored(true: Tensor, found: Tensor) -> list[float]:
    """Return the second label's surface, its constant fitted to the true loss."""
    shifted = found[1] + (true[1] - found[1]).mean()
    return [round(float(v), 5) for v in shifted]


def _draw_surfaces(found: dict[str, Any]) -> Figure:
    """Return true and reconstructed surfaces: layers across, training down."""
    rows = (1, 2, 4)
    columns = ["true", *[f"layer {i + 1}" for i in range(LAYERS)]]
    names = ("xor_2 mse", "lin_2 log")
    drawn, axes = figure(2 * len(rows), len(columns), figsize=(10.5, 9.6))
    moments: list[int] = found["moments"]
    for block, name in enumerate(names):
        for i, t in enumerate(rows):
            surfaces = np.array(found["surface"][name][t]).reshape(-1, SIDE, SIDE)
            low, high = np.percentile(surfaces[0], [0, 98])
            for j, surface in enumerate(surfaces):
                panel = axes[block * len(rows) + i, j]
                panel.imshow(
                    surface.T, origin="lower", extent=(-2.5, 2.5, -2.5, 2.5),
                    vmin=low, vmax=high, cmap="viridis",
                )  # fmt: skip
                panel.set_xticks([])
                panel.set_yticks([])
                if i == 0:
                    panel.set_title(f"{name}: {columns[j]}", fontsize="small")
                if j:
                    r = found["correlation"][name][0][t][j - 1]
                    panel.set_xlabel(f"r = {r:.2f}", fontsize="x-small", labelpad=2)
            axes[block * len(rows) + i, 0].set_ylabel(
                f"update {moments[t]}", fontsize="small"
            )
    drawn.suptitle(
        "Loss of the second label over the inputs: true, and implied by each layer's "
        "predictor (colours of a row: the true loss's range)",
        fontsize="medium",
    )
    return drawn
