"""What else costs: opening, intervals, tests, pictures, a report.

    python -P tests/benchmarks/costs.py

CPU seconds of one thread, the median of `--rounds`; each is what one call takes after
the libraries are loaded and warmed up on something small. No peer does these.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from scipy.spatial.distance import pdist

import repsim
from repsim.studies.report import write_report

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock

Task = Callable[[], object]


def recording(n: int, units: int, layers: int, seed: int) -> xr.Dataset:
    """Return layers that share what the same examples give them."""
    rng = np.random.default_rng(seed)
    state = np.random.default_rng(0).normal(size=(n, units))
    made = {}
    for i in range(layers):
        mix = rng.normal(size=(units, units)) / units**0.5
        state = np.tanh(state @ mix)
        made[f"h{i}"] = (("example", f"h{i}_unit"), state.astype(np.float32))
    return xr.Dataset(made, coords={"label": ("example", np.arange(n) % 10)})


def drawn(draw: Callable[[], Any]) -> None:
    """Draw a figure to its last pixel."""
    figure = getattr(draw(), "figure", None) or plt.gcf()
    figure.canvas.draw()
    plt.close("all")


def tasks(folder: Path, small: bool) -> Iterator[tuple[str, Task]]:
    """Yield what is timed, large, or small to warm up."""
    networks, n, layers = (4, 60, 3) if small else (100, 5_000, 48)
    store = folder / f"{networks}.zarr"
    for i in range(networks):
        run = recording(30, 8, 4, i)
        repsim.save_recording(run, store / f"{'ab'[i % 2]}/{i // 2}")
    yield (
        f"open a study of {networks} networks, see its layers",
        lambda: [
            repsim.layers(run.to_dataset()) for run in repsim.open_study(store).leaves
        ],
    )
    a, b = recording(n, 64, 4, 1), recording(n, 64, 4, 2)
    size = f"4 × 4 layers, {n:,} × 64"
    yield f"confidence, {size}", partial(repsim.inference.confidence, a, b)
    rsa = f"confidence of RSA, 4 × 4 layers, {n // 5:,} × 64"
    few = slice(n // 5)
    yield (
        rsa,
        lambda: repsim.inference.confidence(
            a.isel(example=few), b.isel(example=few), "rsa"
        ),
    )
    yield f"permutation_test, {size}", partial(repsim.inference.permutation_test, a, b)
    stack = repsim.rdms(recording(40, 16, layers, 3))
    yield (
        f"draw rdm_grid of {layers} layers",
        lambda: drawn(lambda: repsim.plot.rdm_grid(stack)),
    )
    cells = repsim.compare(recording(40, 16, layers, 3))
    yield (
        f"draw heatmap of {layers} × {layers} layers",
        lambda: drawn(lambda: repsim.plot.heatmap(cells)),
    )
    points = np.random.default_rng(0).normal(size=(networks, 9))
    apart = xr.DataArray(pdist(points), dims="pair")
    yield (
        f"draw the MDS of {networks} networks",
        lambda: drawn(lambda: repsim.plot.mds(apart)),
    )
    study = folder / f"study {small}"
    repsim.run_study(
        ["bp", "sg"], seeds=2 if small else 5, out=study, jobs=1, progress=False,
        depth=2 if small else 8, width=8 if small else 64, steps=12, lr=3e-3,
    )  # fmt: skip
    yield (
        f"compute and draw the report of {4 if small else 10} networks",
        partial(again, study, folder / "page"),
    )
    yield (
        "the same report, nothing changed",
        partial(write_report, study, folder / "page", jobs=1, progress=False),
    )


def again(study: Path, kept: Path) -> None:
    """Compute and draw a whole report in a folder that has none, and keep it there."""
    shutil.rmtree(kept, ignore_errors=True)
    write_report(study, kept, jobs=1, progress=False)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What else costs.")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    mpl.use("agg")
    clock.use(1)
    print(f"| what | {clock.words()} |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for _, task in tasks(Path(folder), small=True):
            task()
        for name, task in tasks(Path(folder), small=False):
            spent = []
            for _ in range(given.rounds):
                began = time.process_time()
                task()
                spent.append(time.process_time() - began)
            print(f"| {name} | {statistics.median(spent):.3g} |", flush=True)
    print(f"\n{clock.processor()}; medians of {given.rounds}.")


if __name__ == "__main__":
    main()
