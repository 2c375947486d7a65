"""How well and how fast deep networks learn from synthetic gradients."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from repsim.claims.base import Evidence, Gate, Values, claim, difference
from repsim.claims.drawing import colours, figure
from repsim.claims.experiments.linear_systems import SYSTEM, system
from repsim.claims.lab import Lab, Numbers

WELCH = "beyond the seeds (Welch)"


def final(numbers: list[Numbers], name: str) -> list[float]:
    """Return a curve's last value, one a seed."""
    return [float(n[name][-1]) if name in n else float("nan") for n in numbers]


def mean(numbers: list[Numbers], name: str) -> list[float]:
    """Return a curve's mean over training, one a seed."""
    return [float(np.mean(n[name][1:])) if name in n else float("nan") for n in numbers]


@claim(
    "C10",
    order=14,
    statement="One synthetic gradient in the middle trains a deep network.",
    source="Czarnecki et al. 2017, section 4 (Figure 3)",
    experiment=(
        "The shared networks (Linear, ReLU, batch normalisation), one linear "
        "conditioned predictor in the middle, against backpropagation; both rates "
        "tuned over the same grid on a network used nowhere else."
    ),
    gates=[
        Gate(
            "mean train accuracy, sg − (bp − 2 sd of bp)",
            ">=",
            0.0,
            "within backpropagation's own spread over seeds",
            seeds=2,
        ),
        *SYSTEM,
    ],
    uses=("bp", "sg"),
)
def trains_deep_networks(lab: Lab) -> Evidence:
    """Measure training accuracy after equal steps, each rule at its tuned rate."""
    study = lab.study(["bp", "sg"])
    bp, sg = (final(study[name], "accuracy") for name in ("bp", "sg"))
    least = float(np.mean(bp) - 2 * np.std(bp, ddof=1)) if len(bp) > 1 else float("nan")
    measured: dict[str, Values] = {
        "train accuracy, sg − bp": difference(sg, bp),
        "mean train accuracy, sg − (bp − 2 sd of bp)": [float(np.mean(sg)) - least],
        "train accuracy bp": bp,
        "train accuracy sg": sg,
        "test accuracy bp": final(study["bp"], "test_accuracy"),
        "test accuracy sg": final(study["sg"], "test_accuracy"),
        **system(lab),
    }
    grid = lab.grid(["bp", "sg"])
    rates = {name: f"{lab.rate(name):g}" for name in ("bp", "sg")}
    tables = {"training loss by learning rate": _text_keys(grid), "tuned rate": rates}
    return Evidence(measured, _draw_curves(study, rates), tables)


AREA = "accuracy over training, sg − bp"


@claim(
    "C10b",
    order=15,
    statement=(
        "Deep networks learn faster with a synthetic gradient in the middle than by "
        "backpropagation, each at the rate that makes it fastest."
    ),
    source="Czarnecki et al. 2017, section 4 (depths 20 and 50)",
    experiment=(
        "The networks of C10 at the rates tuned for the quantity gated: training "
        "accuracy averaged over training."
    ),
    gates=[Gate(AREA, ">", 0.0, WELCH, "low", seeds=2), *SYSTEM],
    uses=("bp", "sg"),
)
def learns_faster(lab: Lab) -> Evidence:
    """Measure the area under the training accuracy, both rules tuned for it."""
    rates = lab.tuned(["bp", "sg"], "area")
    study = lab.study(["bp", "sg"], rates)
    bp, sg = (mean(study[name], "accuracy") for name in ("bp", "sg"))
    measured: dict[str, Values] = {
        AREA: difference(sg, bp),
        "accuracy over training bp": bp,
        "accuracy over training sg": sg,
        "test accuracy, sg − bp": difference(
            *(final(study[name], "test_accuracy") for name in ("sg", "bp"))
        ),
        **system(lab),
    }
    grid = {
        name: {rate: -value for rate, value in row.items()}
        for name, row in lab.grid(["bp", "sg"], "area").items()
    }
    shown = {name: f"{rate:g}" for name, rate in rates.items()}
    tables = {"accuracy over training by learning rate": _text_keys(grid)}
    return Evidence(measured, _draw_curves(study, shown), tables)


@claim(
    "C10c",
    order=16,
    statement=(
        "At one small learning rate deep networks learn faster with a synthetic "
        "gradient in the middle than by backpropagation."
    ),
    source="Czarnecki et al. 2017, Figure 3 (rate 3e-5, as we remember it)",
    experiment=(
        "The networks of C10, both rules at the same small rate: training accuracy "
        "averaged over training."
    ),
    gates=[Gate(AREA, ">", 0.0, WELCH, "low", seeds=2), *SYSTEM],
    uses=("bp", "sg"),
)
def learns_faster_at_small_rates(lab: Lab) -> Evidence:
    """Measure the area under the training accuracy at one small rate."""
    rate = lab.settings.scale.small_rate
    study = lab.study(["bp", "sg"], {"bp": rate, "sg": rate})
    bp, sg = (mean(study[name], "accuracy") for name in ("bp", "sg"))
    measured: dict[str, Values] = {
        AREA: difference(sg, bp),
        "final train loss, sg − bp": difference(
            *(final(study[name], "loss") for name in ("sg", "bp"))
        ),
        "accuracy over training bp": bp,
        "accuracy over training sg": sg,
        "final train loss bp": final(study["bp"], "loss"),
        "final train loss sg": final(study["sg"], "loss"),
        **system(lab),
    }
    shown = {name: f"{rate:g}" for name in ("bp", "sg")}
    return Evidence(measured, _draw_curves(study, shown))


@claim(
    "E3",
    order=17,
    statement=(
        "Learning curves at many depths, rectified and sigmoid units, backpropagation "
        "and one synthetic gradient in the middle."
    ),
    source="Czarnecki et al. 2017, Figure 3 (the paper gives no numbers)",
    experiment=(
        "Depths from 3 to 50, the rate of either rule tuned over one grid for each "
        "depth and activation; shorter than the shared runs."
    ),
    uses=("curves",),
)
def learning_curves(lab: Lab) -> Evidence:
    """Measure learning curves by depth and activation: Figure 3."""
    scale = lab.settings.scale
    nets: list[dict[str, Any]] = [
        {"depth": depth, "activation": activation, "steps": scale.curve_steps}
        for activation in ("relu", "sigmoid")
        for depth in scale.depths
    ]
    rates = {
        (net["depth"], net["activation"], name): rate
        for net in nets
        for name, rate in lab.tuned(["bp", "sg"], **net).items()
    }
    keys = list(rates)
    cells = [
        lab.cell(name, rates[key], seed, measured=False, **net)
        for net in nets
        for name in ("bp", "sg")
        for key in [(net["depth"], net["activation"], name)]
        for seed in lab.few_seeds
    ]
    numbers = iter(lab.numbers(cells))
    curves = {key: [next(numbers) for _ in lab.few_seeds] for key in keys}
    measured: dict[str, Values] = {
        f"train accuracy, depth {depth}, {activation}, {name}": final(
            values, "accuracy"
        )
        for (depth, activation, name), values in curves.items()
    }
    tables = {
        "tuned rate": {
            f"depth {net['depth']}, {net['activation']}": {
                name: f"{rates[net['depth'], net['activation'], name]:g}"
                for name in ("bp", "sg")
            }
            for net in nets
        }
    }
    return Evidence(measured, _draw_depths(scale.depths, curves), tables)


def _draw_depths(
    depths: tuple[int, ...], curves: dict[tuple[int, str, str], list[Numbers]]
) -> Figure:
    """Return training accuracy by depth (across) and activation (down)."""
    drawn, axes = figure(2, len(depths), sharex=True, sharey="row")
    colour = colours(["bp", "sg"])
    for row, activation in enumerate(("relu", "sigmoid")):
        for column, depth in enumerate(depths):
            panel = axes[row, column]
            for name in ("bp", "sg"):
                for numbers in curves[depth, activation, name]:
                    if "step" in numbers:
                        panel.plot(
                            numbers["step"], numbers["accuracy"], color=colour[name],
                            lw=1, alpha=0.8,
                        )  # fmt: skip
                panel.plot([], [], color=colour[name], label=name)
            panel.set_title(f"{depth} hidden layers, {activation}", fontsize="small")
    for panel in axes[-1]:
        panel.set_xlabel("update")
    for panel in axes[:, 0]:
        panel.set_ylabel("training accuracy")
    axes[0, 0].legend(frameon=False)
    return drawn


def _text_keys(
    grid: dict[str, dict[float, float]],
) -> dict[str, dict[str, float | None]]:
    return {
        label: {
            f"{lr:g}": loss if np.isfinite(loss) else None for lr, loss in row.items()
        }
        for label, row in grid.items()
    }


def _draw_curves(study: dict[str, list[Numbers]], rates: dict[str, str]) -> Figure:
    drawn, axes = figure(1, 2, figsize=(9.2, 3.6))
    colour = colours(study)
    for name, cells in study.items():
        for panel, quantity in zip(axes[0], ("loss", "accuracy"), strict=True):
            for numbers in cells:
                if "step" in numbers:
                    panel.plot(
                        numbers["step"], numbers[quantity], color=colour[name], lw=1,
                        alpha=0.8,
                    )  # fmt: skip
            panel.plot([], [], color=colour[name], label=f"{name}, rate {rates[name]}")
            panel.set(xlabel="update", ylabel=f"training {quantity}")
    axes[0, 0].set_yscale("log")
    axes[0, 1].legend(frameon=False)
    return drawn
