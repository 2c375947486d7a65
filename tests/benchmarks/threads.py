"""Wall time of public computations with the default threads and with one.

    python -P tests/benchmarks/threads.py [--rounds 7] [--only cka rdms]

One process; the thread count of torch and of every BLAS changes between calls, which
take turns in an order that rotates. The ratio is one thread's median time divided by
that of the default: below 1 the other threads cost more than they save. It means
something on a machine without other work only. `scipy` and `torch` rows are peers that
compute the same: scipy's pdist of every layer, and a loop over pairs of layers in torch
(anatome's form), each at both counts.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from scipy.spatial.distance import pdist
from threadpoolctl import threadpool_limits

import repsim

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

from cka_pairs import anatome

Task = Callable[[], object]


def recording(n: int, d: int, layers: int, seed: int = 0) -> xr.Dataset:
    """Return rectified layers of a residual network: plain ones of ten units die."""
    rng = np.random.default_rng(seed)
    x = np.random.default_rng(1).normal(size=(n, d)).astype(np.float32)
    made = {}
    for k in range(layers):
        weight = rng.normal(size=(d, d)).astype(np.float32) * np.float32((2 / d) ** 0.5)
        rectified = np.maximum(x, 0)
        made[f"h{k}"] = (("example", f"h{k}_unit"), rectified)
        x = x + np.float32(0.3) * (rectified @ weight)
    label = rng.permutation(np.arange(n) % 10)
    return xr.Dataset(made, coords={"label": ("example", label)})


def pairs(a: xr.Dataset, b: xr.Dataset) -> list[float]:
    """Return CKA of all pairs of layers by a loop over anatome's form."""
    left, right = (
        [torch.from_numpy(run[name].values) for name in run.data_vars] for run in (a, b)
    )
    return [anatome(x, y) for x in left for y in right]


def tasks() -> Iterator[tuple[str, Task]]:
    """Yield what is timed: its name and the call."""
    for n, d, k in ((2_000, 50, 20), (300, 10, 20), (3_000, 512, 6)):
        a, b = recording(n, d, k), recording(n, d, k, 2)
        size = f"{k} × {k} layers, {n:,} × {d}"
        yield f"cka, {size}", lambda a=a, b=b: repsim.compare(a, b)  # type: ignore[misc]
        yield f"torch: cka, {size}", lambda a=a, b=b: pairs(a, b)  # type: ignore[misc]
    for n, d, k in ((1_000, 50, 20), (300, 10, 20), (1_000, 512, 4)):
        a = recording(n, d, k)
        size = f"{k} layers, {n:,} × {d}"
        yield f"rdms, {size}", lambda a=a: repsim.rdms(a)  # type: ignore[misc]
        yield (
            f"scipy: rdms, {size}",
            lambda a=a: [pdist(v.values, "correlation") for v in a.data_vars.values()],  # type: ignore[misc]
        )
    few, more = recording(300, 32, 6), recording(300, 32, 6, 2)
    for measure in ("rsa", "cca", "svcca", "procrustes_distance", "mutual_knn"):
        yield (
            f"{measure}, 6 × 6 layers, 300 × 32",
            lambda m=measure: repsim.compare(few, more, m),  # type: ignore[misc]
        )
    one, two = (recording(1_000, 64, 1, s)["h0"].values for s in (3, 4))
    yield "rsa, two matrices, 1,000 × 64", lambda: repsim.rsa(one, two)
    yield "rdm, 1,000 × 64", lambda: repsim.rdm(one)
    yield "confidence, cka, 300 × 32", lambda: repsim.inference.confidence(few, more)
    yield (
        "permutation_test, cka, 300 × 32",
        lambda: repsim.inference.permutation_test(few, more),
    )
    yield "probe_layers, 300 × 32", lambda: repsim.probes.probe_layers(few)
    yield "effective_dimension, 300 × 32", lambda: repsim.effective_dimension(few)
    stack = repsim.rdms(recording(300, 32, 20))
    yield "compare_rdms, 20 × 20, 300", lambda: repsim.compare_rdms(stack, stack)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Give torch and every BLAS so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    with threadpool_limits(count):
        yield
    torch.set_num_threads(before)


def seconds(task: Task, count: int) -> float:
    """Return the wall time of one call."""
    with threads(count):
        began = time.perf_counter()
        task()
        return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[""])
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    most = torch.get_num_threads()
    if most < 2:
        parser.error("expected more than one thread; unset OMP_NUM_THREADS")
    print(f"| work | one thread | {most} threads | ratio |")
    print("| --- | --- | --- | --- |")
    for name, task in tasks():
        if not any(part in name for part in asked.only):
            continue
        times: dict[int, list[float]] = {1: [], most: []}
        seconds(task, 1)
        for turn in range(asked.rounds):
            for count in (1, most) if turn % 2 else (most, 1):
                times[count].append(seconds(task, count))
        alone, all_of = (statistics.median(times[count]) for count in (1, most))
        sign = "✓" if alone / all_of >= 0.95 else "✗"
        print(
            f"| {name} | {1e3 * alone:.1f} ms | {1e3 * all_of:.1f} ms "
            f"| {alone / all_of:.2f} {sign} |",
            flush=True,
        )
    print(
        f"\ntorch {torch.__version__}, numpy {np.__version__}; {asked.rounds} rounds; "
        f"load {os.getloadavg()[0]:.1f}. ✗: more than 5 % slower with all threads."
    )


if __name__ == "__main__":
    main()
