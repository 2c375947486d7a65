"""CKA of wide layers from a sketch: how much faster than exact, and how far off.

    python -P tests/benchmarks/sketched.py --threads 1

Layers are mixtures of a few directions that fade from layer to layer, each with noise
of its own, so that CKA between them runs from near 1 to near 0. "32 layers" is the
ratio of operations times that of their speed here: the exact form grows with the
square of the number of layers times their width, a sketch with their number, and with
the square of that number times the sketch.
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
import xarray as xr

import repsim
from repsim.measures.kernels.hsic_sums import operations

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock


def recording(n: int, units: int, layers: int, seed: int = 0) -> xr.Dataset:
    """Return layers that forget what the first one held, in memory."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(n, 24)).astype(np.float32)
    made = {}
    for k in range(layers):
        mix = rng.normal(size=(24, units)).astype(np.float32)
        values = rng.standard_normal(size=(n, units), dtype=np.float32)
        values *= np.float32(0.5)
        values += state @ mix
        made[f"h{k}"] = (("example", f"h{k}_unit"), values)
        fresh = rng.normal(size=state.shape).astype(np.float32)
        state = np.float32(0.8) * state + np.float32(0.6) * fresh
    return xr.Dataset(made)


def work(n: int, units: int, layers: int, sketch: int | None) -> float:
    """Return the operations of all pairs."""
    if sketch is None:
        spaces = ("sample", "feature")
        return min(operations(n, [units] * layers, None, space) for space in spaces)
    projections = 2.0 * n * units * sketch * layers
    return projections + operations(n, [sketch] * layers, None, "feature")


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description="CKA from a sketch.")
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--units", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--sketch", type=int, nargs="+", default=[256, 384, 512, 1024])
    parser.add_argument("--rounds", type=int, default=1)
    clock.add_option(parser)
    given = parser.parse_args()
    clock.use(given.threads)
    run = recording(given.n, given.units, given.layers)
    size = (given.n, given.units)
    spent: dict[int | None, list[float]] = {}
    found: dict[int | None, xr.DataArray] = {}
    for _ in range(given.rounds):
        for sketch in (None, *given.sketch):
            began = clock.now()
            options = {} if sketch is None else {"sketch": sketch}
            found[sketch] = repsim.compare(run, **options)
            spent.setdefault(sketch, []).append(clock.now() - began)
    seconds = {sketch: statistics.median(s) for sketch, s in spent.items()}
    exact = found[None]
    apart = ~np.eye(given.layers, dtype=bool)
    print(
        f"| sketch | {clock.words()} | exact / sketch | of 32 layers | "
        "largest error | typical standard error | within 2 of them |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(f"| exact | {seconds[None]:.3g} | 1 | 1 | – | – | – |")
    for sketch in given.sketch:
        off = np.abs(found[sketch] - exact).values[apart]
        error = found[sketch]["standard_error"].values[apart]
        ratio = seconds[None] / seconds[sketch]
        here = work(*size, given.layers, None) / work(*size, given.layers, sketch)
        there = work(*size, 32, None) / work(*size, 32, sketch)
        print(
            f"| {sketch} | {seconds[sketch]:.3g} | {ratio:.1f} | "
            f"{ratio * there / here:.1f} | {off.max():.1g} | "
            f"{np.median(error):.1g} | {(off <= 2 * error).mean():.2f} |"
        )
    values = exact.values[apart]
    print(
        f"\n{given.layers} layers × {given.units}, n = {given.n:,}, float32, CKA from "
        f"{values.min():.2f} to {values.max():.2f}; {clock.processor()}."
    )


if __name__ == "__main__":
    main()
