"""The loss that a predictor implies, and how near it is to the true one."""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.drawing import figure
from repsim.claims.experiments.critical_points import F64, fit_predictor
from repsim.claims.lab import Lab
from repsim.datasets import to_tensors
from repsim.datasets.inputs import toy
from repsim.networks import mlp

SETS = ("lin", "xor")
LAYERS = 5
WIDTH = 20
"""The paper's five rectified layers; their width is our choice."""
SIDE = 25
"""Points along each side of the grid of inputs."""


def implied_loss(
    a: Tensor, b: Tensor | None, c: Tensor, h: Tensor, y: Tensor
) -> Tensor:
    r"""Return the loss whose gradient a linear predictor is, up to a constant.

    .. math:: L_S(h, y) = \tfrac{1}{2} h A_s h^\top + (yB + C) h^\top,
              \qquad A_s = (A + A^\top) / 2

    A predictor is the gradient of a loss only where A is symmetric; the symmetric
    part is the nearest that is.
    """
    linear = c if b is None else y @ b + c
    symmetric = (a + a.T) / 2
    return 0.5 * ((h @ symmetric) * h).sum(1) + (linear * h).sum(1)


def curl_ratio(a: Tensor) -> float:
    r"""Return :math:`\|A - A^\top\| / \|A + A^\top\|`: 0 for a gradient field."""
    return float((a - a.T).norm() / (a + a.T).norm())


@claim(
    "T10",
    order=11,
    statement=(
        "Where the predictor is exact, the loss reconstructed from it is the true loss."
    ),
    source="Czarnecki et al. 2017, section 3 (extracting the loss)",
    experiment=(
        "Affine network above h, squared error; least-squares predictor; its implied "
        "loss against the true one over all examples, constants removed."
    ),
    gates=[
        Gate("largest error of the loss", "<", 1e-10, "exact by theory; float64"),
        Gate("curl of A", "<", 1e-12, "exact by theory; float64"),
    ],
)
def exact_predictor_gives_the_loss(lab: Lab) -> Evidence:
    """Measure the reconstructed loss of an exact predictor."""
    errors, curls = [], []
    for seed in lab.seeds:
        generator = torch.Generator().manual_seed(seed)
        h, v, c = (
            torch.randn(*shape, generator=generator, dtype=F64)
            for shape in ((200, 6), (6, 3), (3,))
        )
        y = torch.eye(3, dtype=F64)[torch.arange(200) % 3]
        output = h @ v + c
        phi = fit_predictor(h, y, (output - y) @ v.T)
        # [h, y, 1] is short of one rank for one-hot labels; A is unique all the same.
        a, b, bias = phi[:6], phi[6:9], phi[9]
        found = implied_loss(a, b, bias, h, y)
        true = 0.5 * (output - y).square().sum(1)
        constants = torch.stack([(true - found)[i::3].mean() for i in range(3)])
        errors.append(float((found + y @ constants - true).abs().max()))
        curls.append(curl_ratio(a))
    return Evidence({"largest error of the loss": errors, "curl of A": curls})


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
        )
    ],
    seconds=lambda settings: 0.05 * settings.scale.surface_steps,
)
def better_near_the_output(lab: Lab) -> Evidence:
    """Measure reconstruction by layer: Figure 2."""
    found = lab.kept("surfaces", lambda: _surfaces(lab))
    names = list(found["correlation"])
    r = np.array([found["correlation"][name] for name in names])  # set, seed, t, layer
    measured = {
        "share of moments at which the top layer is nearer": (
            (r[..., -1] > r[..., 0]).mean((0, 2)).tolist()
        ),
        **{
            f"correlation at the end, layer {i + 1}": r[:, :, -1, i].mean(0).tolist()
            for i in range(LAYERS)
        },
        "curl at the end, mean over layers": (
            np.array(list(found["curl"].values()))[:, :, -1].mean((0, 2)).tolist()
        ),
    }
    means = {n: np.mean(found["correlation"][n], axis=0).tolist() for n in names}
    tables = {
        "correlation by moment and layer, mean over seeds": means,
        "moments": found["moments"],
    }
    return Evidence(measured, _draw_surfaces(found), tables)


@claim(
    "C9",
    order=13,
    statement=(
        "Under the log loss on separable data the reconstruction is best early and "
        "degrades late."
    ),
    source="Czarnecki et al. 2017, Figure 2 (b)",
    experiment=(
        "The networks of C8 on lin_2 with the log loss: correlation after a tenth of "
        "training against that at the end, layer by layer."
    ),
    gates=[
        Gate(
            "share of layers nearer early than late",
            ">=",
            0.8,
            "ours: in four of five layers",
            "mean",
        )
    ],
)
def degrades_late(lab: Lab) -> Evidence:
    """Measure reconstruction early and late in training."""
    found = lab.kept("surfaces", lambda: _surfaces(lab))
    r = np.array(found["correlation"]["lin_2 log"])  # seed, t, layer
    early, late = (
        r[:, found["moments"].index(lab.settings.scale.surface_steps // 10)],
        r[:, -1],
    )
    measured = {
        "share of layers nearer early than late": (early > late).mean(1).tolist(),
        "correlation early, mean over layers": early.mean(1).tolist(),
        "correlation late, mean over layers": late.mean(1).tolist(),
        "true loss early": found["loss"]["lin_2 log early"],
        "true loss late": found["loss"]["lin_2 log late"],
    }
    drawn, axes = figure(1, 2, figsize=(9.6, 3.6), sharey=True)
    for panel, name in zip(axes[0], ("lin_2 log", "lin_2 mse"), strict=True):
        values = np.array(found["correlation"][name])
        for layer in range(LAYERS):
            curve = values[:, :, layer]
            panel.plot(
                found["moments"], curve.mean(0), "o-", label=f"layer {layer + 1}"
            )
        panel.set(xscale="log", xlabel="update", title=name)
    axes[0, 0].set_ylabel("correlation with the true loss")
    axes[0, 1].legend(fontsize="small", frameon=False)
    return Evidence(measured, drawn)


def _moments(steps: int) -> list[int]:
    """Return five moments: a thirtieth, a tenth, a third, two thirds, and the end."""
    return [steps // 30, steps // 10, steps // 3, 2 * steps // 3, steps]


def _surfaces(lab: Lab) -> dict[str, object]:
    moments = _moments(lab.settings.scale.surface_steps)
    correlation: dict[str, list[object]] = {}
    curl: dict[str, list[object]] = {}
    losses: dict[str, list[float]] = {}
    shown: dict[str, object] = {}
    for kind in SETS:
        for loss in ("mse", "cross_entropy"):
            name = f"{kind}_2 {'mse' if loss == 'mse' else 'log'}"
            for seed in lab.seeds:
                run = _watch(lab, kind, loss, seed, moments)
                correlation.setdefault(name, []).append(run["correlation"])
                curl.setdefault(name, []).append(run["curl"])
                losses.setdefault(f"{name} early", []).append(run["loss"][1])
                losses.setdefault(f"{name} late", []).append(run["loss"][-1])
                shown.setdefault(name, run["surface"])
    return {
        "moments": moments,
        "correlation": correlation,
        "curl": curl,
        "loss": losses,
        "surface": shown,
    }


def _watch(
    lab: Lab, kind: str, loss: str, seed: int, moments: list[int]
) -> "dict[str, list]":  # type: ignore[type-arg]
    """Train one network and look at its surfaces at every moment."""
    x, y = to_tensors(toy.make(kind, 2, seed=seed), "flat")
    net = mlp(2, [WIDTH] * LAYERS, 2, batch_norm=False, seed=seed)
    rule = lab.make(
        lab.rule, net, at=list(range(1, LAYERS + 1)), lr=1e-3, sg_lr=1e-2, loss=loss,
        seed=seed,
    )  # fmt: skip
    found: dict[str, list] = {k: [] for k in ("correlation", "curl", "loss", "surface")}  # type: ignore[type-arg]
    for t in range(1, max(moments) + 1):
        value = rule.step(x, y)["loss"]
        if t in moments:
            predictors = list(getattr(rule, "predictors").values())  # noqa: B009
            surfaces = _grid_losses(net, predictors, loss)
            found["loss"].append(float(value))
            found["correlation"].append(
                [_correlation(surfaces[0], s) for s in surfaces[1:]]
            )
            found["curl"].append([curl_ratio(p.A.detach()) for p in predictors])
            found["surface"].append([_anchored(surfaces[0], s) for s in surfaces])
    return found


def _grid_losses(
    net: nn.Module, predictors: "list[nn.Module]", loss: str
) -> list[Tensor]:
    """Return true and implied losses over the grid, each (label, point)."""
    line = torch.linspace(-2.5, 2.5, SIDE)
    points = torch.cartesian_prod(line, line)
    labels = torch.eye(2)
    with torch.no_grad():
        h, hidden = points, []
        for block in net.children():
            h = block(h)
            hidden.append(h)
        true = torch.stack([_losses(h, label, loss) for label in labels])
        return [true] + [
            torch.stack(
                [
                    implied_loss(p.A, p.B, p.C, h, label.expand(len(h), 2))  # type: ignore[arg-type]
                    for label in labels
                ]
            )
            for p, h in zip(predictors, hidden, strict=False)
        ]


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


def _draw_surfaces(found: "dict[str, dict]") -> Figure:  # type: ignore[type-arg]
    """Return true and reconstructed surfaces: layers across, training down."""
    rows = (1, 2, 4)
    columns = ["true", *[f"layer {i + 1}" for i in range(LAYERS)]]
    names = ("xor_2 mse", "lin_2 log")
    drawn, axes = figure(2 * len(rows), len(columns), figsize=(10.5, 9.6))
    moments: list[int] = found["moments"]  # type: ignore[assignment]
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
