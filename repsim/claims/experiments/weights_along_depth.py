"""How far the weights move along depth, and how large they become."""

import numpy as np

from repsim.claims.base import Evidence, Gate, Values, claim, difference
from repsim.claims.drawing import figure, profile
from repsim.claims.experiments.linear_systems import SYSTEM, system
from repsim.claims.experiments.representations import along_depth, splits_of
from repsim.claims.lab import Lab

MOVED = ("bp", "sg", "sg_every", "dfa")
"""The conditions shown along depth whose weights have moved."""

DROP = "ratio at the split of sg − largest of bp anywhere"


@claim(
    "C13",
    order=23,
    statement=(
        "Weights move most below the split: the displacement drops across it, as it "
        "does nowhere under backpropagation."
    ),
    source="Czarnecki et al. 2017, Figure 5 (weight norms; displacement is ours)",
    experiment=(
        "‖W − W₀‖/‖W₀‖ of every hidden layer but the first, whose shape differs; ratio "
        "of a layer to the next, at the split with a synthetic gradient, against the "
        "largest between any two neighbours of any network under backpropagation."
    ),
    gates=[
        Gate(DROP, ">", 0.0, "backpropagation's own spread, layers and seeds"),
        *SYSTEM,
    ],
    uses=MOVED,
)
def weights_move_below(lab: Lab) -> Evidence:
    """Measure displacement along depth: Figure 5."""
    study = lab.study(MOVED)
    moved = along_depth(study, "displacement")
    ratio = {k: v[:, 1:-1] / v[:, 2:] for k, v in moved.items()}
    at = lab.split - 2  # Column i: layer i + 2 over the next.
    largest = float(ratio["bp"].max())
    measured: dict[str, Values] = {
        "ratio at the split, sg − bp": difference(
            ratio["sg"][:, at].tolist(), ratio["bp"][:, at].tolist()
        ),
        DROP: (ratio["sg"][:, at] - largest).tolist(),
        "largest ratio of bp anywhere": [largest],
        **{f"ratio at the split {k}": v[:, at].tolist() for k, v in ratio.items()},
        **system(lab),
    }
    drawn, axes = figure(figsize=(6.6, 3.8))
    profile(axes[0, 0], moved, ylabel="‖W − W₀‖ / ‖W₀‖", splits=splits_of(study))
    return Evidence(measured, drawn)


@claim(
    "C13b",
    order=24,
    statement=(
        "Squared weight norms rise with depth under backpropagation, and fall towards "
        "the output within each segment with a synthetic gradient."
    ),
    source="Czarnecki et al. 2017, Figure 5",
    experiment=(
        "‖W‖² of every hidden layer but the first, whose shape differs, divided by "
        "its mean over layers; slope of a straight line along depth, for each segment."
    ),
    gates=[
        Gate("slope bp", ">", 0.0, "the sign the paper shows", "low", seeds=2),
        *(
            Gate(
                f"slope sg, {where} the split",
                "<",
                0.0,
                "the sign the paper shows",
                "high",
                seeds=2,
            )
            for where in ("below", "above")
        ),
        *SYSTEM,
    ],
    uses=MOVED,
)
def weight_norms(lab: Lab) -> Evidence:
    """Measure the slope of the squared weight norm along depth: Figure 5."""
    study = lab.study(MOVED)
    squared = {k: v[:, 1:] ** 2 for k, v in along_depth(study, "weight_norm").items()}
    scaled = {k: v / v.mean(1)[:, None] for k, v in squared.items()}
    # Column i holds layer i + 2: the split is behind layer `lab.split`.
    halves = {"below": slice(0, lab.split - 1), "above": slice(lab.split - 1, None)}
    measured: dict[str, Values] = {"slope bp": difference(_slopes(scaled["bp"]))}
    for where, part in halves.items():
        for name in ("sg", "bp"):
            v = scaled[name][:, part]
            if v.shape[1] > 1:
                title = f"slope {name}, {where} the split"
                measured[title] = difference(_slopes(v))
    measured |= {
        f"slope over the whole depth {k}": _slopes(v) for k, v in scaled.items()
    }
    measured |= system(lab)
    drawn, axes = figure(figsize=(6.6, 3.8))
    profile(
        axes[0, 0], scaled, ylabel="‖W‖², mean over layers = 1", first=2,
        splits=splits_of(study),
    )  # fmt: skip
    note = "The paper's networks were trained much longer; its slopes are not numbers."
    return Evidence(measured, drawn, {}, note)


def _slopes(values: np.ndarray) -> list[float]:
    """Return the slope along depth of each network's row."""
    slopes: list[float] = np.polyfit(range(values.shape[1]), values.T, 1)[0].tolist()
    return slopes
