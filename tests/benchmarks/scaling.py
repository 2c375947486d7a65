"""What CKA over stored recordings costs as it grows: on paper, and on workers here.

    python -P tests/benchmarks/scaling.py paper
    python -P tests/benchmarks/scaling.py workers --rows rows.json --into PAGE.md

`paper` takes the package's own plan (`repsim.measures.kernels`): operations, bytes read
and moved, memory of a worker, and where an H100 is no longer the limit. `workers`
writes a recording, compares it on so many processes of this machine, and prints the
processor time and peak memory of the workers, which other work on the machine changes
little, beside the same numbers from dask arrays. Each row is fresh processes;
`--repeats` takes the median of several, `--rows` keeps them, so that a run that was
ended goes on, and `--wall` also shows wall times, for a machine without other work.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import repsim
from repsim.claims.render import replaced
from repsim.datasets.store import zarr_format
from repsim.measures.kernels.hsic_sums import operations
from repsim.measures.kernels.streamed import number_of_spans, passes, reads

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock

H100 = {"TF32": 495e12, "float32": 67e12}
"""Operations a second at most: NVIDIA H100 SXM data sheet, dense."""

STORE = 10e9
"""Bytes a second that eight workers read together from a shared store, assumed."""

RESNET50 = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
"""Units of its sixteen blocks, pooled over space."""

CASES: dict[str, tuple[int, list[int], int]] = {
    "ResNet-50 blocks, pooled, one network": (50_000, RESNET50, 1),
    "the same, two networks": (50_000, RESNET50 * 2, 1),
    "50 networks × 100 checkpoints": (50_000, RESNET50 * 50, 100),
    "32 layers × 4,096, 10⁶ tokens": (1_000_000, [4096] * 32, 1),
}


def paper(budget: int, workers: int = 8) -> list[dict[str, Any]]:
    """Return a row for each case."""
    rows = []
    for name, (n, widths, times) in CASES.items():
        every = passes(widths, None, budget)
        again = reads(every)
        work = operations(n, widths, None, "feature") * times
        size = 4.0 * n * sum(widths) * times
        # Each pass sends the sums of each run of examples once, to be merged.
        products, moved = [], 0.0
        for one in every:
            wide = [widths[i] for i in one.layers]
            products.append(sum(wide) ** 2 / (2 if one.split is None else 4))
            spans = number_of_spans(n, wide, one.split)
            moved += 8 * products[-1] * (spans - 1) * times
        rows.append(
            {
                "what": name,
                "operations": work,
                "stored GB": size / 1e9,
                "passes": len(every),
                "reads": again,
                "read GB": size * again / 1e9,
                "moved GB": moved / 1e9,
                "sums of a pass, GiB": max(products) * 8 / 2**30,
                "hours of arithmetic": work / (H100["TF32"] * workers) / 3600,
                "hours of reading": size * again / STORE / 3600,
            }
        )
    return rows


def shown(rows: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "| " + "--- | " * len(rows[0])]
    for row in rows:
        cells = [v if isinstance(v, str) else f"{v:.3g}" for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(line.rstrip() for line in lines)


def written(folder: Path, n: int, layers: int, units: int) -> Path:
    """Write a recording piece by piece, so that this process stays small."""
    path = folder / f"{n}.zarr"
    rng = np.random.default_rng(0)
    zarr_format.CHUNK_BYTES = 2**20
    base = rng.normal(size=(n, 16)).astype(np.float32)
    run = {}
    for i in range(layers):
        mix = rng.normal(size=(16, units)).astype(np.float32)
        run[f"l{i}"] = (("example", f"l{i}_unit"), np.tanh(base @ mix))
    repsim.save_recording(xr.Dataset(run), path)
    return path


def afresh() -> None:
    """Forget the peak of this process, which begins with that of its parent."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def usage() -> tuple[float, float]:
    """Return the processor seconds and the peak MB of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak, known = used.ru_maxrss / 1024, Path("/proc/self/status")
    if known.exists():
        lines = dict(line.split(":", 1) for line in known.read_text().splitlines())
        peak = int(lines["VmHWM"].split()[0]) / 1024
    return used.ru_utime + used.ru_stime, peak


def received() -> float:
    """Return the MB that the loopback interface has carried, where that is known."""
    known = Path("/proc/net/dev")
    lines = known.read_text().splitlines() if known.exists() else []
    loop = next((line.split(":")[1] for line in lines if line.strip()[:3] == "lo:"), "")
    return float(loop.split()[0]) / 1e6 if loop else float("nan")


def on_workers(path: Path, workers: int, form: str) -> dict[str, Any]:
    """Compare on fresh processes, and return what it cost them."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0"
        ) as local,
        Client(local) as client,
    ):
        client.run(lambda: __import__("repsim").compare)
        client.run(afresh)
        before, sent = client.run(usage), received()
        began = time.perf_counter()
        if form == "repsim":
            run = repsim.open_recording(path)
            repsim.compare(run, precision="float32")
        else:
            by_dask(path)
        wall = time.perf_counter() - began
        gathered = received() - sent
        after = client.run(usage)
    spent = [after[w][0] - before[w][0] for w in after]
    more = [after[w][1] - before[w][1] for w in after]
    return {
        "form": form,
        "workers": workers,
        "CPU s, all": sum(spent),
        "CPU s, busiest": max(spent),
        "peak MB a worker": max(more),
        "MB between processes": gathered,
        "wall s": wall,
    }


def by_dask(path: Path) -> np.ndarray:
    """Return linear, biased CKA of all pairs as one writes it with dask arrays."""
    import dask
    import dask.array as da

    run = repsim.open_recording(path, chunks={})
    layers = [run[name].data for name in repsim.layers(run)]
    layers = [x - x.mean(axis=0) for x in layers]
    squares = [[da.sum((x.T @ y) ** 2) for y in layers] for x in layers]
    values = np.array(dask.compute(squares)[0])
    own = np.sqrt(np.diag(values))
    return np.asarray(values / np.outer(own, own))


Key = tuple[int, int, str]


def measured(options: argparse.Namespace) -> dict[Key, list[dict[str, Any]]]:
    """Return the runs of each row, those kept before and those still lacking."""
    kept: list[dict[str, Any]] = []
    if options.rows and options.rows.is_file():
        kept = json.loads(options.rows.read_text())
    runs: dict[Key, list[dict[str, Any]]] = {}
    for one in kept:
        runs.setdefault((one["n"], one["workers"], one["form"]), []).append(one)
    with tempfile.TemporaryDirectory() as folder:
        for n in options.examples:
            path = Path(folder) / f"{n}.zarr"
            for workers in options.workers:
                for form in options.forms:
                    mine = runs.setdefault((n, workers, form), [])
                    while len(mine) < options.repeats:
                        if not path.exists():
                            written(Path(folder), n, options.layers, options.units)
                        mine.append({"n": n, **on_workers(path, workers, form)})
                        if options.rows:
                            every = [one for runs_ in runs.values() for one in runs_]
                            options.rows.write_text(json.dumps(every))
    return runs


def table(runs: dict[Key, list[dict[str, Any]]], wall: bool) -> list[dict[str, Any]]:
    """Return a row of medians for each of them."""
    names = ["CPU s, all", "CPU s, busiest", "peak MB a worker", "MB between processes"]
    rows = []
    for (n, workers, form), of in sorted(runs.items()):
        row: dict[str, Any] = {"examples": f"{n:,}", "workers": str(workers)}
        row["form"] = {"repsim": "repsim", "dask": "dask arrays"}[form]
        for name in [*names, *(["wall s"] if wall else [])]:
            row[name] = statistics.median(one[name] for one in of)
        rows.append(row)
    return rows


def main() -> None:
    """Print the table asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["paper", "workers"])
    parser.add_argument("--budget", type=float, default=2.0, help="GiB of sums")
    parser.add_argument("--examples", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--forms", nargs="+", default=["repsim", "dask"])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--rows", type=Path, help="a JSON file to keep runs in")
    parser.add_argument("--into", type=Path, help="a Markdown page")
    options = parser.parse_args()
    if options.what == "paper":
        text = shown(paper(int(options.budget * 2**30)))
    else:
        text = shown(table(measured(options), options.wall))
        text += (
            f"\n\n{options.layers} layers × {options.units}, float32; medians of "
            f"{options.repeats}; {clock.processor()}, {os.cpu_count()} cores."
        )
    print(text)  # noqa: T201
    if options.into:
        title = f"scaling {options.what}{', wall' if options.wall else ''}"
        page = options.into.read_text()
        options.into.write_text(replaced(page, title, text))


if __name__ == "__main__":
    main()
