"""What the layers represent: geometry, probes and weights along depth."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repsim.claims.base import Evidence, Gate, claim, lower_bound
from repsim.claims.drawing import figure, profile
from repsim.claims.experiments.optimisation import WELCH, final
from repsim.claims.lab import Lab, Numbers
from repsim.comparison.all_pairs import compare
from repsim.geometry.stacks import rdms, squareform
from repsim.inference import seed_test

SHOWN = ("untrained", "bp", "sg", "sg_every", "dfa")
"""The conditions of the pictures along depth (the paper's, and the untrained one)."""

MOVED = ("bp", "sg", "sg_every", "dfa")
"""Those of them whose weights have moved."""


def along_depth(study: dict[str, list[Numbers]], name: str) -> dict[str, np.ndarray]:
    """Return a quantity of the hidden layers by condition, (seed, layer)."""
    return {
        label: np.array([n[name] for n in cells if name in n])
        for label, cells in study.items()
        if any(name in n for n in cells)
    }


def _splits(study: dict[str, list[Numbers]]) -> dict[str, list[int]]:
    return {label: cells[0].get("splits", []) for label, cells in study.items()}


@claim(
    "C11",
    order=20,
    statement=(
        "Layers represent the data differently under a synthetic gradient: there is a "
        "break at the split that backpropagation does not have, and the difference is "
        "larger than between two seeds."
    ),
    source="Czarnecki et al. 2017, section 5 and Figure 4 (seed baseline ours)",
    experiment=(
        "Class margin (mean RDM between minus within classes) of 400 test examples "
        "along depth; CKA of the same layer between networks of one rule and of two "
        "rules, all with their own initial weights, permuted over networks."
    ),
    gates=[
        Gate(
            "margin gained above the split, bp − sg, lower bound",
            ">",
            0.0,
            WELCH,
            seeds=2,
        ),
        Gate(
            "share of layers that differ more than seeds do",
            ">=",
            0.5,
            "ours: q < 0.05 at half of the layers",
            seeds=2,
        ),
    ],
    uses=(*SHOWN, "sg_shared"),
)
def layers_differ(lab: Lab) -> Evidence:
    """Measure the break of the margin at the split, and CKA against the seeds."""
    study = lab.study([*SHOWN, "sg_shared"])
    margin = along_depth(study, "margin")
    at = lab.split - 1
    gained = {k: (v[:, -1] - v[:, at]).tolist() for k, v in margin.items()}
    shared = _matched_cka(lab, "bp", "sg_shared")
    measured = {
        "margin gained above the split, bp − sg, lower bound": [
            lower_bound(gained["bp"], gained["sg"])
        ],
        "margin gained above the split bp": gained["bp"],
        "margin gained above the split sg": gained["sg"],
        "distance of sg's largest margin from the split (layers)": [
            float(abs(int(row.argmax()) - at)) for row in margin["sg"]
        ],
        "CKA bp–sg with shared initial weights": shared,
    }
    accuracies = {
        k: {"test accuracy": final(v, "test_accuracy")}
        for k, v in study.items()
        if k != "untrained"
    }
    drawn, axes = figure(1, 2, figsize=(10.4, 3.8))
    shown = {k: v for k, v in margin.items() if k != "sg_shared"}
    profile(axes[0, 0], shown, ylabel="class margin", splits=_splits(study))
    if len(lab.seeds) < 2:
        axes[0, 1].set_axis_off()
        return Evidence(measured, drawn, {"accuracy": accuracies})
    test = seed_test(_tree(lab, ("bp", "sg")), "bp", "sg", "cka")
    _draw_test(axes[0, 1], test)
    measured |= {
        "share of layers that differ more than seeds do": [
            float((test["q_value"].values < 0.05).mean())
        ],
        "CKA within rules, mean over layers": [float(test["within"].mean())],
        "CKA bp–sg, mean over layers": [float(test["between"].mean())],
    }
    columns = ("within", "between", "difference", "p_value", "q_value")
    by_layer = {
        str(layer): {name: float(v[name]) for name in columns}
        for layer, v in ((name, test.sel(layer=name)) for name in test["layer"].values)
    }
    return Evidence(measured, drawn, {"CKA by layer": by_layer, "accuracy": accuracies})


def _tree(lab: Lab, labels: tuple[str, ...]) -> xr.DataTree:
    return xr.DataTree.from_dict(
        {
            f"{label}/{seed}": run
            for label in labels
            for seed, run in zip(lab.seeds, lab.recordings(label), strict=True)
        }
    )


def _matched_cka(lab: Lab, first: str, second: str) -> list[float]:
    """Return the mean CKA of matched layers of two conditions, seed by seed."""
    pairs = zip(lab.recordings(first), lab.recordings(second), strict=True)
    return [float(np.diag(compare(a, b, "cka").values).mean()) for a, b in pairs]


def _draw_test(axes: Axes, test: xr.Dataset) -> None:
    """Draw CKA of matched layers within and between rules; filled where q < 0.05."""
    layer = np.arange(1, test.sizes["layer"] + 1)
    axes.plot(layer, test["within"], "o-", ms=3, label="within rules (seeds)")
    (between,) = axes.plot(layer, test["between"], "-", label="bp against sg")
    differs = test["q_value"].values < 0.05
    for mask, face in ((differs, between.get_color()), (~differs, "white")):
        axes.plot(
            layer[mask], test["between"].values[mask], "o", ms=5, mfc=face,
            color=between.get_color(),
        )  # fmt: skip
    axes.set(
        xlabel="hidden layer", ylabel="CKA of matched layers", ylim=(0, 1),
        title="filled: differs more than seeds do (q < 0.05)",
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


@claim(
    "C12",
    order=21,
    statement=(
        "Under backpropagation the geometry settles after a few layers; with a "
        "predictor behind every layer it is scattered along depth."
    ),
    source="Czarnecki et al. 2017, Figure 4",
    experiment=(
        "RDMs (one minus correlation) of 400 test examples sorted by label; number of "
        "hidden layers whose RDM correlates at least 0.9 with the last one's."
    ),
    gates=[
        Gate("settled layers, bp − sg_every, lower bound", ">", 0.0, WELCH, seeds=2)
    ],
    uses=SHOWN,
)
def geometry_settles(lab: Lab) -> Evidence:
    """Measure how early the RDM is that of the last layer: Figure 4."""
    study = lab.study(SHOWN)
    far = along_depth(study, "distance_correlation")
    settled = {k: (v <= 0.1).sum(1).astype(float).tolist() for k, v in far.items()}
    measured = {
        "settled layers, bp − sg_every, lower bound": [
            lower_bound(settled["bp"], settled["sg_every"])
        ],
        **{f"settled layers {name}": values for name, values in settled.items()},
    }
    note = (
        f"Of {lab.settings.scale.depth} hidden layers, the last one included; layers "
        "that are constant, as deep ones of an untrained network may be, do not count."
    )
    return Evidence(measured, _draw_rdms(lab, study), {}, note)


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


@claim(
    "C13",
    order=22,
    statement=(
        "Weights move most below the split: the displacement drops across it, as it "
        "does nowhere under backpropagation."
    ),
    source="Czarnecki et al. 2017, Figure 5 (weight norms; displacement is ours)",
    experiment=(
        "‖W − W₀‖/‖W₀‖ of every hidden layer; ratio of the layer below the split to "
        "the one above."
    ),
    gates=[
        Gate("ratio sg", ">", 1.5, "trials of ours: 2 to 5", "mean"),
        Gate("ratio bp", "<", 1.3, "trials of ours: 1.0", "mean"),
    ],
    uses=MOVED,
)
def weights_move_below(lab: Lab) -> Evidence:
    """Measure displacement and weight norm along depth: Figure 5."""
    study = lab.study(MOVED)
    moved = along_depth(study, "displacement")
    at = lab.split - 1
    measured = {
        f"ratio {name}": (moved[name][:, at] / moved[name][:, at + 1]).tolist()
        for name in MOVED
    }
    drawn, axes = figure(figsize=(6.6, 3.8))
    profile(axes[0, 0], moved, ylabel="‖W − W₀‖ / ‖W₀‖", splits=_splits(study))
    return Evidence(measured, drawn)


@claim(
    "C13b",
    order=23,
    statement=(
        "Squared weight norms rise with depth under backpropagation, and start high "
        "and fall towards the output with a synthetic gradient."
    ),
    source="Czarnecki et al. 2017, Figure 5",
    experiment=(
        "‖W‖² of every hidden layer but the first, whose shape differs, divided by "
        "its mean over layers; slope of a straight line along depth."
    ),
    gates=[
        Gate("slope bp", ">", 0.0, "the sign the paper shows", "mean"),
        Gate("slope sg", "<", 0.0, "the sign the paper shows", "mean"),
    ],
    uses=MOVED,
)
def weight_norms(lab: Lab) -> Evidence:
    """Measure the slope of the squared weight norm along depth: Figure 5."""
    study = lab.study(MOVED)
    squared = {k: v[:, 1:] ** 2 for k, v in along_depth(study, "weight_norm").items()}
    scaled = {k: v / v.mean(1)[:, None] for k, v in squared.items()}
    measured = {
        f"slope {name}": np.polyfit(range(v.shape[1]), v.T, 1)[0].tolist()
        for name, v in scaled.items()
    }
    # Column i holds layer i + 2: the split is behind layer `lab.split`.
    halves = {"below": slice(0, lab.split - 1), "above": slice(lab.split - 1, None)}
    for where, part in halves.items():
        v = scaled["sg"][:, part]
        if v.shape[1] > 1:
            slopes = np.polyfit(range(v.shape[1]), v.T, 1)[0]
            measured[f"slope sg, {where} the split"] = slopes.tolist()
    drawn, axes = figure(figsize=(6.6, 3.8))
    profile(
        axes[0, 0], scaled, ylabel="‖W‖², mean over layers = 1", splits=_splits(study),
        first=2,
    )  # fmt: skip
    note = "The paper's networks were trained much longer; its slopes are not numbers."
    return Evidence(measured, drawn, {}, note)


@claim(
    "C14",
    order=24,
    statement=(
        "Linear probes read the label equally well at every layer although the "
        "geometry differs (at equal test accuracy)."
    ),
    source="Czarnecki et al. 2017, section 5 and supplement",
    experiment=(
        "Logistic probes on every hidden layer, fitted on training and scored on test "
        "examples; the better rule stopped where it reaches the other's test accuracy. "
        "Reported beside: training accuracy, and regression probes."
    ),
    gates=[
        Gate(
            "largest |probe sg − probe bp| from layer 3 on", "<", 0.03, "trials of ours"
        )
    ],
    uses=SHOWN,
)
def probes_stay_similar(lab: Lab) -> Evidence:
    """Measure probe accuracy along depth at matched test accuracy."""
    matched = lab.matched("bp", "sg")
    probes = along_depth(matched, "probe")
    first = min(2, probes["bp"].shape[1] - 1)
    gap = np.abs(probes["sg"].mean(0) - probes["bp"].mean(0))[first:]
    study = lab.study(SHOWN)
    measured = {
        "largest |probe sg − probe bp| from layer 3 on": [float(gap.max())],
        **{f"test accuracy {k}": final(v, "test_accuracy") for k, v in matched.items()},
        **{
            f"probe of the last layer {k}": v[:, -1].tolist() for k, v in probes.items()
        },
    }
    drawn, axes = figure(2, 2, figsize=(10.4, 7.2))
    panels = (
        ("logistic probe, test", "at matched test accuracy", matched, "probe"),
        ("logistic probe, test", "after equal updates", study, "probe"),
        ("logistic probe, training", "after equal updates", study, "probe_train"),
        ("regression probe, test", "after equal updates", study, "regression"),
    )
    for panel, (what, when, shown, name) in zip(axes.flat, panels, strict=True):
        profile(
            panel, along_depth(shown, name), ylabel=f"accuracy, {what}",
            splits=_splits(shown), title=when,
        )  # fmt: skip
    steps = {k: {"updates": v[0]["cell"]["steps"]} for k, v in matched.items()}
    return Evidence(measured, drawn, {"at matched accuracy": steps})
