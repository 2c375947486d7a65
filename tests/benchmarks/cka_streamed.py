"""CKA of stores larger than memory: time and peak memory against the same in memory.

    export OMP_NUM_THREADS=1
    python tests/benchmarks/cka_streamed.py --folder BIG --layers 20 --rounds 3

`--folder` gets two recordings a size, of 20 layers of 512 units; 50,000 examples are
4 GB each before compression. CPU seconds of all threads, opening and reading included
for the store and not for memory; peak resident MB above entry, after a small run that
warms up the libraries. Every run is a process of its own, in turns. Linux only.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import xarray as xr

import repsim

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

from rdm_memory import peak  # type: ignore[import-not-found]

WIDTH = 512
SIZES = (5_000, 50_000)


def make(folder: Path, n: int, layers: int) -> None:
    """Write two recordings of random ReLU networks on the same inputs."""
    for side in (1, 2):
        place = folder / f"{n}-{layers}-{side}.zarr"
        if place.exists():
            continue
        rng = np.random.default_rng(side)
        x = np.random.default_rng(0).normal(size=(n, WIDTH)).astype(np.float32)
        made: dict[str, Any] = {}
        for i in range(layers):
            weight = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
            x = np.maximum(x @ weight * np.float32((2 / WIDTH) ** 0.5), 0)
            made[f"h{i}"] = (("example", f"h{i}_unit"), x)
        repsim.save_recording(xr.Dataset(made), place)


def opened(folder: Path, n: int, layers: int) -> list[xr.Dataset]:
    """Open the two recordings, lazily."""
    return [
        repsim.open_recording(folder / f"{n}-{layers}-{side}.zarr") for side in (1, 2)
    ]


def once(folder: Path, n: int, layers: int, where: str) -> dict[str, Any]:
    """Compare all layers once, and return time, memory and what attrs say."""
    make(folder, 500, 2)
    repsim.compare(*opened(folder, 500, 2))
    found: dict[str, Any] = {}
    runs = opened(folder, n, layers)
    if where == "memory":
        runs = [run.load() for run in runs]

    def work() -> None:
        started = time.process_time()
        found["cells"] = repsim.compare(*runs)
        found["seconds"] = time.process_time() - started

    found["peak"] = peak(work)
    cells = found.pop("cells")
    np.save(folder / f"{n}-{layers}-{where}.npy", cells.values)
    return found | {k: cells.attrs.get(k) for k in ("space", "reads")}


def main() -> None:
    """Print the table, or make one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--one", nargs=2, metavar=("N", "WHERE"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one:
        n, where = int(given.one[0]), given.one[1]
        make(given.folder, n, given.layers)
        if where != "nowhere":
            print(json.dumps(once(given.folder, n, given.layers, where)))
        return
    print(
        "| examples | from | CPU s | ratio | peak MB | largest difference | read |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    base = [sys.executable, __file__, "--folder", str(given.folder)]
    base += ["--layers", str(given.layers)]
    for n in given.sizes:
        subprocess.run([*base, "--one", str(n), "nowhere"], check=True)
        rows: dict[str, list[dict[str, Any]]] = {"memory": [], "store": []}
        for _ in range(given.rounds):
            for where, row in rows.items():
                made = subprocess.run(
                    [*base, "--one", str(n), where], capture_output=True, check=True
                )
                row.append(json.loads(made.stdout))
        values = {
            w: np.load(given.folder / f"{n}-{given.layers}-{w}.npy") for w in rows
        }
        times = {w: median(r["seconds"] for r in row) for w, row in rows.items()}
        for where, row in rows.items():
            print(
                f"| {n:,} | {where} | {times[where]:.3g} | "
                f"{times[where] / times['memory']:.2f} | "
                f"{median(r['peak'] for r in row):.0f} | "
                f"{np.abs(values[where] - values['memory']).max():.0e} | "
                f"{row[0]['reads']} × |",
                flush=True,
            )


if __name__ == "__main__":
    main()
