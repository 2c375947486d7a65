"""RDMs and their comparison beside rsatoolbox and scipy: CPU seconds, one thread.

Run: python -P tests/benchmarks/rdm_speed.py [--n 1000] [--repeats 5]

Peers and we take turns on the same float32 activations of correlated ReLU units
(--layers layers are timed, the table is scaled to 20); scipy's pdist, a tenth as fast,
is timed on one layer. Comparisons are 20 × 20 RDMs, all 400 cells; tau on --tau RDMs a
side, scaled to 400 cells with its sorting.
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
from scipy.spatial.distance import pdist
from threadpoolctl import threadpool_limits

import repsim
from repsim.measures.dissimilarity import dissimilarities

LAYERS = 20
Task = Callable[[], object]
COMPARE = {
    "pearson": "corr",
    "cosine": "cosine",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "whitened_cosine": "cosine_cov",
    "tau-a": "tau-a",
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


def rdms(n: int, d: int, layers: int, repeats: int) -> None:
    """Print the table of RDMs."""
    xs = activations(n, d, layers)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(layers, 2, n, d)).astype(np.float32)
    folds = xs[:, None] + noise
    wide, scale = xs.astype(np.float64), LAYERS / layers
    for metric, peer in (
        ("correlation", "correlation"),
        ("sqeuclidean", "euclidean"),
        ("crossnobis", "crossnobis"),
    ):
        tasks: dict[str, Task] = {}
        if metric == "crossnobis":
            tasks["repsim float32"] = lambda: [repsim.crossnobis(f) for f in folds]
            tasks["repsim float64"] = lambda: [
                repsim.crossnobis(f, precision="float64") for f in folds
            ]
            tasks["rsatoolbox"] = lambda: [toolbox_crossnobis(f) for f in folds]
        else:
            for kind, data in (("float32", xs), ("float64", wide)):
                tensors = [torch.from_numpy(x) for x in data]
                tasks[f"repsim {kind}"] = lambda t=tensors, m=metric: [  # type: ignore[misc]
                    dissimilarities(x, m)[0] for x in t
                ]
                tasks[f"rsatoolbox {kind}"] = lambda v=data, p=peer: [  # type: ignore[misc]
                    toolbox_rdm(x, p) for x in v
                ]
            tasks["scipy"] = lambda m=metric: pdist(wide[0], m)  # type: ignore[misc]
        found = rotate(tasks, repeats)
        times = {
            name: seconds * (LAYERS if name == "scipy" else scale)
            for name, (seconds, _) in found.items()
        }
        exact = found["repsim float64"][1][0]  # type: ignore[index]
        narrow = found["repsim float32"][1][0]  # type: ignore[index]
        error = np.abs(narrow - exact).max() / np.abs(exact).max()
        row(f"{metric}, n = {n}", times, f"float32 error {error:.0e} of the largest")


def row(name: str, times: dict[str, float], note: str) -> None:
    """Print one row: seconds of each, ratios to our float32 and float64."""
    cells = " · ".join(f"{k} {v:.3f}" for k, v in times.items())
    ours = {k: v for k, v in times.items() if k.startswith("repsim")}
    ratios = []
    for kind, seconds in ours.items():
        precision = kind.removeprefix("repsim").strip()
        for peer, other in times.items():
            same = peer in ("scipy", "rsatoolbox") or peer.endswith(precision)
            if not peer.startswith("repsim") and same:
                ratios.append(f"{other / seconds:.1f} × {peer} ({precision or 'f64'})")
    print(f"| {name} | {cells} | {'; '.join(ratios)} | {note} |", flush=True)


def comparisons(n: int, tau: int, repeats: int) -> None:
    """Print the table of comparisons."""
    m = n * (n - 1) // 2
    rng = np.random.default_rng(2)
    base = rng.random(m)
    a, b = (base + rng.random((LAYERS, m)) / 2 for _ in range(2))
    peer = sys.modules["rsatoolbox.rdm.compare"].compare  # type: ignore[attr-defined]
    for ours, theirs in COMPARE.items():
        k = tau if ours == "tau-a" else LAYERS
        tasks: dict[str, Task] = {
            "repsim": lambda o=ours, k=k: repsim.compare_rdms(  # type: ignore[misc]
                a[:k], b[:k], method=o
            ),
            "rsatoolbox": lambda t=theirs, k=k: peer(a[:k], b[:k], t),  # type: ignore[misc]
        }
        found = rotate(tasks, repeats)
        error = np.abs(
            np.asarray(found["repsim"][1]) - np.asarray(found["rsatoolbox"][1])
        ).max()
        times = {name: seconds for name, (seconds, _) in found.items()}
        row(f"{ours}, {k} × {k}, n = {n}", times, f"difference {error:.0e}")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tau", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["rdms", "comparisons"])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    threadpool_limits(1)
    names = ("rsatoolbox", "scipy", "numpy", "torch")
    print(", ".join(f"{name} {version(name)}" for name in names))
    print("| work | CPU s | ratio | result |\n| --- | --- | --- | --- |")
    if given.only != "comparisons":
        rdms(given.n, given.d, given.layers, given.repeats)
    if given.only != "rdms":
        comparisons(given.n, given.tau, given.repeats)


if __name__ == "__main__":
    main()
