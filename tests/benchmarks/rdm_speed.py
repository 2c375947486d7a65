"""RDMs and their comparison beside rsatoolbox and scipy: CPU seconds, one thread.

Run: python -P tests/benchmarks/rdm_speed.py --n 1000 3000 [--repeats 5]

RDMs of 20 layers of correlated ReLU units: ours is one call of `repsim.rdms` on a
recording, labels and checks included (or one of `repsim.crossnobis` a layer), peers
take one layer after the other. With --layers below 20 everybody gets as many and the
table is scaled to 20; pdist is timed on one. They take turns, in an order that rotates.
"half a product" is the time numpy takes for half of x yᵀ, the least that any of them
must compute in that dtype (crossnobis of two folds: twice that).
Comparisons are 20 × 20 RDMs at the first --n, all 400 cells; tau on --tau RDMs a side.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import rsatoolbox
import torch
import xarray as xr
from scipy.spatial.distance import pdist
from threadpoolctl import threadpool_limits

import repsim

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


def rotate(tasks: dict[str, Task], repeats: int) -> dict[str, tuple[float, object]]:
    """Return the median CPU time of each task, and its last value."""
    names = list(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    values: dict[str, object] = {}
    for turn in range(repeats):
        for k in range(len(names)):
            name = names[(k + turn) % len(names)]
            start = time.process_time()
            values[name] = tasks[name]()
            seconds[name].append(time.process_time() - start)
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


def rdms(n: int, d: int, layers: int, repeats: int) -> None:
    """Print the table of RDMs."""
    narrow = activations(n, d, layers)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(layers, 2, n, d)).astype(np.float32)
    data = {"float32": narrow, "float64": narrow.astype(np.float64)}
    print(f"\n| 20 RDMs, n = {n:,}, d = {d} | dtype | repsim | rsatoolbox | scipy |"
          " half a product | ratios | error, of the largest |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
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
            ratios = f"{theirs / ours:.1f} × rsatoolbox"
            ratios += f", {scipy / ours:.1f} × scipy" if scipy else ""
            print(
                f"| {metric} | {kind} | {ours:.3f} s | {theirs:.3f} s | "
                f"{f'{scipy:.3f} s' if scipy else '–'} | {least:.3f} s | {ratios} | "
                f"{error / np.abs(exact).max():.0e} |",
                flush=True,
            )


def comparisons(n: int, tau: int, repeats: int) -> None:
    """Print the table of comparisons."""
    m = n * (n - 1) // 2
    rng = np.random.default_rng(2)
    base = rng.random(m)
    a, b = (base + rng.random((LAYERS, m)) / 2 for _ in range(2))
    peer = sys.modules["rsatoolbox.rdm.compare"].compare  # type: ignore[attr-defined]
    print(
        f"\n| RDMs of n = {n:,}, float64 | repsim | rsatoolbox | ratio | difference |"
    )
    print("| --- | --- | --- | --- | --- |")
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
        print(
            f"| {ours}, {k} × {k} | {ours_s:.3f} s | {theirs_s:.3f} s | "
            f"{theirs_s / ours_s:.1f} × | {error:.0e} |",
            flush=True,
        )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[1000])
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--tau", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["rdms", "comparisons"])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    threadpool_limits(1)
    names = ("rsatoolbox", "scipy", "numpy", "torch")
    print(", ".join(f"{name} {version(name)}" for name in names))
    if given.only != "comparisons":
        for n in given.n:
            rdms(n, given.d, given.layers, given.repeats)
    if given.only != "rdms":
        comparisons(given.n[0], given.tau, given.repeats)


if __name__ == "__main__":
    main()
