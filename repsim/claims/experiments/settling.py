"""Where along depth the geometry settles: RDMs against the last layer's."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repsim.claims.base import Evidence, Gate, Values, claim, difference
from repsim.claims.drawing import figure
from repsim.claims.experiments.linear_systems import SYSTEM, system
from repsim.claims.experiments.optimisation import WELCH, final
from repsim.claims.experiments.representations import SHOWN, along_depth
from repsim.claims.lab import Lab, Numbers
from repsim.geometry.stacks import rdms, squareform

SETTLED = "settled layers at equal accuracy, bp − sg_every"


@claim(
    "C12",
    order=22,
    statement=(
        "Under backpropagation the geometry settles after a few layers; with a "
        "predictor behind every layer it is scattered along depth."
    ),
    source="Czarnecki et al. 2017, Figure 4",
    experiment=(
        "RDMs (one minus correlation) of 400 test examples sorted by label; number of "
        "hidden layers whose RDM correlates at least 0.9 with the last one's; the "
        "better rule stopped where it reaches the other's test accuracy."
    ),
    gates=[Gate(SETTLED, ">", 0.0, WELCH, "low", seeds=2), *SYSTEM],
    uses=SHOWN,
)
def geometry_settles(lab: Lab) -> Evidence:
    """Measure how early the RDM is that of the last layer: Figure 4."""
    study = lab.study(SHOWN)
    cells = lab.matched("bp", "sg_every")
    matched = {k: lab.numbers(v) for k, v in cells.items()}
    settled, equal = _settled(study), _settled(matched)
    measured: dict[str, Values] = {
        SETTLED: difference(equal["bp"], equal["sg_every"]),
        "settled layers after equal updates, bp − sg_every": difference(
            settled["bp"], settled["sg_every"]
        ),
        **{f"settled layers at equal accuracy {k}": v for k, v in equal.items()},
        **{f"settled layers {name}": values for name, values in settled.items()},
        **{
            f"test accuracy at equal accuracy {k}": final(v, "test_accuracy")
            for k, v in matched.items()
        },
        **system(lab),
    }
    steps = {k: {"updates": v[0].steps} for k, v in cells.items()}
    long = lab.settings.scale.long_steps
    if long:
        rate = lab.rate("sg_every")
        cell = lab.cell("sg_every", rate, lab.seeds[0], steps=long)
        alone = {"sg_every": lab.numbers([cell])}
        measured |= {
            f"settled layers sg_every, {long} updates": _settled(alone)["sg_every"],
            f"test accuracy sg_every, {long} updates": final(
                alone["sg_every"], "test_accuracy"
            ),
        }
    note = (
        f"Of {lab.settings.scale.depth} hidden layers, the last one included; layers "
        "that are constant, as deep ones of an untrained network may be, do not count."
    )
    return Evidence(
        measured, _draw_rdms(lab, study), {"at equal accuracy": steps}, note
    )


def _settled(study: dict[str, list[Numbers]]) -> dict[str, list[float]]:
    far = along_depth(study, "distance_correlation")
    return {k: (v <= 0.1).sum(1).astype(float).tolist() for k, v in far.items()}


def _draw_rdms(lab: Lab, study: dict[str, list[Numbers]]) -> Figure:
    """Return the RDM grid of the first seed beside the distance to the last layer."""
    depth = lab.settings.scale.depth
    layers = sorted({int(v) for v in np.linspace(1, depth, 7).round()})
    drawn, axes = figure(
        len(SHOWN), len(layers) + 1, figsize=(1.35 * len(layers) + 5, 1.5 * len(SHOWN)),
        width_ratios=[1.0] * len(layers) + [2.6],
    )  # fmt: skip
    distance = along_depth(study, "distance")
    for row, label in enumerate(SHOWN):
        run = lab.recordings(label)[0]
        stack = squareform(rdms(run, layers=[f"hidden_{i}" for i in layers]))
        for column, i in enumerate(layers):
            panel = axes[row, column]
            shown = panel.imshow(stack.values[column], vmin=0, vmax=1.5, cmap="magma")
            panel.set_xticks([])
            panel.set_yticks([])
            if row == 0:
                panel.set_title(f"layer {i}", fontsize="small")
        axes[row, 0].set_ylabel(label, fontsize="small")
        panel, values = axes[row, -1], distance[label]
        at = np.arange(1, depth + 1)
        panel.plot(at, values.mean(0), color="k", lw=1.4)
        panel.fill_between(at, values.min(0), values.max(0), color="0.8")
        for place in study[label][0].get("splits", []):
            panel.axvline(place + 0.5, color="C3", ls=":", lw=0.8)
        panel.set_ylim(0, 1.05 * max(float(v.max()) for v in distance.values()))
        panel.tick_params(labelsize="x-small")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, -1].set_title("L2 distance to the last RDM", fontsize="small")
    axes[-1, -1].set_xlabel("hidden layer", fontsize="small")
    drawn.colorbar(
        shown, ax=axes[:, : len(layers)], orientation="horizontal", shrink=0.4,
        aspect=40, pad=0.01, label="1 − correlation; examples sorted by label",
    )  # fmt: skip
    return drawn
