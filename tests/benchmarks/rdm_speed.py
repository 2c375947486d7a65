"""RDMs and their comparison beside rsatoolbox and scipy: CPU seconds, one thread.

    export OMP_NUM_THREADS=1
    python -P tests/benchmarks/rdm_speed.py --only rdms --n 1000
    python -P tests/benchmarks/rdm_speed.py --only rdms --n 3000 --layers 2
    python -P tests/benchmarks/rdm_speed.py --only sizes
    python -P tests/benchmarks/rdm_speed.py --only comparisons

each with `--into docs/performance.md` to write its table there.

RDMs of 20 layers of correlated ReLU units: ours is one call of `repsim.rdms` on a
recording, labels and checks included (or one of `repsim.crossnobis` a layer), peers
take one layer after the other. With --layers below 20 everybody gets as many and the
table is scaled to 20; pdist is timed on one. They take turns, in an order that rotates.
"half a product" is the time numpy takes for half of x yᵀ, the least that any of them
must compute in that dtype (crossnobis of two folds: twice that).
Comparisons are 20 × 20 RDMs at the first --n, all 400 cells; tau on --tau RDMs a side.
Sizes are single layers of normal and of rectified units beside pdist on the same dtype:
its time divided by ours. ✓ and ✗ say whether a bound is held.
"""

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rsatoolbox
import xarray as xr
from scipy.spatial.distance import pdist

import repsim
from repsim.claims.render import replaced

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock

LAYERS = 20
Task = Callable[[], object]
COMPARE = {
    "pearson": "corr",
    "cosine": "cosine",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "whitened_cosine": "cosine_cov",
    "tau-a": "tau-a",
    "tau-a with ties": "tau-a",
}

BOUNDS = {"spearman": 4, "rho-a": 4, "whitened_cosine": 4, "tau-a": 3}


def rotate(tasks: dict[str, Task], repeats: int) -> dict[str, tuple[float, object]]:
    """Return the median CPU time of each task, and its last value."""
    names = list(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    values: dict[str, object] = {}
    for turn in range(repeats):
        for k in range(len(names)):
            name = names[(k + turn) % len(names)]
            start = clock.now()
            values[name] = tasks[name]()
            seconds[name].append(clock.now() - start)
    return {name: (statistics.median(seconds[name]), values[name]) for name in names}


def activations(n: int, d: int, count: int) -> np.ndarray:
    """Return correlated ReLU features, (count, n, d) in float32."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n, 32))
    return np.stack(
        [
            np.maximum(hidden @ rng.normal(size=(32, d)) + rng.normal(size=(n, d)), 0)
            for _ in range(count)
        ]
    ).astype(np.float32)


def toolbox_rdm(x: np.ndarray, method: str) -> np.ndarray:
    """Return rsatoolbox's RDM of one matrix."""
    data = rsatoolbox.data.Dataset(x)
    return np.asarray(rsatoolbox.rdm.calc_rdm(data, method=method).dissimilarities[0])


def toolbox_crossnobis(folds: np.ndarray) -> np.ndarray:
    """Return rsatoolbox's crossnobis of two folds."""
    f, n, d = folds.shape
    data = rsatoolbox.data.Dataset(
        folds.reshape(-1, d),
        obs_descriptors={
            "item": np.tile(np.arange(n), f),
            "fold": np.repeat(np.arange(f), n),
        },
    )
    rdm = rsatoolbox.rdm.calc_rdm(
        data, method="crossnobis", descriptor="item", cv_descriptor="fold"
    )
    return np.asarray(rdm.dissimilarities[0]) * d


def recording(layers: np.ndarray) -> xr.Dataset:
    """Return layers as a recording."""
    return xr.Dataset(
        {
            f"hidden_{k}": (("example", f"hidden_{k}_unit"), x)
            for k, x in enumerate(layers)
        }
    )


def verdict(ratio: float, peer: str, bound: float) -> str:
    """Return a ratio and whether it holds its bound."""
    return " ".join(f"{ratio:.1f} × {peer} {'✓' if ratio >= bound else '✗'}".split())


def rdms(n: int, d: int, layers: int, repeats: int) -> list[str]:
    """Return the table of RDMs."""
    narrow = activations(n, d, layers)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(layers, 2, n, d)).astype(np.float32)
    data = {"float32": narrow, "float64": narrow.astype(np.float64)}
    lines = [
        f"| 20 RDMs, n = {n:,}, d = {d} | dtype | repsim | rsatoolbox | scipy | "
        "half a product | ratios | error, of the largest |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for metric, peer in (
        ("correlation", "correlation"),
        ("sqeuclidean", "euclidean"),
        ("crossnobis", "crossnobis"),
    ):
        tasks: dict[str, Task] = {}
        folds = {k: v[:, None] + noise.astype(k) for k, v in data.items()}
        for kind, xs in data.items():
            run, two, again = recording(xs), folds[kind], xs[0].copy()
            if metric == "crossnobis":
                tasks[f"repsim {kind}"] = lambda f=two: [  # type: ignore[misc]
                    repsim.crossnobis(one, device="cpu") for one in f
                ]
                tasks[f"rsatoolbox {kind}"] = lambda f=two: [  # type: ignore[misc]
                    toolbox_crossnobis(one) for one in f
                ]
            else:
                tasks[f"repsim {kind}"] = lambda r=run, m=metric: (
                    repsim.rdms(  # type: ignore[misc]
                        r, metric=m, device="cpu"
                    ).values
                )
                tasks[f"rsatoolbox {kind}"] = lambda v=xs, p=peer: [  # type: ignore[misc]
                    toolbox_rdm(x, p) for x in v
                ]
            tasks[f"product {kind}"] = lambda a=xs[0], b=again: a @ b.T  # type: ignore[misc]
        if metric != "crossnobis":
            tasks["scipy"] = lambda m=metric: pdist(data["float64"][0], m)  # type: ignore[misc]
        found = rotate(tasks, repeats)
        exact = np.asarray(found["rsatoolbox float64"][1][0])  # type: ignore[index]
        if metric != "crossnobis":
            exact = np.asarray(found["scipy"][1])
        for kind in data:
            ours = found[f"repsim {kind}"][0] * LAYERS / layers
            theirs = found[f"rsatoolbox {kind}"][0] * LAYERS / layers
            scipy = found["scipy"][0] * LAYERS if "scipy" in found else None
            share = LAYERS / 2 * (2 if metric == "crossnobis" else 1)
            least = found[f"product {kind}"][0] * share
            error = np.abs(found[f"repsim {kind}"][1][0] - exact).max()  # type: ignore[index]
            bound = 1 if metric == "sqeuclidean" else 8
            ratios = verdict(theirs / ours, "rsatoolbox", bound)
            ratios += f", {verdict(scipy / ours, 'scipy', 8)}" if scipy else ""
            lines.append(
                f"| {metric} | {kind} | {ours:.3f} s | {theirs:.3f} s | "
                f"{f'{scipy:.3f} s' if scipy else '–'} | {least:.3f} s | {ratios} | "
                f"{error / np.abs(exact).max():.0e} |"
            )
            print(lines[-1], flush=True)
    return lines


SIZES = (
    (50, 10),
    (100, 50),
    (300, 10),
    (300, 100),
    (1000, 10),
    (1000, 50),
    (1000, 512),
)


def sizes(repeats: int) -> list[str]:
    """Return the table of single layers of any size beside pdist."""
    lines = [
        "| one layer, float64 | units | metric | pdist | `rdm` | `rdms`, labelled |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rng = np.random.default_rng(3)
    for n, d in SIZES:
        for kind in ("normal", "rectified"):
            x = rng.normal(size=(n, d))
            x = np.maximum(x + 1, 0) if kind == "rectified" else x
            run = recording(x[None])
            many = max(1, round(2e6 / (n * n * d)))
            for metric in ("correlation", "euclidean", "cityblock"):
                found = rotate(
                    {
                        "pdist": lambda x=x, m=metric, k=many: [  # type: ignore[misc]
                            pdist(x, m) for _ in range(k)
                        ],
                        "rdm": lambda x=x, m=metric, k=many: [  # type: ignore[misc]
                            repsim.rdm(x, metric=m) for _ in range(k)
                        ],
                        "rdms": lambda r=run, m=metric, k=many: [  # type: ignore[misc]
                            repsim.rdms(r, metric=m, device="cpu") for _ in range(k)
                        ],
                    },
                    repeats,
                )
                peer = found["pdist"][0]
                ours = (verdict(peer / found[k][0], "", 1) for k in ("rdm", "rdms"))
                lines.append(
                    f"| {n:,} × {d} | {kind} | {metric} | {1e3 * peer / many:.3f} ms | "
                    f"{' | '.join(ours)} |"
                )
                print(lines[-1], flush=True)
    return lines


def comparisons(n: int, tau: int, repeats: int) -> list[str]:
    """Return the table of comparisons."""
    m = n * (n - 1) // 2
    rng = np.random.default_rng(2)
    base = rng.random(m)
    a, b = (base + rng.random((LAYERS, m)) / 2 for _ in range(2))
    peer = sys.modules["rsatoolbox.rdm.compare"].compare  # type: ignore[attr-defined]
    lines = [
        f"| RDMs of n = {n:,}, float64 | repsim | rsatoolbox | ratio | difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    for ours, theirs in COMPARE.items():
        ties = ours.endswith(" with ties")
        x, y = (np.round(v, 3) for v in (a, b)) if ties else (a, b)
        method = ours.removesuffix(" with ties")
        k = tau if method in ("tau-a", "kendall") else LAYERS
        tasks: dict[str, Task] = {
            "repsim": lambda x=x[:k], y=y[:k], o=method: repsim.compare_rdms(  # type: ignore[misc]
                x, y, method=o
            ),
            "rsatoolbox": lambda x=x[:k], y=y[:k], t=theirs: peer(x, y, t),  # type: ignore[misc]
        }
        found = rotate(tasks, repeats)
        error = np.abs(
            np.asarray(found["repsim"][1]) - np.asarray(found["rsatoolbox"][1])
        ).max()
        ours_s, theirs_s = found["repsim"][0], found["rsatoolbox"][0]
        bound = BOUNDS.get(method, 0)
        lines.append(
            f"| {ours}, {k} × {k} | {ours_s:.3f} s | {theirs_s:.3f} s | "
            f"{verdict(theirs_s / ours_s, '', bound)} | {error:.0e} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[1000])
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--tau", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["rdms", "sizes", "comparisons"])
    parser.add_argument("--into", type=Path, help="a page with marks for the tables")
    clock.add_option(parser)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    clock.use(given.threads)
    names = ("rsatoolbox", "scipy", "numpy", "torch")
    repsim.rdms(recording(activations(4, 2, 1)))  # What is imported when first used.
    told = ", ".join(f"{name} {version(name)}" for name in names)
    told += f"; {given.repeats} rounds on {clock.processor()}; {clock.words()}"
    print(told)
    tables = {}
    if given.only in (None, "rdms"):
        for n in given.n:
            tables[f"rdms {n}"] = rdms(n, given.d, given.layers, given.repeats)
    if given.only in (None, "sizes"):
        tables["sizes"] = sizes(given.repeats)
    if given.only in (None, "comparisons"):
        tables["comparisons"] = comparisons(given.n[0], given.tau, given.repeats)
    for name, lines in tables.items():
        print("\n".join(["", *lines]))
        if given.into is not None:
            table = "\n".join([*lines, "", f"{told}."])
            page = given.into.read_text()
            given.into.write_text(replaced(page, f"rdm_speed {name}", table))


if __name__ == "__main__":
    main()
