"""How often intervals cover and tests reject: simulations with a known truth.

    python -P tests/benchmarks/calibration.py intervals --out calibration.json
    python -P tests/benchmarks/calibration.py plugin bootstrap tests power --out …
    python -P tests/benchmarks/calibration.py show --out calibration.json

Every simulation adds its rows to the file and skips those already there, so it can be
stopped and continued; `show` prints the tables of docs/inference.md, and with `--into`
writes them there.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

import repsim
from repsim import inference
from repsim.inference import closed_forms as alignment
from repsim.inference import rsa_influence as geometry
from repsim.inference.jackknife import Estimates, interval, scale

Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
Row = dict[str, Any]


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
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            others = (np.roll(rows, turn, axis=0) for turn in range(1, turns + 1))
            sides.append(np.concatenate([1 - (rows * o).sum(1) for o in others]))
        found.append(np.stack(sides))
    return float(stats.spearmanr(*np.concatenate(found, 1)).statistic)


def covers(found: Estimates, truth: float, level: float = 0.95) -> np.ndarray:
    """Return whether the interval holds the truth, its ends, and the estimate."""
    ends = interval(found, scale((-1.0, 1.0)), level)
    low, high = float(ends.low[0, 0]), float(ends.high[0, 0])
    return np.array([low <= truth <= high, low, high, float(found.value[0, 0])])


def intervals(options: argparse.Namespace, done: set[str]) -> Iterator[Row]:
    """Coverage of the closed-form intervals of debiased CKA and of RSA."""
    forms = {"cka": alignment.leave_one_out, "rsa": geometry.leave_one_out}
    for n in options.n:
        for p in options.p:
            for kind in options.kinds:
                name = f"intervals {n} {p} {kind}"
                if name in done:
                    continue
                draw, truth = population(kind, p)
                truths = {"cka": truth, "rsa": population_rsa(kind, p, draw)}
                rng = np.random.default_rng(options.seed * 10**9 + n * 10_000 + p)
                hits: dict[str, list[np.ndarray]] = {key: [] for key in forms}
                for _ in range(options.repeats):
                    x, y = draw(n, rng)
                    for key, form in forms.items():
                        hits[key].append(covers(form([x], [y]), truths[key]))
                for key in forms:
                    covered, low, high, value = np.mean(hits[key], 0)
                    yield {
                        "name": name,
                        "measure": key,
                        "n": n,
                        "p": p,
                        "kind": kind,
                        "truth": truths[key],
                        "repeats": options.repeats,
                        "coverage": covered,
                        "width": high - low,
                        "bias": value - truths[key],
                    }


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


def plugin(options: argparse.Namespace, done: set[str]) -> Iterator[Row]:
    """Bias, spread and coverage of measures that are plug-in estimates."""
    for n, p, repeats in (
        (30, 10, 200),
        (30, 100, 200),
        (30, 1000, 100),
        (100, 10, 200),
        (100, 100, 100),
        (100, 1000, 20),
        (1000, 10, 50),
        (1000, 100, 10),
    ):
        if n not in options.n or p not in options.p:
            continue
        for label, (extra, truth) in PLUGIN.items():
            name = f"plugin {n} {p} {label}"
            if name in done or (label == "svcca" and 2 * p > n):
                continue
            rng, rows, warned = np.random.default_rng(n + p), [], 0
            for _ in range(max(5, repeats * options.repeats // 1000)):
                a, b = (as_run(rng.normal(size=(n, p))) for _ in range(2))
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    found = inference.confidence(
                        a, b, label.split(" ")[0], parts=20, **extra
                    ).squeeze()
                warned += any("bias" in str(w.message) for w in caught)
                low, high = float(found["low"]), float(found["high"])
                rows.append(
                    [
                        float(found["estimate"]),
                        low <= truth <= high,
                        float(found["standard_error"]),
                        float(found["bias"]),
                    ]
                )
            value, covered, error, bias = np.mean(rows, 0)
            yield {
                "name": name,
                "measure": label,
                "n": n,
                "p": p,
                "truth": truth,
                "repeats": len(rows),
                "mean": value,
                "spread": np.std(rows, 0)[0],
                "standard_error": error,
                "jackknife_bias": bias,
                "coverage": covered,
                "warned": warned / len(rows),
            }


def bootstrap(options: argparse.Namespace, done: set[str]) -> Iterator[Row]:
    """The plain bootstrap: mean of its replicates, and coverage of its percentiles."""
    measures: dict[str, Callable[..., float]] = {
        "cka": repsim.cka,
        "rsa": repsim.rsa,
        "mutual_knn": repsim.mutual_knn,
        "procrustes_distance": repsim.procrustes_distance,
    }
    for kind, n, p in (("independent", 50, 100), ("power law", 50, 100)):
        draw, truth_cka = population(kind, p)
        truths = {"cka": truth_cka, "rsa": population_rsa(kind, p, draw)}
        for label, measure in measures.items():
            name = f"bootstrap {kind} {label}"
            if name in done:
                continue
            rng, rows = np.random.default_rng(5), []
            for _ in range(max(5, options.repeats // 5)):
                x, y = draw(n, rng)
                value = measure(x, y)
                again = [
                    measure(x[pick], y[pick]) for pick in rng.integers(0, n, (200, n))
                ]
                low, high = np.quantile(again, [0.025, 0.975])
                truth = truths.get(label, np.nan)
                rows.append(
                    [value, np.mean(again), np.std(again), low <= truth <= high]
                )
            value, mean, spread, covered = np.mean(rows, 0)
            yield {
                "name": name,
                "kind": kind,
                "measure": label,
                "n": n,
                "p": p,
                "repeats": len(rows),
                "estimate": value,
                "bootstrap_mean": mean,
                "bootstrap_spread": spread,
                "sampling_spread": np.std(rows, 0)[0],
                "coverage": covered if label in truths else None,
            }


def rules(
    rng: np.random.Generator, seeds: int, shift: float, spread: float, shared: bool
) -> xr.DataTree:
    """Return a study: networks are noisy copies of a base that rule b moves."""
    base, other = rng.normal(size=(2, 40, 6))
    runs = {}
    for i in range(seeds):
        start = rng.normal(size=(40, 6)) if shared else np.zeros((40, 6))
        for rule, where, noise in (("a", 0.0, 1.0), ("b", shift, spread)):
            center = np.sqrt(1 - where**2) * base + where * other
            run = as_run(center + start + noise * rng.normal(size=(40, 6)))
            runs[f"{rule}/{i}"] = run.assign_attrs(init_seed=i) if shared else run
    return xr.DataTree.from_dict(runs)


DESIGNS = (
    ("seed_test, cka", 5, False, "cka"),
    ("seed_test, cka", 8, False, "cka"),
    ("seed_test, shared starts", 8, True, "cka"),
    ("seed_test, distance", 8, False, "procrustes_distance"),
)


def rejection(
    options: argparse.Namespace,
    seeds: int,
    shift: float,
    spread: float,
    shared: bool,
    measure: str,
) -> float:
    """Return how often the seed test rejects at 5 %."""
    rng, count = np.random.default_rng(9), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(options.repeats):
            study = rules(rng, seeds, shift, spread, shared)
            found = inference.seed_test(study, "a", "b", measure)
            count += float(found["p_value"].squeeze()) <= 0.05
    return count / options.repeats


def tests(options: argparse.Namespace, done: set[str]) -> Iterator[Row]:
    """Rejections of true null hypotheses at 5 %, and what spread alone does."""
    for label, seeds, shared, measure in DESIGNS:
        for words, spread in (("same", 1.0), ("spread 1.5", 1.5)):
            name = f"tests {label} {seeds} {words}"
            if name not in done:
                yield {
                    "name": name,
                    "test": label,
                    "seeds": seeds,
                    "case": words,
                    "repeats": options.repeats,
                    "rejects": rejection(options, seeds, 0.0, spread, shared, measure),
                }
    for seeds in (5, 8):
        if f"tests profile_test {seeds}" not in done:
            rng, count = np.random.default_rng(3), 0
            for _ in range(options.repeats):
                found = inference.profile_test(profiles(rng, seeds, 0.0), "a", "b")
                count += float(found["p_value"].squeeze()) <= 0.05
            yield {
                "name": f"tests profile_test {seeds}",
                "test": "profile_test",
                "seeds": seeds,
                "case": "same",
                "repeats": options.repeats,
                "rejects": count / options.repeats,
            }
    for measure in ("cka", "rsa"):
        if f"tests permutation_test {measure}" not in done:
            rng, count = np.random.default_rng(4), 0
            for seed in range(options.repeats):
                a, b = (as_run(rng.normal(size=(30, 10))) for _ in range(2))
                found = inference.permutation_test(
                    a, b, measure, permutations=199, seed=seed
                )
                count += float(found["p_value"].squeeze()) <= 0.05
            yield {
                "name": f"tests permutation_test {measure}",
                "test": f"permutation_test, {measure}",
                "seeds": None,
                "case": "same",
                "repeats": options.repeats,
                "rejects": count / options.repeats,
            }


def profiles(rng: np.random.Generator, seeds: int, shift: float) -> xr.DataArray:
    """Return a number per network, shifted for rule b by some standard deviations."""
    condition = ["a"] * seeds + ["b"] * seeds
    values = rng.normal(size=(2 * seeds, 1)) + np.repeat([0.0, shift], seeds)[:, None]
    return xr.DataArray(
        values,
        dims=("network", "layer"),
        coords={"layer": ["h"], "condition": ("network", condition)},
    )


def power(options: argparse.Namespace, done: set[str]) -> Iterator[Row]:
    """Rejections at 5 % by number of seeds and size of a real difference."""
    for seeds in (4, 5, 6, 8, 10):
        for shift in (0.0, 0.3, 0.5, 0.7, 0.9):
            name = f"power seed_test {seeds} {shift}"
            if name not in done:
                yield {
                    "name": name,
                    "test": "seed_test",
                    "seeds": seeds,
                    "shift": shift,
                    "repeats": options.repeats,
                    "rejects": rejection(options, seeds, shift, 1.0, False, "cka"),
                }
        for shift in (0.5, 1.0, 1.5, 2.0, 3.0):
            name = f"power profile_test {seeds} {shift}"
            if name in done:
                continue
            rng, count = np.random.default_rng(3), 0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                for _ in range(options.repeats):
                    found = inference.profile_test(
                        profiles(rng, seeds, shift), "a", "b"
                    )
                    count += float(found["p_value"].squeeze()) <= 0.05
            yield {
                "name": name,
                "test": "profile_test",
                "seeds": seeds,
                "shift": shift,
                "repeats": options.repeats,
                "rejects": count / options.repeats,
            }


SIMULATIONS = {
    "intervals": intervals,
    "plugin": plugin,
    "bootstrap": bootstrap,
    "tests": tests,
    "power": power,
}


def table(rows: list[Row]) -> str:
    """Return the rows of one simulation as a Markdown table."""
    hidden = {"name"}
    columns = [key for key in rows[0] if key not in hidden]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in sorted(rows, key=_order):
        lines.append("| " + " | ".join(_cell(row.get(key)) for key in columns) + " |")
    return "\n".join(lines)


def _order(row: Row) -> tuple[Any, ...]:
    """Keep the order in which rows were made, but sort cells by measure and size."""
    return (row["measure"], row["n"], row["p"]) if "coverage" in row else ()


def verdict(rows: list[Row]) -> str:
    """Return which intervals cover outside 93 to 97 %, in a sentence."""
    size = len({(r["n"], r["p"], r["kind"]) for r in rows})
    outside = [
        f"{r['measure']}, n = {r['n']}, p = {r['p']}, {r['kind']}: {r['coverage']:.3f}"
        for r in rows
        if not 0.93 <= r["coverage"] <= 0.97
    ]
    inside = len(rows) - len(outside)
    text = (
        f"{inside} of {len(rows)} intervals cover 93 to 97 % ({size} of 36 cells run)"
    )
    return text + (f"; outside: {'; '.join(outside)}." if outside else ".")


def level(rows: list[Row]) -> str:
    """Return which tests reject a true null outside 4 to 6 %, in a sentence."""
    null = [row for row in rows if row["case"] == "same"]
    outside = [
        f"{r['test']}, {r['seeds']} seeds: {r['rejects']:.3f}, "
        f"{abs(r['rejects'] - 0.05) / (0.05 * 0.95 / r['repeats']) ** 0.5:.1f} "
        "standard errors from 0.05"
        for r in null
        if not 0.04 <= r["rejects"] <= 0.06
    ]
    inside = len(null) - len(outside)
    text = f"{inside} of {len(null)} tests reject 4 to 6 % of true nulls"
    return text + (f"; outside: {'; '.join(outside)}." if outside else ".")


VERDICTS = {"intervals": verdict, "tests": level}


def show(rows: list[Row], page: Path | None) -> None:
    """Print one Markdown table per simulation, or write them into a page."""
    text = page.read_text() if page else ""
    for which in SIMULATIONS:
        of = [row for row in rows if row["name"].startswith(which)]
        if not of:
            continue
        found = table(of)
        if which in VERDICTS:
            found += "\n\n" + VERDICTS[which](of)
        if page is None:
            print(f"\n{which}\n\n{found}")
            continue
        start, end = f"<!-- {which} -->", f"<!-- end {which} -->"
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
    parser.add_argument("--seed", type=int, default=0, help="of the intervals' draws")
    parser.add_argument("--n", type=int, nargs="+", default=[30, 100, 300, 1000])
    parser.add_argument("--p", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument(
        "--kinds", nargs="+", default=["independent", "power law", "classes"]
    )
    parser.add_argument("--out", type=Path, default=Path("calibration.json"))
    parser.add_argument("--into", type=Path, help="the page that `show` writes into")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for what in options.what:
        if what == "show":
            show(rows, options.into)
            continue
        done = {row["name"] for row in rows}
        for row in SIMULATIONS[what](options, done):
            rows.append(row)
            options.out.write_text(json.dumps(rows, default=float, indent=1))


if __name__ == "__main__":
    main()
