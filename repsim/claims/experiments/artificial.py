"""The paper's artificial sets: where synthetic gradients end, and the log loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from repsim import learning
from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.drawing import figure
from repsim.claims.experiments.linear_systems import (
    STARTS,
    STRAYS,
    SYSTEM,
    affine,
    descend,
    strays,
    system,
)
from repsim.claims.lab import TUNING_SEED, Lab
from repsim.claims.settings import Settings
from repsim.core.threads import one_thread
from repsim.datasets import to_tensors
from repsim.datasets.inputs import toy

DIMS = (2, 100)
LOSSES = {"mse": "mse", "log": "cross_entropy"}
HIDDEN = 10
"""Hidden layers of the deep linear network (the paper's)."""
RATE = 3e-3
ALIKE = 1e-4
"""Of rates whose final losses differ by less the smallest is chosen: it is farthest
from where another seed diverges. A tenth of what is gated."""

Table = dict[str, dict[str, list[float]]]


@claim(
    "C7",
    order=9,
    statement=(
        "On artificial data, linear and deep linear networks end at the loss that "
        "backpropagation ends at, except one linear layer under the log loss."
    ),
    source=(
        "Czarnecki et al. 2017, Table 1 (the paper names only the shallow log-loss "
        "model as failing; its fourth data set is not known to us, ours is xor)"
    ),
    experiment=(
        "Four labellings × 2 and 100 dimensions × linear and ten linear hidden layers "
        "× squared error and log loss; hidden layers as wide as the input or wider; "
        "full batch, Adam at each rule's own rate in each cell (where there is a "
        "choice: by the loss at the end, on a seed that is not judged), the rate "
        "falling to zero over the second half; linear conditioned predictor at the "
        "output, or in the middle of the deep network."
    ),
    gates=[
        Gate("largest |gap|, squared error", "<", 1e-3, "trials of ours: 4e-4"),
        Gate("largest |gap|, log loss, deep", "<", 1e-3, "as for squared error"),
        Gate("largest |gap|, log loss, linear, not lin_100", "<", 0.01, "trials: .005"),
        Gate("gap lin_100, log loss, linear", ">", 0.03, "trials of ours: 0.084"),
        *SYSTEM,
    ],
    seconds=lambda settings: (
        0.04 * settings.scale.toy_steps[0] * _runs(settings, deep=False)
        + (0.2 * settings.scale.toy_steps[1] + 0.04 * settings.scale.toy_steps[2])
        * _runs(settings, deep=True)
    ),
)
def ends_at_the_same_loss(lab: Lab) -> Evidence:
    """Measure final loss of synthetic gradients minus backpropagation's: Table 1."""
    table, rates = _table(lab)
    gaps = {name: np.subtract(v["sg"], v["bp"]) for name, v in table.items()}

    def largest(*words: str, without: str = "none") -> list[float]:
        chosen = [
            gap
            for name, gap in gaps.items()
            if set(words) <= set(name.split()) and not name.startswith(without)
        ]
        return [float(np.abs(gap).max()) for gap in chosen]

    measured = {
        "largest |gap|, squared error": largest("mse"),
        "largest |gap|, log loss, deep": largest("log", "deep"),
        "largest |gap|, log loss, linear, not lin_100": largest(
            "log", "linear", without="lin_100"
        ),
        "gap lin_100, log loss, linear": gaps["lin_100 log linear"].tolist(),
        STRAYS: [_strays(lab, deep) for deep in (False, True)],
        STARTS: system(lab)[STARTS],
    }
    note = "Largest: over seeds, one value a cell of the table."
    tables = {"final loss": table, "learning rate": rates}
    return Evidence(measured, _draw_table(gaps), tables, note)


@claim(
    "T9",
    order=10,
    statement=(
        "A linear predictor cannot follow the error of the log loss on separable data; "
        "a sigmoid on it can."
    ),
    source="Czarnecki et al. 2017, section 3 (the exact form of the sigmoid is ours)",
    experiment=(
        "lin_100 with the log loss on one linear layer: backpropagation, a linear "
        "predictor, and d·sigmoid(hW) + yB + C; the same steps and rates."
    ),
    gates=[
        Gate("linear gap", ">", 0.03, "trials of ours: 0.084"),
        Gate("sigmoid gap", "<", 0.01, "trials of ours: -0.004"),
        *SYSTEM,
    ],
    seconds=lambda settings: (
        0.006 * settings.scale.toy_steps[0] * settings.scale.toy_seeds[0]
    ),
)
def sigmoid_remedies(lab: Lab) -> Evidence:
    """Measure the loss gap of both predictors on separable data."""
    table = _sigmoid_curves(lab)
    end = {name: np.asarray(v)[:, -1] for name, v in table.items() if name != STRAYS}
    drawn, grid = figure(figsize=(6.2, 3.8))
    steps = np.linspace(0, lab.settings.scale.toy_steps[0], len(table["BP"][0]))
    for name in end:
        runs = np.asarray(table[name])
        (line,) = grid[0, 0].plot(steps, runs.mean(0), label=name, lw=1.6)
        grid[0, 0].fill_between(
            steps, runs.min(0), runs.max(0), color=line.get_color(), alpha=0.2, lw=0
        )
    grid[0, 0].set(xlabel="update", ylabel="log loss", yscale="log", title="lin_100")
    grid[0, 0].legend(frameon=False)
    measured = {
        "linear gap": (end["linear S"] - end["BP"]).tolist(),
        "sigmoid gap": (end["sigmoid S"] - end["BP"]).tolist(),
        STRAYS: table[STRAYS],
        STARTS: system(lab)[STARTS],
    }
    return Evidence(measured, drawn)


def _task(kind: str, dims: int, deep: bool, seed: int) -> tuple[Tensor, Tensor, Any]:
    """Return inputs, labels and a network of orthogonal weights and zero biases."""
    x, y = to_tensors(toy.make(kind, dims, seed=seed), "flat")
    sizes = [dims, *[max(20, dims)] * (HIDDEN if deep else 0), 2]
    net = affine(sizes, seed, at_output=not deep).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim == 2:
                nn.init.orthogonal_(p, generator=generator)
            else:
                p.zero_()
    return x, y, net


def _table(lab: Lab) -> tuple[Table, dict[str, dict[str, float]]]:
    """Return final losses at chosen rates, and the rates, by cell and rule."""
    scale = lab.settings.scale
    # Separable data have no optimum under the log loss: both take longer to near zero.
    linear, deep_, separable = scale.toy_steps
    cells = [
        (name, kind, dims, loss, deep)
        for kind in toy.KINDS
        for dims in DIMS
        for loss in LOSSES
        for deep in (False, True)
        for name in ("bp", "sg")
    ]
    calls = [
        (
            "bp" if name == "bp" else lab.rule,
            *(kind, dims, LOSSES[loss], deep),
            (separable if (kind, loss) == ("lin", "log") else deep_)
            if deep
            else linear,
        )
        for name, kind, dims, loss, deep in cells
    ]
    grids = [scale.toy_deep_rates if call[4] else scale.toy_rates for call in calls]
    tuned = [
        (*call, rate, lab.settings.seed + TUNING_SEED)
        for call, grid in zip(calls, grids, strict=True)
        for rate in grid
        if len(grid) > 1
    ]
    losses = iter(lab.each(_end, tuned))
    rates = [
        chosen_rate({rate: next(losses) for rate in grid}) if len(grid) > 1 else grid[0]
        for grid in grids
    ]
    ends = iter(
        lab.each(
            _end,
            [
                (*call, rate, seed)
                for call, rate in zip(calls, rates, strict=True)
                for seed in lab.seeds[: scale.toy_seeds[call[4]]]
            ],
        )
    )
    table: Table = {}
    chosen: dict[str, dict[str, float]] = {}
    for (name, kind, dims, loss, deep), rate in zip(cells, rates, strict=True):
        title = f"{kind}_{dims} {loss} {'deep' if deep else 'linear'}"
        seeds = lab.seeds[: scale.toy_seeds[deep]]
        table.setdefault(title, {})[name] = [next(ends) for _ in seeds]
        chosen.setdefault(title, {})[name] = rate
    return table, chosen


def _runs(settings: Settings, *, deep: bool) -> int:
    """Return how often a cell of the table is trained: its rates, then its seeds."""
    scale = settings.scale
    rates = len(scale.toy_deep_rates if deep else scale.toy_rates)
    return min(settings.seeds, scale.toy_seeds[deep]) + rates * (rates > 1)


def chosen_rate(losses: Mapping[float, float]) -> float:
    """Return the smallest rate whose final loss is the lowest, or `ALIKE`."""
    best = np.nanmin([*losses.values(), np.inf])
    alike = [rate for rate, loss in losses.items() if loss <= best + ALIKE]
    return min(alike or losses)


def _strays(lab: Lab, deep: bool, **options: Any) -> float:
    x, y, net = _task("noisy", 2, deep, lab.seeds[0])
    at = [HIDDEN // 2 if deep else 1]
    return strays(lab.rule, net.double(), x.double(), y, at=at, **options)


@one_thread()
def _end(
    rule: str, kind: str, dims: int, loss: str, deep: bool, steps: int, rate: float,
    seed: int,
) -> float:  # fmt: skip
    """Return the final loss of a rule in one cell of the table."""
    return _descended(rule, kind, dims, loss, deep, steps, rate, seed, {})[-1]


def _descended(
    name: str, kind: str, dims: int, loss: str, deep: bool, steps: int, rate: float,
    seed: int, options: dict[str, Any],
) -> list[float]:  # fmt: skip
    x, y, net = _task(kind, dims, deep, seed)
    if name != "bp":
        options = {"at": [HIDDEN // 2 if deep else 1], "sg_lr": rate, **options}
    rule = learning.make(name, net, lr=rate, loss=loss, seed=seed, **options)
    return descend(rule, x, y, steps, rate)


def _sigmoid_curves(lab: Lab) -> dict[str, Any]:
    scale = lab.settings.scale
    seeds = lab.seeds[: scale.toy_seeds[0]]
    rules: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("BP", "bp", {}),
        ("linear S", lab.rule, {}),
        ("sigmoid S", lab.rule, {"predictor": "sigmoid"}),
    )
    calls = [
        (name, options, seed, scale.toy_steps[0])
        for _, name, options in rules
        for seed in seeds
    ]
    paths = iter(lab.each(_separable, calls))
    curves: dict[str, Any] = {
        title: [next(paths) for _ in seeds] for title, *_ in rules
    }
    curves[STRAYS] = [
        _strays(lab, False, predictor=kind) for kind in ("linear", "sigmoid")
    ]
    return curves


@one_thread()
def _separable(
    name: str, options: dict[str, Any], seed: int, steps: int
) -> list[float]:
    """Return some hundred losses of a rule on lin_100, the last one included."""
    separable = ("lin", 100, "cross_entropy", False)
    path = _descended(name, *separable, steps, RATE, seed, options)
    return [*path[:: max(steps // 100, 1)], path[-1]]


def _draw_table(gaps: dict[str, np.ndarray]) -> Figure:
    rows = [f"{kind}_{dims}" for kind in toy.KINDS for dims in DIMS]
    columns = [
        f"{loss} {model}" for loss in ("mse", "log") for model in ("linear", "deep")
    ]
    mean = np.array([[gaps[f"{r} {c}"].mean() for c in columns] for r in rows])
    low = np.array([[gaps[f"{r} {c}"].min() for c in columns] for r in rows])
    high = np.array([[gaps[f"{r} {c}"].max() for c in columns] for r in rows])
    drawn, grid = figure(figsize=(7.4, 4.6))
    axes = grid[0, 0]
    limit = float(np.abs(mean).max())
    mesh = axes.imshow(mean, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for i, j in np.ndindex(*mean.shape):
        differs = abs(mean[i, j]) > 1e-3
        axes.text(
            j, i, f"{mean[i, j]:z.4f}\n[{low[i, j]:z.4f}, {high[i, j]:z.4f}]",
            ha="center", va="center", fontsize=7,
            weight="bold" if differs else "normal",
            color="white" if abs(mean[i, j]) > 0.7 * limit else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title("Final loss, synthetic gradient − backpropagation (bold: differs)")
    drawn.colorbar(mesh, label="mean over seeds")
    return drawn
