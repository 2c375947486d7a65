"""How often intervals cover and tests reject: simulations with a known truth.

    python -P tests/benchmarks/calibration.py data tests --repeats 1000 --minutes 8
    python -P tests/benchmarks/calibration.py show --into docs/inference.md

Sums go into a file (`--out`) after every hundred repeats of a cell, and each repeat has
a seed of its own, so a simulation can be stopped at any time, continued, and given more
repeats later; `show` prints the tables of docs/inference.md, and with `--into` writes
them there.
"""

import argparse
import functools
import json
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats
from scipy.spatial.distance import pdist

import repsim
from repsim import inference
from repsim.inference import closed_forms, rsa_influence
from repsim.inference.designs import design
from repsim.inference.jackknife import Estimates, grouped_interval, interval, scale
from repsim.inference.layer_profiles import compare_means
from repsim.inference.place_spread import place_spread
from repsim.inference.unusual_examples import exact_copies, outlying

Sides = tuple[np.ndarray, np.ndarray]
Draw = Callable[[int, np.random.Generator], Sides]
Row = dict[str, Any]
Trial = Callable[[np.random.Generator], Mapping[str, float]]
BATCH = 100


@dataclass(frozen=True)
class Cell:
    """A row of a table: what tells it from others, and what is drawn once more."""

    labels: dict[str, Any]
    trial: Callable[..., Trial]
    """Makes what is the same in every repeat."""
    most: int = 10**9
    """Repeats of a slow simulation."""
    truth: Callable[[], float] | None = None
    """What is to be covered, given to `trial`; kept in the file, as it takes long."""

    def name(self, which: str) -> str:
        return " ".join(map(str, [which, *self.labels.values()]))


def population(kind: str, p: int) -> tuple[Draw, float]:
    """Return a sampler of both sides and the population's linear CKA."""
    rng = np.random.default_rng(0)
    if kind == "independent":
        return (lambda n, r: (r.normal(size=(n, p)), r.normal(size=(n, p)))), 0.0
    if kind == "power law":
        # The variance of unit k is 1/k, as of trained layers; a noisy copy.
        root = np.arange(1, p + 1) ** -0.5

        def copies(n: int, r: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            x = r.normal(size=(n, p)) * root
            return x, 0.8 * x + 0.7 * root * r.normal(size=(n, p))

        return copies, 0.64 / 1.13
    a, b = rng.normal(size=(2, 10, p))

    def classes(n: int, r: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        label, e = r.integers(0, 10, n), r.normal(size=(n, p))
        return a[label] + e, b[label] + 0.5 * e + r.normal(size=(n, p))

    a0, b0, eye = a - a.mean(0), b - b.mean(0), np.eye(p)
    xx, yy = a0.T @ a0 / 10 + eye, b0.T @ b0 / 10 + 1.25 * eye
    xy = a0.T @ b0 / 10 + 0.5 * eye
    truth = (xy**2).sum() / np.sqrt((xx**2).sum() * (yy**2).sum())
    return classes, float(truth)


def population_rsa(
    kind: str, p: int, draw: Draw, examples: int = 400_000, turns: int = 16
) -> float:
    """Return the population's RSA, from so many pairs that its own error is 0.0006.

    An error of 0.004, as of 100,000 pairs, costs two points of coverage at n = 300.
    """
    if kind == "independent":
        return 0.0
    rng, found = np.random.default_rng(1), []
    batch = max(2_000, 4_000_000 // p)
    for _ in range(-(-examples // batch)):
        sides = []
        for side in draw(batch, rng):
            rows = side - side.mean(1, keepdims=True)
            with np.errstate(invalid="ignore"):
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            others = (np.roll(rows, turn, axis=0) for turn in range(1, turns + 1))
            sides.append(np.concatenate([1 - (rows * o).sum(1) for o in others]))
        found.append(np.stack(sides))
    entries = np.concatenate(found, 1)
    # Rows of zeros have no distance.
    entries = entries[:, np.isfinite(entries).all(0)]
    return float(stats.spearmanr(*entries).statistic)


FORMS: dict[str, Callable[..., Estimates]] = {
    "cka": closed_forms.leave_one_out,
    "rsa": rsa_influence.leave_one_out,
}


def ends(found: Estimates) -> tuple[float, float]:
    """Return the 95 % interval of a single cell, as `confidence` makes it."""
    make = interval if found.shares is None else grouped_interval
    both = make(found, scale((-1.0, 1.0)), 0.95)
    return float(both.low[0, 0]), float(both.high[0, 0])


def intervals() -> Iterator[Cell]:
    """Coverage of the closed-form intervals of debiased CKA and of RSA."""
    for measure in FORMS:
        for n in (30, 100, 300, 1000):
            for p in (10, 100, 1000):
                for kind in ("independent", "power law", "classes"):
                    labels = {"measure": measure, "n": n, "p": p, "kind": kind}
                    yield Cell(labels, functools.partial(by_size, measure, n, p, kind))


@functools.cache
def by_population(measure: str, p: int, kind: str) -> float:
    """Return the population's value."""
    draw, truth = population(kind, p)
    return population_rsa(kind, p, draw) if measure == "rsa" else truth


def by_size(measure: str, n: int, p: int, kind: str, *, truth: float) -> Trial:
    """Return one sample's interval."""
    draw, _ = population(kind, p)

    def trial(rng: np.random.Generator) -> dict[str, float]:
        x, y = draw(n, rng)
        found = FORMS[measure]([x], [y])
        low, high = ends(found)
        return {
            "truth": truth,
            "coverage": low <= truth <= high,
            "width": high - low,
            "bias": float(found.value[0, 0]) - truth,
        }

    return trial


def as_run(x: np.ndarray) -> xr.Dataset:
    """Return a recording of one layer."""
    return xr.Dataset({"h": (("example", "h_unit"), x)})


PLUGIN: dict[str, tuple[dict[str, Any], float]] = {
    "procrustes_distance": ({}, float(np.pi / 2)),
    "cka (biased)": ({"debiased": False}, 0.0),
    "svcca": ({"variance": 0.9}, 0.0),
    "linear_predictivity": ({}, 0.0),
    "cka (debiased)": ({}, 0.0),
}
"""Measures of independent data, with what they would be for very many examples."""


def plugin() -> Iterator[Cell]:
    """Bias and coverage of measures that are plug-in estimates, and refusals."""
    for n, p in ((30, 10), (30, 100), (100, 10), (100, 100), (1000, 10)):
        for measure in PLUGIN:
            if measure != "svcca" or 2 * p <= n:
                labels = {"measure": measure, "n": n, "p": p}
                yield Cell(labels, functools.partial(by_measure, measure, n, p), 100)


def by_measure(label: str, n: int, p: int) -> Trial:
    """Return one sample's interval, covering nothing where it is refused."""
    extra, truth = PLUGIN[label]

    def trial(rng: np.random.Generator) -> dict[str, float]:
        a, b = (as_run(rng.normal(size=(n, p))) for _ in range(2))
        found = inference.confidence(a, b, label.split(" ")[0], parts=20, **extra)
        low, high = float(found["low"].item()), float(found["high"].item())
        return {
            "truth": truth,
            "estimate": float(found["estimate"].item()),
            "standard_error": float(found["standard_error"].item()),
            "covers": low <= truth <= high,
            "refused": np.isnan(low),
        }

    return trial


RESAMPLED: dict[str, Callable[..., float]] = {
    "cka": repsim.cka,
    "rsa": repsim.rsa,
    "mutual_knn": repsim.mutual_knn,
    "procrustes_distance": repsim.procrustes_distance,
}


def bootstrap() -> Iterator[Cell]:
    """The plain bootstrap: mean of its replicates, and coverage of its percentiles."""
    for kind in ("independent", "power law"):
        for measure in RESAMPLED:
            labels = {"kind": kind, "measure": measure, "n": 50, "p": 100}
            yield Cell(labels, functools.partial(resampled, kind, measure, 50, 100), 60)


def resampled(kind: str, label: str, n: int, p: int) -> Trial:
    """Return one sample's value, and what 200 bootstrap samples make of it."""
    draw, truth = population(kind, p)
    if label == "rsa":
        truth = population_rsa(kind, p, draw)
    measure = RESAMPLED[label]

    def trial(rng: np.random.Generator) -> dict[str, float]:
        x, y = draw(n, rng)
        again = [measure(x[pick], y[pick]) for pick in rng.integers(0, n, (200, n))]
        low, high = np.quantile(again, [0.025, 0.975])
        known = {"covers": low <= truth <= high} if label in FORMS else {}
        return {
            "estimate": measure(x, y),
            "bootstrap_mean": float(np.mean(again)),
            "bootstrap_spread": float(np.std(again)),
            **known,
        }

    return trial


def latent(n: int, r: np.random.Generator, p: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return normal units and a copy with noise, variances falling as 1/k."""
    root = np.arange(1, p + 1) ** -0.5
    x = r.normal(size=(n, p)) * root
    return x, 0.8 * x + 0.7 * root * r.normal(size=(n, p))


def heavy_tails(n: int, r: np.random.Generator) -> Sides:
    """Examples whose size is that of a t with five degrees of freedom."""
    x, y = latent(n, r)
    size = 1 / np.sqrt(r.chisquare(5, n) / 5)[:, None]
    return x * size, y * size


def clusters(n: int, r: np.random.Generator) -> Sides:
    """Ten class centres plus noise."""
    draw, _ = population("classes", 8)
    return draw(n, r)


def low_rank(n: int, r: np.random.Generator) -> Sides:
    """Three directions in 50 units."""
    x, y = latent(n, r, 3)
    fixed = np.random.default_rng(0).normal(size=(2, 3, 50))
    return x @ fixed[0], y @ fixed[1]


def sparse(n: int, r: np.random.Generator) -> Sides:
    """Rectified units of which few are on, some never: whole rows are zero."""
    x, y = latent(n, r)
    fixed = np.random.default_rng(0).normal(size=(2, 8, 12))
    on = [np.maximum(s @ w - 2.0, 0) for s, w in zip((x, y), fixed, strict=True)]
    for side in on:
        side[:, :2] = 0
    return on[0], on[1]


def rare_large(n: int, r: np.random.Generator) -> Sides:
    """One unit is fifty times as large in one of a hundred examples."""
    x, y = latent(n, r)
    rare = r.random(n) < 0.01
    x[rare, 0] *= 50
    y[rare, 0] *= 50
    return x, y


def grouped(size: int, noise: float, related: bool = True) -> Draw:
    """Return a sampler of groups: `size` noisy versions of each of n / size."""

    def draw(n: int, r: np.random.Generator) -> Sides:
        x, y = latent(n // size, r)
        if not related:
            y = latent(n // size, r)[0]
        return tuple(  # type: ignore[return-value]
            np.repeat(side, size, 0) + noise * r.normal(size=(n, side.shape[1]))
            for side in (x, y)
        )

    return draw


DATA: dict[str, tuple[Draw, int, Draw]] = {
    "normal": (latent, 1, latent),
    "heavy tails": (heavy_tails, 1, heavy_tails),
    "clusters": (clusters, 1, clusters),
    "low rank": (low_rank, 1, low_rank),
    "sparse, dead units and rows": (sparse, 1, sparse),
    "one outlying unit in 1 %": (rare_large, 1, rare_large),
    "every example twice": (grouped(2, 0.0), 2, grouped(1, 0.0)),
    "augmentations, 5 an image": (grouped(5, 0.3), 5, grouped(1, 0.3)),
    "augmentations, unrelated": (grouped(5, 0.3, False), 5, grouped(1, 0.3, False)),
    "tokens of sentences, 20 each": (grouped(20, 1.0), 20, grouped(1, 1.0)),
}
"""Sampler, examples a group, and a sampler of independent examples for the truth."""


def data() -> Iterator[Cell]:
    """Coverage by kind of data: over examples, and over groups where there are any."""
    for kind, (_, size, _) in DATA.items():
        for measure in FORMS:
            for groups in (60,) if size == 1 else (20, 40):
                for over in ("example", "group")[: 1 + (size > 1)]:
                    labels = {
                        "data": kind, "measure": measure, "over": over,
                        "examples": groups * size,
                    }  # fmt: skip
                    # Half a million pairs of examples take a tenth of a second.
                    most = 10**9 if groups * size < 800 else 400
                    truth = functools.partial(population_value, kind, measure)
                    trial = functools.partial(by_kind, **labels)
                    yield Cell(labels, trial, most, truth)


@functools.cache
def population_value(kind: str, measure: str) -> float:
    """Return the population's debiased CKA or RSA, of independent examples."""
    alone = DATA[kind][2]
    if measure == "rsa":
        return population_rsa(kind, 8, alone, 60_000, 8)
    rng, whole = np.random.default_rng(11), repsim.StreamingCKA()
    for _ in range(60):
        x, y = alone(5_000, rng)
        whole.update({"h": x}, {"h": y})
    return float(whole.compute().item())


def by_kind(
    data: str, measure: str, over: str, examples: int, *, truth: float
) -> Trial:
    """Return one sample's interval, and whether copies or outliers are warned of."""
    draw, size, _ = DATA[data]
    which = np.arange(examples) // size
    forms: dict[str, Callable[..., Estimates]] = FORMS
    if over == "group":
        forms = {
            "cka": functools.partial(closed_forms.leave_group_out, which=which),
            "rsa": functools.partial(rsa_influence.leave_one_out, which=which),
        }

    def trial(rng: np.random.Generator) -> dict[str, float]:
        sides = draw(examples, rng)
        low, high = ends(forms[measure]([sides[0]], [sides[1]]))
        warned = over == "example" and (
            exact_copies(sides) > 0 or any(len(outlying(x)) for x in sides)
        )
        return {
            "truth": truth,
            "covers": low <= truth <= high,
            "above": low > truth,
            "below": high < truth,
            "width": high - low,
            "warned": warned,
        }

    return trial


def similarities(
    rng: np.random.Generator,
    counts: tuple[int, int],
    shift: float,
    spreads: tuple[float, float],
    shared: bool,
) -> np.ndarray:
    """Return debiased CKA between networks: noisy copies of a base that rule b moves.

    As `all_pairs` gives it, by one product of the vectors that it compares.
    """
    base, other = rng.normal(size=(2, 40, 6))
    starts = rng.normal(size=(max(counts), 40, 6)) * shared
    centers = base, np.sqrt(1 - shift**2) * base + shift * other
    x = np.concatenate(
        [
            center + starts[:count] + noise * rng.normal(size=(count, 40, 6))
            for center, count, noise in zip(centers, counts, spreads, strict=True)
        ]
    )
    n = x.shape[1]
    x = x - x.mean(1, keepdims=True)
    kernel = x @ x.transpose(0, 2, 1)
    diagonal = np.arange(n)
    kernel[:, diagonal, diagonal] = 0
    sums = kernel.sum(2)
    kernel -= (sums[:, :, None] + sums[:, None]) / (n - 2)
    kernel += (sums.sum(1) / ((n - 1) * (n - 2)))[:, None, None]
    kernel[:, diagonal, diagonal] = 0
    rows = kernel.reshape(len(kernel), -1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows @ rows.T)


DESIGNS = (
    ("a rule against itself", (5, 5), 0.0, (1.0, 1.0), False),
    ("a rule against itself", (8, 8), 0.0, (1.0, 1.0), False),
    ("a rule against itself", (10, 4), 0.0, (1.0, 1.0), False),
    ("shared starts", (8, 8), 0.0, (1.0, 1.0), True),
    ("spread", (5, 5), 0.0, (1.0, 1.5), False),
    ("spread", (5, 5), 0.0, (1.0, 2.0), False),
    ("spread", (8, 8), 0.0, (1.0, 2.0), False),
    ("spread", (10, 4), 0.0, (0.7, 1.05), False),
    ("spread", (10, 4), 0.0, (0.7, 1.4), False),
    ("spread", (4, 10), 0.0, (0.7, 1.4), False),
    ("spread", (8, 3), 0.0, (0.7, 1.4), False),
    ("place", (5, 5), 0.3, (1.0, 1.0), False),
    ("place", (8, 8), 0.3, (1.0, 1.0), False),
    ("place", (4, 10), 0.4, (0.7, 1.05), False),
    ("place and spread", (8, 8), 0.4, (0.7, 1.05), False),
)


def tests() -> Iterator[Cell]:
    """How often rules are said to differ in place and in spread, at 5 %."""
    for case, counts, shift, spreads, shared in DESIGNS:
        labels = {
            "networks differ in": case,
            "networks": f"{counts[0]} + {counts[1]}",
            "spreads": f"{spreads[0]} and {spreads[1]}",
        }
        yield Cell(labels, functools.partial(by_design, counts, shift, spreads, shared))


def by_design(
    counts: tuple[int, int], shift: float, spreads: tuple[float, float], shared: bool
) -> Trial:
    """Return whether one study is said to differ."""
    names = [(rule, str(i)) for rule in (0, 1) for i in range(counts[rule])]
    keys = [("ab"[rule], i) for rule, i in names]
    plan = design(keys, [int(i) if shared else None for _, i in keys], "b")
    assignments = plan.assignments(2_002)
    free = design(keys, [None] * len(keys), "b")
    means = free.assignments(2_002)

    def trial(rng: np.random.Generator) -> dict[str, float]:
        values = similarities(rng, counts, shift, spreads, shared)
        found = place_spread(
            values, plan, assignments, similarity=True, inner=True
        ).numbers
        profile = np.concatenate(
            [
                where + spread * rng.normal(size=(count, 10))
                for where, spread, count in zip(
                    (0.0, 4 * shift), spreads, counts, strict=True
                )
            ]
        )
        profiles = compare_means(profile, free.is_b, means)["p_value"]
        return {
            "place": found["p_value"] <= 0.05,
            "spread": found["spread_p_value"] <= 0.05,
            "profile_test": float((profiles <= 0.05).mean()),
        }

    return trial


def other() -> Iterator[Cell]:
    """Differences, equivalence, two factors, units and models: stated and seen."""
    for what, (stated, simulation, most) in OTHER.items():
        labels = {"what": what, "stated": stated}
        yield Cell(labels, functools.partial(repeated, simulation), most)


def repeated(simulation: Callable[[np.random.Generator], Trial]) -> Trial:
    """Return a simulation with a population of its own."""
    return simulation(np.random.default_rng(13))


def fixed(
    rng: np.random.Generator, count: int, bases: np.ndarray, shift: float
) -> xr.DataTree:
    """Return networks around two given bases."""
    return xr.DataTree.from_dict(
        {
            f"{rule}/{i}": as_run(
                bases[0] + shift * (rule == "b") * bases[1]
                + rng.normal(size=bases[0].shape)
            )
            for rule in "ab"
            for i in range(count)
        }
    )  # fmt: skip


def difference(shift: float, rng: np.random.Generator) -> Trial:
    """Whether the interval of the difference covers, with five seeds."""
    bases = rng.normal(size=(2, 30, 5))
    many = inference.seed_test(fixed(rng, 80, bases, shift), "a", "b", permutations=40)
    truth = float(many["difference"].item())

    def trial(rng: np.random.Generator) -> dict[str, float]:
        study = fixed(rng, 5, bases, shift)
        found = inference.seed_test(study, "a", "b", permutations=40).squeeze()
        return {"seen": bool(found["low"] <= truth <= found["high"])}

    return trial


def equivalence(rng: np.random.Generator) -> Trial:
    """Whether a difference as large as the bound is called none, with five seeds."""
    bases = rng.normal(size=(2, 30, 5))
    many = inference.seed_test(fixed(rng, 80, bases, 0.6), "a", "b", permutations=40)
    bound = float(many["difference"].item())

    def trial(rng: np.random.Generator) -> dict[str, float]:
        study = fixed(rng, 5, bases, 0.6)
        found = inference.equivalence_test(study, "a", "b", bound=bound)
        return {"seen": bool(found["equivalent"].item())}

    return trial


def noisy(
    rng: np.random.Generator, base: np.ndarray, count: int, noise: float
) -> xr.DataTree:
    """Return networks that weigh the base's directions each in its own way."""
    scales = 1 + 0.6 * rng.normal(size=(count, 1, 4))
    return xr.DataTree.from_dict(
        {
            f"a/{i}": as_run(base * scales[i] + noise * rng.normal(size=base.shape))
            for i in range(count)
        }
    )["a"]  # type: ignore[return-value]


def two_factors(rng: np.random.Generator) -> Trial:
    """Whether the interval over examples and seeds covers, 40 and 5 + 5."""
    base = rng.normal(size=(2_000, 4))
    sides = noisy(rng, base, 40, 0.5), noisy(rng, base, 40, 0.8)
    truth = float(inference.confidence(*sides, over="seed")["estimate"].item())

    def trial(rng: np.random.Generator) -> dict[str, float]:
        base = rng.normal(size=(40, 4))
        sides = noisy(rng, base, 5, 0.5), noisy(rng, base, 5, 0.8)
        found = inference.confidence(*sides, over=("example", "seed")).squeeze()
        return {"seen": bool(found["low"] <= truth <= found["high"])}

    return trial


def two_factor_difference(rng: np.random.Generator) -> Trial:
    """Whether the interval of a difference over both covers, 40 and 5 + 5."""

    def study(base: np.ndarray, count: int, rng: np.random.Generator) -> xr.DataTree:
        turned = base * [1, 1, 0.3, 0.3]
        runs = {"a": noisy(rng, base, count, 0.5), "b": noisy(rng, turned, count, 0.5)}
        return xr.DataTree.from_dict(
            {
                f"{rule}/{seed}": node.to_dataset()
                for rule, tree in runs.items()
                for seed, node in tree.children.items()
            }
        )

    many = study(rng.normal(size=(2_000, 4)), 40, rng)
    found = inference.seed_test(many, "a", "b", permutations=40)
    truth = float(found["difference"].item())

    def trial(rng: np.random.Generator) -> dict[str, float]:
        found = inference.seed_test(
            study(rng.normal(size=(40, 4)), 5, rng), "a", "b", permutations=40,
            over=("example", "seed"),
        ).squeeze()  # fmt: skip
        return {"seen": bool(found["low"] <= truth <= found["high"])}

    return trial


def units(rng: np.random.Generator) -> Trial:
    """Whether the interval of all units covers, from 20 of them."""
    z = rng.normal(size=(60, 8))
    y = z + rng.normal(size=z.shape)
    truth = repsim.cka(z, y)

    def trial(rng: np.random.Generator) -> dict[str, float]:
        a, b = (as_run(s @ rng.normal(size=(8, 20))) for s in (z, y))
        found = inference.confidence(a, b, over="unit").squeeze()
        return {"seen": bool(found["low"] <= truth <= found["high"])}

    return trial


def measured(rng: np.random.Generator, stimuli: np.ndarray, count: int) -> np.ndarray:
    """Return RDMs of noisy measurements of stimuli, one a subject."""
    return np.array(
        [pdist(stimuli + rng.normal(size=stimuli.shape)) for _ in range(count)]
    )


def null_model(rng: np.random.Generator) -> Trial:
    """Whether one of three unrelated models is said to explain something."""

    def trial(rng: np.random.Generator) -> dict[str, float]:
        data = measured(rng, rng.normal(size=(20, 4)), 6)
        models = np.array([pdist(rng.normal(size=(20, 4))) for _ in range(3)])
        p = inference.model_test(data, models)["p_value"]
        return {"seen": bool((p <= 0.05).any())}

    return trial


def model_interval(rng: np.random.Generator) -> Trial:
    """Whether a model's interval over RDMs and examples covers."""
    basis = rng.normal(size=(4, 4))
    many = rng.normal(size=(500, 4))
    rows = measured(rng, many, 4)
    truth = np.mean([repsim.compare_rdms(row, pdist(many @ basis)) for row in rows])

    def trial(rng: np.random.Generator) -> dict[str, float]:
        stimuli = rng.normal(size=(20, 4))
        found = inference.model_test(measured(rng, stimuli, 6), pdist(stimuli @ basis))
        return {"seen": bool(found["low"][0] <= truth <= found["high"][0])}

    return trial


OTHER: dict[str, tuple[float, Callable[[np.random.Generator], Trial], int]] = {
    "interval of the difference, none": (
        0.95, functools.partial(difference, 0.0), 1000
    ),
    "interval of the difference, some": (
        0.95, functools.partial(difference, 0.6), 1000
    ),
    "interval of the difference over example and seed": (
        0.95, two_factor_difference, 1000
    ),
    "equivalence_test at its bound": (0.05, equivalence, 1000),
    "confidence over example and seed": (0.95, two_factors, 400),
    "confidence over unit": (0.95, units, 1000),
    "model_test, any of three null models": (0.05, null_model, 1000),
    "model_test, interval": (0.95, model_interval, 1000),
}  # fmt: skip
"""What is stated, its simulation, and how often that is repeated at most."""


SIMULATIONS: dict[str, Callable[[], Iterator[Cell]]] = {
    "intervals": intervals,
    "plugin": plugin,
    "bootstrap": bootstrap,
    "data": data,
    "tests": tests,
    "other": other,
}


def run(which: str, rows: dict[str, Row], options: argparse.Namespace) -> None:
    """Repeat every cell, a batch at a time, until there is enough or no time left."""
    cells = {
        cell.name(which): cell
        for cell in SIMULATIONS[which]()
        if options.only in cell.name(which)
    }
    prepared: dict[str, Trial] = {}
    for upto in range(BATCH, options.repeats + BATCH, BATCH):
        for name, cell in cells.items():
            row = rows.setdefault(
                name, {"which": which, "labels": cell.labels, "repeats": 0, "sums": {}}
            )
            if row["repeats"] >= min(upto, options.repeats, cell.most):
                continue
            if time.process_time() > 60 * options.minutes:
                return
            if name not in prepared:
                if cell.truth is not None and "truth" not in row:
                    row["truth"] = cell.truth()
                given = {"truth": row["truth"]} if cell.truth is not None else {}
                prepared[name] = cell.trial(**given)
            while row["repeats"] < min(upto, options.repeats, cell.most):
                # Of each repeat its own, so that batches and pauses change nothing.
                rng = np.random.default_rng([zlib.crc32(name.encode()), row["repeats"]])
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    drawn = prepared[name](rng)
                for key, value in drawn.items():
                    row["sums"][key] = row["sums"].get(key, 0.0) + float(value)
                row["repeats"] += 1
            options.out.write_text(json.dumps(rows, indent=1))


def means(row: Row) -> Row:
    """Return what the table shows of a cell."""
    seen = {key: total / row["repeats"] for key, total in row["sums"].items()}
    return {**row["labels"], "repeats": row["repeats"], **seen}


def table(rows: list[Row]) -> str:
    """Return the rows of one simulation as a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(key)) for key in columns) + " |")
    return "\n".join(lines)


def by_kinds(rows: list[Row]) -> str:
    """Return coverage with a column for each kind of data."""
    cells: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        shared = {key: row[key] for key in ("measure", "n", "p", "repeats")}
        cell = cells.setdefault(tuple(shared.values()), shared)
        cell[row["kind"]] = row["coverage"]
    return table(list(cells.values()))


def error(rate: float, rows: list[Row]) -> str:
    """Return how well a rate is known, in words."""
    least = min(row["repeats"] for row in rows)
    noise = 100 * (rate * (1 - rate) / least) ** 0.5
    return f"a rate of {100 * rate:.0f} % is known to a standard error of {noise:.1f} %"


def coverage(rows: list[Row], key: str) -> str:
    """Return which intervals cover outside 93 to 97 %, in a sentence."""
    outside = [
        f"{', '.join(str(v) for v in list(row.values())[:4])}: {row[key]:.3f}"
        for row in rows
        if not 0.93 <= row[key] <= 0.97
    ]
    text = (
        f"{len(rows) - len(outside)} of {len(rows)} intervals cover 93 to 97 %; "
        + error(0.95, rows)
    )
    return text + (f". Outside: {'; '.join(outside)}." if outside else ".")


def grouped_coverage(rows: list[Row]) -> str:
    """Return the same of intervals over what was drawn independently."""
    dependent = {row["data"] for row in rows if row["over"] == "group"}
    honest = [
        row for row in rows if row["over"] == "group" or row["data"] not in dependent
    ]
    return "Over independent examples or groups: " + coverage(honest, "covers")


def level(rows: list[Row]) -> str:
    """Return which true nulls are rejected outside 3 to 7 %, in a sentence."""
    null = [
        (f"{kind}, {r['networks']}, spreads {r['spreads']}", float(r[kind]))
        for r in rows
        for kind in ("place", "profile_test", "spread")
        if (
            len(set(r["spreads"].split(" and "))) == 1
            if kind == "spread"
            else "place" not in r["networks differ in"]
        )
    ]
    outside = [
        f"{what}: {value:.3f}" for what, value in null if not 0.03 <= value <= 0.07
    ]
    inside = len(null) - len(outside)
    text = (
        f"{inside} of {len(null)} true nulls are rejected in 3 to 7 % of studies; "
        + error(0.05, rows)
    )
    return text + (f". Outside: {'; '.join(outside)}." if outside else ".")


VERDICTS: dict[str, Callable[[list[Row]], str]] = {
    "intervals": functools.partial(coverage, key="coverage"),
    "data": grouped_coverage,
    "tests": level,
}


def show(rows: dict[str, Row], page: Path | None) -> None:
    """Print one Markdown table per simulation, or write them into a page."""
    text = page.read_text() if page else ""
    for which, cells in SIMULATIONS.items():
        known = [rows[name] for cell in cells() if (name := cell.name(which)) in rows]
        of = [means(row) for row in known if row["repeats"]]
        if not of:
            continue
        found = by_kinds(of) if which == "intervals" else table(of)
        if which in VERDICTS:
            found += "\n\n" + VERDICTS[which](of)
        if page is None:
            print(f"\n{which}\n\n{found}")
            continue
        start, end = f"<!-- {which} -->", f"<!-- end {which} -->"
        if start not in text:
            continue
        before, rest = text.split(start)
        text = f"{before}{start}\n\n{found}\n\n{end}{rest.split(end)[1]}"
    if page:
        page.write_text(text)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="+", choices=[*SIMULATIONS, "show"])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--minutes", type=float, default=np.inf, help="of CPU time")
    parser.add_argument("--out", type=Path, default=Path("calibration.json"))
    parser.add_argument("--into", type=Path, help="the page that `show` writes into")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    for what in options.what:
        if what == "show":
            show(rows, options.into)
        else:
            run(what, rows, options)


if __name__ == "__main__":
    main()
