"""What the layers represent: geometry, probes and weights along depth."""

from itertools import combinations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repsim.claims.base import Evidence, Gate, Values, claim, difference
from repsim.claims.drawing import figure, profile
from repsim.claims.experiments.linear_systems import SYSTEM, system
from repsim.claims.experiments.optimisation import WELCH, final
from repsim.claims.lab import Lab, Numbers, Runs
from repsim.comparison.all_pairs import compare
from repsim.geometry.stacks import rdms, squareform

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


PERMUTED = "exact test, whole networks permuted; 0.0079 is its smallest with 5 + 5"
OMNIBUS = {
    "CKA": "p, CKA of matched layers",
    "RDM": "p, RDMs of matched layers",
    "profile": "p, similarity of each layer's RDM to every other's",
}


@claim(
    "C11",
    order=21,
    statement=(
        "Layers represent the data differently under a synthetic gradient than under "
        "backpropagation, more than two seeds do, and there is a break at the split: "
        "above it the class margin no longer grows."
    ),
    source="Czarnecki et al. 2017, section 5 and Figure 4 (seed baseline ours)",
    experiment=(
        "RDMs (one minus correlation) of 400 test examples and CKA, networks with "
        "their own initial weights. One test over all layers for each way of "
        "comparing: mean distance between the rules minus within them, whole networks "
        "permuted. Then numbers of one network each: margin (mean RDM between minus "
        "within classes) gained above the split, mean change of the RDM between "
        "neighbouring layers above it."
    ),
    gates=[
        *(Gate(name, "<", 0.05, PERMUTED, seeds=5) for name in OMNIBUS.values()),
        Gate("margin gained above the split, bp − sg", ">", 0.0, WELCH, "low", seeds=2),
        *SYSTEM,
    ],
    uses=(*SHOWN, "sg_shared"),
)
def layers_differ(lab: Lab) -> Evidence:
    """Measure differences between the rules against those between seeds."""
    study = lab.study([*SHOWN, "sg_shared"])
    margin = along_depth(study, "margin")
    at = lab.split - 1
    gained = {k: (v[:, -1] - v[:, at]).tolist() for k, v in margin.items()}
    drawn, axes = figure(1, 2, figsize=(10.4, 3.8))
    shown = {k: v for k, v in margin.items() if k != "sg_shared"}
    profile(axes[0, 0], shown, ylabel="class margin", splits=_splits(study))
    measured: dict[str, Values] = {}
    runs = {name: lab.recordings(name) for name in ("bp", "sg")}
    stacks = {name: [_layer_rdms(run) for run in runs[name]] for name in runs}
    if len(lab.seeds) > 1:
        cka = _network_cka(lab, runs)
        comparisons = {
            "CKA": 1 - cka,
            "RDM": _apart([s for name in runs for s in stacks[name]]),
            "profile": _apart([np.corrcoef(s) for name in runs for s in stacks[name]]),
        }
        first = np.arange(2 * len(lab.seeds)) < len(lab.seeds)
        for name, distances in comparisons.items():
            measured[OMNIBUS[name]] = [omnibus(distances, first)]
        measured |= _matched(cka, first)
        _draw_cka(axes[0, 1], cka, first)
    else:
        axes[0, 1].set_axis_off()
    change = {name: [_change(stack, at) for stack in stacks[name]] for name in stacks}
    measured |= {
        "margin gained above the split, bp − sg": difference(
            gained["bp"], gained["sg"]
        ),
        "margin gained above the split bp": gained["bp"],
        "margin gained above the split sg": gained["sg"],
        "RDM change between neighbours above the split, bp − sg": difference(
            change["bp"], change["sg"]
        ),
        "RDM change between neighbours above the split bp": change["bp"],
        "RDM change between neighbours above the split sg": change["sg"],
        "distance of sg's largest margin from the split (layers)": [
            float(abs(int(row.argmax()) - at)) for row in margin["sg"]
        ],
        "CKA bp–sg with shared initial weights": _matched_cka(lab, "bp", "sg_shared"),
        **system(lab),
    }
    accuracies = {
        k: {"test accuracy": final(v, "test_accuracy")}
        for k, v in study.items()
        if k != "untrained"
    }
    note = (
        "That representations differ drastically at matched layers is not supported: "
        "the mean difference of CKA stands beside."
    )
    return Evidence(measured, drawn, {"accuracy": accuracies}, note)


def _layer_rdms(run: xr.Dataset) -> np.ndarray:
    """Return the RDMs of a network's layers, (layer, pair)."""
    stack: np.ndarray = rdms(run).values
    return stack


def _change(stack: np.ndarray, at: int) -> float:
    """Return the mean of 1 − correlation of neighbouring layers' RDMs above a split."""
    near = np.corrcoef(stack)
    return float(np.mean(1 - np.diagonal(near, 1)[at:]))


def _apart(tables: list[np.ndarray]) -> np.ndarray:
    """Return 1 − correlation of networks' tables row by row, mean over rows."""
    size = len(tables)
    distances = np.zeros((size, size))
    for i, j in combinations(range(size), 2):
        a, b = (t - t.mean(1, keepdims=True) for t in (tables[i], tables[j]))
        norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        distances[i, j] = distances[j, i] = np.nanmean(1 - (a * b).sum(1) / norm)
    return distances


def omnibus(distances: np.ndarray, first: np.ndarray) -> float:
    """Return the exact p of: networks of one rule are nearer than those of two.

    Mean distance between two groups minus the mean within them, against all ways of
    dividing the networks into groups of these sizes.
    """
    size, upper = len(first), np.triu(np.ones(distances.shape, bool), 1)

    def statistic(group: np.ndarray) -> float:
        same = group[:, None] == group[None, :]
        return float(distances[upper & ~same].mean() - distances[upper & same].mean())

    observed = statistic(first)
    values = []
    for chosen in combinations(range(size), int(first.sum())):
        group = np.zeros(size, bool)
        group[list(chosen)] = True
        values.append(statistic(group))
    return float(np.mean(np.array(values) >= observed - 1e-12))


def _network_cka(lab: Lab, runs: dict[str, Runs]) -> np.ndarray:
    """Return CKA of matched layers, mean over layers, (network, network)."""
    every = [run for name in runs for run in runs[name]]
    cka = np.eye(len(every))
    for i, j in combinations(range(len(every)), 2):
        cells = np.diag(compare(every[i], every[j], "cka").values)
        cka[i, j] = cka[j, i] = np.nanmean(cells)
    return cka


def _matched(cka: np.ndarray, first: np.ndarray) -> dict[str, list[float]]:
    """Return mean CKA of matched layers within the rules and between them."""
    same = first[:, None] == first[None, :]
    upper = np.triu(np.ones(cka.shape, bool), 1)
    within, between = cka[upper & same], cka[upper & ~same]
    return {
        "CKA of matched layers, within − between rules": [
            float(within.mean() - between.mean())
        ],
        "CKA of matched layers, within rules": [float(within.mean())],
        "CKA of matched layers, between rules": [float(between.mean())],
    }


def _draw_cka(axes: Axes, cka: np.ndarray, first: np.ndarray) -> None:
    """Draw the CKA of all pairs of networks, by whether one rule trained both."""
    same = first[:, None] == first[None, :]
    upper = np.triu(np.ones(cka.shape, bool), 1)
    for i, mask in enumerate((same, ~same)):
        values = cka[upper & mask]
        axes.plot(np.full(len(values), i), values, "o", alpha=0.5, mew=0, color="C0")
        axes.hlines(values.mean(), i - 0.25, i + 0.25, color="k")
    axes.set_xticks([0, 1], ["networks of one rule", "of two rules"])
    axes.set(ylabel="CKA of matched layers, mean", xlim=(-0.6, 1.6))


def _matched_cka(lab: Lab, first: str, second: str) -> list[float]:
    """Return the mean CKA of matched layers of two conditions, seed by seed."""
    pairs = zip(lab.recordings(first), lab.recordings(second), strict=True)
    return [float(np.nanmean(np.diag(compare(a, b, "cka").values))) for a, b in pairs]


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
    profile(axes[0, 0], moved, ylabel="‖W − W₀‖ / ‖W₀‖", splits=_splits(study))
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
        axes[0, 0], scaled, ylabel="‖W‖², mean over layers = 1", splits=_splits(study),
        first=2,
    )  # fmt: skip
    note = "The paper's networks were trained much longer; its slopes are not numbers."
    return Evidence(measured, drawn, {}, note)


def _slopes(values: np.ndarray) -> list[float]:
    """Return the slope along depth of each network's row."""
    slopes: list[float] = np.polyfit(range(values.shape[1]), values.T, 1)[0].tolist()
    return slopes


@claim(
    "C14",
    order=25,
    statement=(
        "Linear probes read the label equally well at every layer although the "
        "geometry differs (at equal test accuracy)."
    ),
    source="Czarnecki et al. 2017, section 5 and supplement",
    experiment=(
        "Logistic probes on every hidden layer, fitted on training and scored on test "
        "examples; the better rule stopped where it reaches the other's test accuracy. "
        "The geometry of the same networks by the test over all layers of C11. "
        "Reported beside: training accuracy, and regression probes."
    ),
    gates=[
        Gate(
            "largest |probe sg − probe bp| from layer 3 on, over bp's range there",
            "<=",
            0.0,
            "backpropagation's own range over seeds",
            seeds=2,
        ),
        Gate("p, RDMs of matched layers", "<", 0.05, PERMUTED, seeds=5),
        *SYSTEM,
    ],
    uses=SHOWN,
)
def probes_stay_similar(lab: Lab) -> Evidence:
    """Measure probe accuracy and geometry along depth at matched test accuracy."""
    cells = lab.matched("bp", "sg")
    matched = {k: lab.numbers(v) for k, v in cells.items()}
    probes = along_depth(matched, "probe")
    first = min(2, probes["bp"].shape[1] - 1)
    gap = np.abs(probes["sg"].mean(0) - probes["bp"].mean(0))[first:]
    spread = np.ptp(probes["bp"], axis=0)[first:]
    study = lab.study(SHOWN)
    measured: dict[str, Values] = {
        "largest |probe sg − probe bp| from layer 3 on": [float(gap.max())],
        "largest |probe sg − probe bp| from layer 3 on, over bp's range there": [
            float((gap - spread).max())
        ],
    }
    if len(lab.seeds) > 1:
        stacks = [
            _layer_rdms(run)
            for label in ("bp", "sg")
            for run in lab.recordings(label, cells[label])
        ]
        half = np.arange(len(stacks)) < len(lab.seeds)
        measured["p, RDMs of matched layers"] = [omnibus(_apart(stacks), half)]
    measured |= {
        **{f"test accuracy {k}": final(v, "test_accuracy") for k, v in matched.items()},
        **{
            f"probe of the last layer {k}": v[:, -1].tolist() for k, v in probes.items()
        },
        **system(lab),
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
    steps = {k: {"updates": v[0].steps} for k, v in cells.items()}
    return Evidence(measured, drawn, {"at matched accuracy": steps})
