"""What predictors see, how many there are, and how well networks learn from them."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from repsim.claims.base import Evidence, Gate, Values, claim, difference
from repsim.claims.drawing import colours, figure, profile
from repsim.claims.experiments.linear_systems import SYSTEM, system
from repsim.claims.experiments.optimisation import WELCH, final
from repsim.claims.lab import Lab, Numbers
from repsim.claims.settings import FEED_DEPTHS


@claim(
    "C15",
    order=18,
    statement="Predictors that see the label train a deep network better.",
    source="Jaderberg et al. 2017, Table 1 (cDNI against DNI)",
    experiment=(
        "One predictor in the middle, and one behind every layer, with and without the "
        "label; each rate tuned over the same grid."
    ),
    gates=[
        Gate("test accuracy, with − without label", ">", 0.0, WELCH, "low", seeds=2),
        *SYSTEM,
    ],
    uses=("sg", "dni", "sg_every", "dni_every"),
)
def label_helps(lab: Lab) -> Evidence:
    """Measure test accuracy with and without the label."""
    labels = ["sg", "dni", "sg_every", "dni_every"]
    ends = {k: final(v, "test_accuracy") for k, v in lab.study(labels).items()}
    measured: dict[str, Values] = {
        "test accuracy, with − without label": difference(ends["sg"], ends["dni"]),
        "the same, one behind every layer": difference(
            ends["sg_every"], ends["dni_every"]
        ),
        **{f"test accuracy {name}": values for name, values in ends.items()},
        **system(lab),
    }
    return Evidence(measured, _draw_strip(ends, "test accuracy"))


@claim(
    "C16",
    order=19,
    statement=(
        "After equal steps a predictor behind every layer does worse than one, and "
        "worse than backpropagation."
    ),
    source="Jaderberg et al. 2017; Czarnecki et al. 2017, section 5",
    experiment="0, 1, 2, 4 and as many predictors as hidden layers; rates tuned alike.",
    gates=[
        Gate("test accuracy, one − every", ">", 0.0, WELCH, "low", seeds=2),
        Gate("test accuracy, bp − every", ">", 0.0, WELCH, "low", seeds=2),
        *SYSTEM,
    ],
    uses=("bp", "sg", "sg_2", "sg_4", "sg_every"),
)
def more_is_worse(lab: Lab) -> Evidence:
    """Measure test accuracy by the number of predictors."""
    labels = ["bp", "sg", "sg_2", "sg_4", "sg_every"]
    study = lab.study(labels)
    ends = {k: final(v, "test_accuracy") for k, v in study.items()}
    measured: dict[str, Values] = {
        "test accuracy, one − every": difference(ends["sg"], ends["sg_every"]),
        "test accuracy, bp − every": difference(ends["bp"], ends["sg_every"]),
        "test accuracy, one − two": difference(ends["sg"], ends["sg_2"]),
        "test accuracy, one − four": difference(ends["sg"], ends["sg_4"]),
        "test accuracy, four − every": difference(ends["sg_4"], ends["sg_every"]),
        **{f"test accuracy {name}": values for name, values in ends.items()},
        **system(lab),
    }
    return Evidence(measured, _draw_numbers(ends, study))


@claim(
    "C18",
    order=20,
    statement=(
        "Learning works although synthetic gradients point only roughly along the true "
        "ones."
    ),
    source="Jaderberg et al. 2017, supplement (gradient errors); no number given",
    experiment=(
        "Cosine of synthetic and true error, pooled over 400 test examples, at the "
        "split of the trained networks."
    ),
    uses=("sg", "sg_every"),
)
def cosine_is_low(lab: Lab) -> Evidence:
    """Measure the pooled cosine at the split beside the test accuracy."""
    study = lab.study(["sg", "sg_every"])
    measured: dict[str, Values] = {
        "cosine at the split": [n["cosine"][lab.split - 1] for n in study["sg"]],
        "mean cosine, one behind every layer": [
            float(np.mean(n["cosine"])) for n in study["sg_every"]
        ],
        "test accuracy sg": final(study["sg"], "test_accuracy"),
        "test accuracy sg_every": final(study["sg_every"], "test_accuracy"),
    }
    return Evidence(measured)


FEEDS = ("none", "bp", "dni_mlp", "sg_every")
"""The columns of Jaderberg et al.'s table: no backpropagation, BP, DNI, cDNI."""


@claim(
    "D1",
    order=30,
    statement=(
        "With a predictor behind every layer, those that see no label do worse in "
        "deeper networks and those that see it much less; without backpropagation "
        "networks learn worst."
    ),
    source="Jaderberg et al. 2017, Table 1 (500,000 updates; ours are far fewer)",
    experiment=(
        "Three and six hidden layers; only the output learning, backpropagation, a "
        "predictor of two hidden layers with batch normalisation without the label and "
        "a linear one with it, behind every layer; rates tuned alike and divided by "
        "ten after three and four fifths of training (the paper's schedule); test "
        "error after equal updates. Reported beside: the linear one where each segment "
        "is updated with probability one fifth."
    ),
    gates=[
        Gate("error dni − cdni, six layers", ">", 0.0, WELCH, "low", seeds=2),
        Gate(
            "error added from three to six layers, dni − cdni",
            ">",
            0.0,
            WELCH,
            "low",
            seeds=2,
        ),
        Gate("error none − cdni, six layers", ">", 0.0, WELCH, "low", seeds=2),
        *SYSTEM,
    ],
    uses=("feeds",),
)
def table_of_the_predecessor(lab: Lab) -> Evidence:
    """Measure test errors by depth and by what feeds the layers."""
    error: dict[tuple[str, int], np.ndarray] = {}
    for depth in FEED_DEPTHS:
        net: dict[str, Any] = {
            "depth": depth,
            "steps": lab.settings.scale.feed_steps,
            "measured": False,
            "decay": FEED_DECAY,
        }
        few = lab.few_seeds
        rates = lab.tuned(FEEDS, **net)
        ends = lab.study(FEEDS, rates, few, **net)
        rarely = lab.study(["sg_every"], rates, few, p_update=P_UPDATE, **net)
        ends[f"sg_every, p_update {P_UPDATE:g}"] = rarely["sg_every"]
        for name, numbers in ends.items():
            error[name, depth] = 1 - np.array(final(numbers, "test_accuracy"))
    low, high = FEED_DEPTHS
    added = {n: (error[n, high] - error[n, low].mean()).tolist() for n in FEEDS}
    measured: dict[str, Values] = {
        "error dni − cdni, six layers": difference(
            error["dni_mlp", high].tolist(), error["sg_every", high].tolist()
        ),
        "error added from three to six layers, dni − cdni": difference(
            added["dni_mlp"], added["sg_every"]
        ),
        "error none − cdni, six layers": difference(
            error["none", high].tolist(), error["sg_every", high].tolist()
        ),
        "error cdni − bp, six layers": difference(
            error["sg_every", high].tolist(), error["bp", high].tolist()
        ),
        **{
            f"test error {name}, {depth} layers": values.tolist()
            for (name, depth), values in error.items()
        },
        **system(lab),
    }
    return Evidence(measured)


FEED_DECAY = (0.6, 0.8)
"""Shares of training after which rates are divided by ten: 300,000 of 500,000."""
P_UPDATE = 0.2


def _draw_numbers(
    ends: dict[str, list[float]], study: dict[str, list[Numbers]]
) -> Figure:
    """Return accuracy beside the class margin along depth, by number of predictors."""
    drawn, axes = figure(1, 2, figsize=(10.4, 3.8))
    for i, (name, values) in enumerate(ends.items()):
        color = colours(ends)[name]
        axes[0, 0].plot([i] * len(values), values, "o", alpha=0.7, mew=0, color=color)
    axes[0, 0].set_xticks(range(len(ends)), list(ends))
    axes[0, 0].set(ylabel="test accuracy", xlim=(-0.6, len(ends) - 0.4))
    margins = {
        name: np.array([n["margin"] for n in cells if "margin" in n])
        for name, cells in study.items()
    }
    shown = {name: values for name, values in margins.items() if values.size}
    profile(axes[0, 1], shown, ylabel="class margin")
    return drawn


def _draw_strip(groups: dict[str, list[float]], ylabel: str) -> Figure:
    drawn, axes = figure(figsize=(1.6 + 1.0 * len(groups), 3.6))
    for i, values in enumerate(groups.values()):
        axes[0, 0].plot([i] * len(values), values, "o", alpha=0.6, mew=0, color="C0")
        axes[0, 0].hlines(np.mean(values), i - 0.25, i + 0.25, color="k")
    axes[0, 0].set_xticks(range(len(groups)), list(groups), rotation=20)
    axes[0, 0].set(ylabel=ylabel, xlim=(-0.6, len(groups) - 0.4))
    return drawn
