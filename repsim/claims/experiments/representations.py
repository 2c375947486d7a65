"""What the layers represent: geometry and probes along depth."""

from itertools import combinations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from repsim.claims.base import Evidence, Gate, Values, claim, difference
from repsim.claims.drawing import figure, profile
from repsim.claims.experiments.linear_systems import SYSTEM, system
from repsim.claims.experiments.optimisation import WELCH, final
from repsim.claims.lab import Lab, Numbers, Runs
from repsim.comparison.all_pairs import compare
from repsim.geometry.stacks import rdms

SHOWN = ("untrained", "bp", "sg", "sg_every", "dfa")
"""The conditions of the pictures along depth (the paper's, and the untrained one)."""


def along_depth(study: dict[str, list[Numbers]], name: str) -> dict[str, np.ndarray]:
    """Return a quantity of the hidden layers by condition, (seed, layer)."""
    return {
        label: np.array([n[name] for n in cells if name in n])
        for label, cells in study.items()
        if any(name in n for n in cells)
    }


def splits_of(study: dict[str, list[Numbers]]) -> dict[str, list[int]]:
    """Return the numbers of the layers behind which a condition predicts."""
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
    profile(axes[0, 0], shown, ylabel="class margin", splits=splits_of(study))
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
            splits=splits_of(shown), title=when,
        )  # fmt: skip
    steps = {k: {"updates": v[0].steps} for k, v in cells.items()}
    return Evidence(measured, drawn, {"at matched accuracy": steps})
