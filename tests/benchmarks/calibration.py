"""How often intervals cover and tests reject: simulations with a known truth.

    python tests/benchmarks/calibration.py data tests --repeats 1000 --minutes 8
    python tests/benchmarks/calibration.py show --into docs/inference.md

Sums go into a file (`--out`) after every hundred repeats of a cell, and each repeat has
a seed of its own, so a simulation can be stopped at any time, continued, and given more
repeats later; `show` prints the tables of docs/inference.md, and with `--into` writes
them there. The populations, by name, are in populations.py.
"""

import argparse
import functools
import json
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist

import repsim
from repsim import inference
from repsim.inference import closed_forms, rsa_influence
from repsim.inference.designs import design
from repsim.inference.jackknife import Estimates, grouped_interval, interval, scale
from repsim.inference.layer_profiles import compare_means
from repsim.inference.place_spread import _means, _tail, place_spread
from repsim.inference.unusual_examples import exact_copies, outlying

# Its own folder, which a safe path leaves out.
sys.path.insert(0, str(Path(__file__).parent))

from calibration_tables import Row, show
from populations import (
    DATA,
    Draw,
    around,
    as_run,
    as_study,
    measured,
    of_many_networks,
    population,
    population_rsa,
    population_value,
    similarities,
    weighing,
)

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


FORMS: dict[str, Callable[..., Estimates]] = {
    "cka": closed_forms.leave_one_out,
    "rsa": rsa_influence.leave_one_out,
}
BY_GROUP = FORMS | {"cka": closed_forms.leave_group_out}
RARE = ("sparse, dead units and rows", "one outlying unit in 1 %")
"""Kinds of which few examples tell most: shown at more of them."""


def sampled(
    draw: Draw, n: int, form: Callable[..., Estimates], *, truth: float
) -> Trial:
    """Return one sample's 95 % interval, made as `confidence` makes it."""

    def trial(rng: np.random.Generator) -> dict[str, float]:
        x, y = draw(n, rng)
        found = form([x], [y])
        grouped = found.shares is not None
        make = grouped_interval if grouped else interval
        both = make(found, scale((-1.0, 1.0)), 0.95)
        low, high = float(both.low[0, 0]), float(both.high[0, 0])
        outliers = any(len(outlying(side)) for side in (x, y))
        return {
            "truth": truth,
            "covers": low <= truth <= high,
            "above": low > truth,
            "below": high < truth,
            "width": high - low,
            "warned": not grouped and (outliers or exact_copies((x, y)) > 0),
        }

    return trial


def intervals() -> Iterator[Cell]:
    """Coverage of the closed-form intervals of debiased CKA and of RSA."""
    for measure, form in FORMS.items():
        for n in (30, 100, 300, 1000):
            for p in (10, 100, 1000):
                for kind in ("independent", "power law", "classes"):
                    labels = {"measure": measure, "n": n, "p": p, "kind": kind}
                    trial = functools.partial(sampled, population(kind, p)[0], n, form)
                    truth = functools.partial(by_population, measure, p, kind)
                    yield Cell(labels, trial, truth=truth)


@functools.cache
def by_population(measure: str, p: int, kind: str) -> float:
    """Return the population's value."""
    draw, truth = population(kind, p)
    return population_rsa(kind, p, draw) if measure == "rsa" else truth


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
            "less its bias": float((found["estimate"] - found["bias"]).item()),
            "standard error": float(found["standard_error"].item()),
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


def data() -> Iterator[Cell]:
    """Coverage by kind of data: over examples, and over groups where there are any."""
    for kind, (draw, size, _) in DATA.items():
        for measure in FORMS:
            truth = functools.partial(population_value, kind, measure)
            counts = (60, 300, 1000) if kind in RARE else (60,)
            for groups in counts if size == 1 else (20, 40):
                for over in ("example", "group")[: 1 + (size > 1)]:
                    n = groups * size
                    labels = {
                        "data": kind, "measure": measure, "over": over, "examples": n
                    }  # fmt: skip
                    form = FORMS[measure]
                    if over == "group":
                        which = np.arange(n) // size
                        form = functools.partial(BY_GROUP[measure], which=which)
                    # Half a million pairs of examples take a tenth of a second.
                    most = 10**9 if n < 800 else 400
                    trial = functools.partial(sampled, draw, n, form)
                    yield Cell(labels, trial, most, truth)


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


def power() -> Iterator[Cell]:
    """What the test of place loses to the plain difference where spreads are equal."""
    for count in (5, 8):
        labels = {"networks": f"{count} + {count}", "spreads": "1.0 and 1.0"}
        yield Cell(labels, functools.partial(by_power, count))


def by_power(count: int) -> Trial:
    """Return which of the two finds a moved rule in one study."""
    keys = [(rule, i) for rule in "ab" for i in range(count)]
    plan = design(keys, [None] * len(keys), "b")
    assignments = plan.assignments(2_002)

    def trial(rng: np.random.Generator) -> dict[str, float]:
        values = similarities(rng, (count, count), 0.3, (1.0, 1.0), False)
        a, b, between = _means(values, plan.apart, assignments)
        found = place_spread(
            values, plan, assignments, similarity=True, inner=True
        ).numbers
        difference = _tail((a + b) / 2 - between) <= 0.05
        place = found["p_value"] <= 0.05
        return {
            "plain difference": difference,
            "place": place,
            "lost": float(difference) - float(place),
        }

    return trial


def other() -> Iterator[Cell]:
    """Differences, equivalence, two factors, units and models: stated and seen."""
    for what, (stated, simulation) in OTHER.items():
        labels = {"what": what, "stated": stated}
        yield Cell(labels, functools.partial(repeated, simulation))


def repeated(simulation: Callable[[np.random.Generator], Trial]) -> Trial:
    """Return a simulation with a population of its own."""
    return simulation(np.random.default_rng(13))


def difference(shift: float, rng: np.random.Generator) -> Trial:
    """Whether the interval of the difference covers, with five seeds."""
    bases = rng.normal(size=(2, 30, 5))
    truth = between(around(rng, 80, bases, shift))

    def trial(rng: np.random.Generator) -> dict[str, float]:
        study = around(rng, 5, bases, shift)
        found = inference.seed_test(study, "a", "b", permutations=40).squeeze()
        return {"seen": bool(found["low"] <= truth <= found["high"])}

    return trial


def between(study: Any) -> float:
    """Return the difference of two rules."""
    found = inference.seed_test(study, "a", "b", permutations=40)
    return float(found["difference"].item())


def equivalence(rng: np.random.Generator) -> Trial:
    """Whether a difference as large as the bound is called none, with five seeds."""
    bases = rng.normal(size=(2, 30, 5))
    bound = between(around(rng, 80, bases, 0.6))

    def trial(rng: np.random.Generator) -> dict[str, float]:
        study = around(rng, 5, bases, 0.6)
        found = inference.equivalence_test(study, "a", "b", bound=bound)
        return {"seen": bool(found["equivalent"].item())}

    return trial


def two_factors(over: tuple[str, ...], count: int, _: np.random.Generator) -> Trial:
    """Whether an interval over examples and seeds, or seeds alone, covers."""
    truth = float(of_many_networks(np.ones(4), 0.5) @ of_many_networks(np.ones(4), 0.8))

    def trial(rng: np.random.Generator) -> dict[str, float]:
        base = rng.normal(size=(40 if "example" in over else 2_000, 4))
        sides = [weighing(rng, base, count, noise) for noise in (0.5, 0.8)]
        study = as_study(dict(zip("ab", sides, strict=True)))
        found = inference.confidence(study["a"], study["b"], over=over).squeeze()
        return {"seen": bool(found["low"] <= truth <= found["high"])}

    return trial


def weighed_difference(
    over: tuple[str, ...], count: int, low: float, _: np.random.Generator
) -> Trial:
    """Whether the interval of a difference covers where the other rule has two small
    directions, over seeds alone or with 40 examples."""
    turns = np.ones(4), np.array([1.0, 1.0, low, low])
    means = [of_many_networks(turn, 0.5) for turn in turns]
    truth = float(((means[0] - means[1]) ** 2).sum()) / 2

    def trial(rng: np.random.Generator) -> dict[str, float]:
        base = rng.normal(size=(40 if "example" in over else 2_000, 4))
        sides = [weighing(rng, base * turn, count, 0.5) for turn in turns]
        study = as_study(dict(zip("ab", sides, strict=True)))
        found = inference.seed_test(study, "a", "b", permutations=40, over=over)
        found = found.squeeze()
        return {"seen": bool(found["low"] <= truth <= found["high"])}

    return trial


def units(count: int, rng: np.random.Generator) -> Trial:
    """Whether the interval of all units covers, from so many of them."""
    z = rng.normal(size=(60, 8))
    y = z + rng.normal(size=z.shape)
    truth = repsim.cka(z, y)

    def trial(rng: np.random.Generator) -> dict[str, float]:
        a, b = (as_run(s @ rng.normal(size=(8, count))) for s in (z, y))
        found = inference.confidence(a, b, over="unit").squeeze()
        return {"seen": bool(found["low"] <= truth <= found["high"])}

    return trial


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
    many = rng.normal(size=(2_000, 4))
    rows = measured(rng, many, 4)
    truth = np.mean([repsim.compare_rdms(row, pdist(many @ basis)) for row in rows])

    def trial(rng: np.random.Generator) -> dict[str, float]:
        stimuli = rng.normal(size=(20, 4))
        found = inference.model_test(measured(rng, stimuli, 6), pdist(stimuli @ basis))
        return {"seen": bool(found["low"][0] <= truth <= found["high"][0])}

    return trial


OTHER: dict[str, tuple[float, Callable[[np.random.Generator], Trial]]] = {
    "interval of the difference, none": (0.95, functools.partial(difference, 0.0)),
    "interval of the difference, some": (0.95, functools.partial(difference, 0.6)),
    **{
        f"the same over {' and '.join(over)}, {k} + {k}, directions {low}": (
            0.95, functools.partial(weighed_difference, over, k, low)
        )
        for over in (("seed",), ("example", "seed"))
        for k, low in ((5, 0.3), (10, 0.3), (10, 0.7))
    },
    "equivalence_test at its bound": (0.05, equivalence),
    **{
        f"confidence over {' and '.join(over)}, 5 + 5": (
            0.95, functools.partial(two_factors, over, 5)
        )
        for over in (("example", "seed"), ("seed",))
    },
    **{
        f"confidence over unit, {k} + {k}": (0.95, functools.partial(units, k))
        for k in (20, 40)
    },
    "model_test, any of three null models": (0.05, null_model),
    "model_test, interval": (0.95, model_interval),
}  # fmt: skip
"""What is stated, and its simulation."""


SIMULATIONS: dict[str, Callable[[], Iterator[Cell]]] = {
    "intervals": intervals,
    "plugin": plugin,
    "bootstrap": bootstrap,
    "data": data,
    "tests": tests,
    "power": power,
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
            order = {
                which: [cell.name(which) for cell in cells()]
                for which, cells in SIMULATIONS.items()
            }
            show(rows, order, options.into)
        else:
            run(what, rows, options)


if __name__ == "__main__":
    main()
