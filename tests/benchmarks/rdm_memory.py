"""Memory of RDMs and their comparison: peak resident MB above entry, each in a process.

Run: python -P tests/benchmarks/rdm_memory.py [--n 5000] [--d 512]

Activations are float32; small cases warm up the libraries first, so that what is
counted is the work's own. Linux only: it reads /proc/self/statm.
"""

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import repsim

WORK = [
    "rdms, one layer",
    "rdms, 20 layers",
    "rdm (float64)",
    "crossnobis, 2 folds",
    "compare rsa, 2 layers",
    "compare rsa, 20 layers",
    "compare_rdms 2 × 2, pearson",
    "compare_rdms 2 × 2, whitened_cosine",
    "compare_rdms 2 × 2, spearman",
    "compare_rdms 2 × 2, tau-a",
]


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def peak(work: Callable[[], object]) -> float:
    """Return the most memory above entry while some work runs."""
    done = threading.Event()
    seen = [resident()]

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(resident())

    thread = threading.Thread(target=watch)
    thread.start()
    work()
    done.set()
    thread.join()
    return max(seen) - seen[0]


def prepared(name: str, n: int, d: int) -> Callable[[], object]:
    """Return one of `WORK` on n examples, its inputs made."""
    rng = np.random.default_rng(0)
    if name.startswith("compare_rdms"):
        method = name.rpartition(" ")[2]
        stack = rng.random((2, n * (n - 1) // 2)).astype(np.float32)
        return lambda: repsim.compare_rdms(stack, stack, method=method)  # type: ignore[arg-type]
    layers = 20 if "20 layers" in name else 2 if "2 layers" in name else 1
    x = rng.normal(size=(n, d)).astype(np.float32)
    run = xr.Dataset({f"h{k}": (("example", f"h{k}_unit"), x) for k in range(layers)})
    if name.startswith("rdms"):
        return lambda: repsim.rdms(run)
    if name.startswith("compare rsa"):
        return lambda: repsim.compare(run, measure="rsa")
    if name.startswith("crossnobis"):
        folds = np.stack([x, x])
        return lambda: repsim.crossnobis(folds)
    return lambda: repsim.rdm(x)


def main() -> None:
    """Print the table, or one row of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--row", choices=WORK)
    given = parser.parse_args()
    if given.row:
        torch.set_num_threads(1)
        prepared(given.row, 400, given.d)()
        print(f"{peak(prepared(given.row, given.n, given.d)):.0f}")
        return
    print(f"| n = {given.n:,}, d = {given.d} | peak MB |\n| --- | --- |", flush=True)
    for name in WORK:
        command = [sys.executable, "-P", __file__, "--row", name]
        command += ["--n", str(given.n), "--d", str(given.d)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"| {name} | {found.stdout.strip()} |", flush=True)


if __name__ == "__main__":
    main()
