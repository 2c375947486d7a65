"""CKA read from a store: what reading, computing and both at once take.

    python -P tests/benchmarks/overlap.py --folder BIG --threads 2

Wall time, for a machine without other work, the stores in the system's cache. "Reading"
takes every block as a stream does and computes nothing; "computing" compares the same
recordings from memory; "both" is `repsim.compare` of the opened stores. Taking turns
would cost their "sum". "Least" is what perfect overlap could reach on so many cores:
the larger of the two, or the processor time of both shared by all cores, whichever is
more. The last columns are ratios to the larger and to the least.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

import repsim
from repsim.comparison.operands import Operand
from repsim.measures.kernels.streamed import Blocks

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock

SHAPES = ((8, 256), (12, 384), (20, 512))


def make(folder: Path, n: int, layers: int, units: int) -> Path:
    """Write a recording of a random ReLU network, once."""
    place = folder / f"{n}-{layers}-{units}.zarr"
    if not place.exists():
        rng = np.random.default_rng(0)
        x = rng.normal(size=(n, units)).astype(np.float32)
        made = {}
        for i in range(layers):
            weight = rng.normal(size=(units, units)).astype(np.float32)
            x = np.maximum(x @ weight * np.float32((2 / units) ** 0.5), 0)
            made[f"h{i}"] = (("example", f"h{i}_unit"), x)
        repsim.save_recording(xr.Dataset(made), place)
    return place


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Reading and computing at once.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    clock.add_option(parser)
    given = parser.parse_args()
    clock.use(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    print(
        "| layers | reading s | computing s | sum s | least s | both s "
        "| both / larger | both / least |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for layers, units in SHAPES:
        place = make(given.folder, given.n, layers, units)
        stored = repsim.open_recording(place)
        memory = stored.compute()

        def reading(run: xr.Dataset = stored) -> None:
            sources = Operand.of(run, None, "layers").sources(None)
            for _ in Blocks(sources, "float32", "cpu"):
                pass

        ways: dict[str, Callable[[], object]] = {
            "reading": reading,
            "computing": lambda run=memory: repsim.compare(run),  # type: ignore[misc]
            "both": lambda run=stored: repsim.compare(run),  # type: ignore[misc]
        }
        wall: dict[str, list[float]] = {name: [] for name in ways}
        busy: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, way in ways.items():
                began, worked = time.perf_counter(), time.process_time()
                way()
                wall[name].append(time.perf_counter() - began)
                busy[name].append(time.process_time() - worked)
        read, compute, both = (statistics.median(wall[name]) for name in ways)
        work = sum(statistics.median(busy[name]) for name in ("reading", "computing"))
        larger = max(read, compute)
        least = max(larger, work / cores)
        print(
            f"| {layers} × {units} | {read:.3g} | {compute:.3g} | {read + compute:.3g} "
            f"| {least:.3g} | {both:.3g} | {both / larger:.2f} | {both / least:.2f} |",
            flush=True,
        )
    print(f"\nn = {given.n:,}; {given.threads} threads compute, {cores} cores.")


if __name__ == "__main__":
    main()
