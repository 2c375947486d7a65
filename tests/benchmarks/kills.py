"""Kill recordings and studies at random moments: nothing complete is lost or repeated.

    python -P tests/benchmarks/kills.py --recordings 100 --studies 100

Recordings: as tests/datasets/store/kill_writer.py does. Studies: a child runs a study
of two conditions and two seeds; the parent kills it (SIGKILL) after a random time, sees
that every cell that was complete is still there, byte for byte and not written again,
and lets the next child go on. A study that gets to its end must hold the numbers of one
that nobody disturbed, and the next one begins.
"""

import argparse
import collections
import os
import random
import runpy
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import xarray as xr

import repsim
from repsim.studies.completeness import is_complete

STUDY: dict[str, Any] = {
    "conditions": ["bp", "sg"],
    "seeds": 2,
    "lr": 1e-3,
    "jobs": 1,
    "depth": 2,
    "width": 8,
    "steps": 60,
    "batch_size": 16,
    "examples": 20,
    "progress": False,
}
CELLS = [(condition, seed) for condition in ("bp", "sg") for seed in (0, 1)]

Files = dict[Path, tuple[int, bytes]]


def numbers(out: Path) -> dict[str, xr.Dataset]:
    """Return what a study holds, without the times it took."""
    study = repsim.open_study(out / "runs.zarr")
    kept = {}
    for node in study.subtree:
        run = node.to_dataset().load()
        run.attrs = {
            k: v for k, v in run.attrs.items() if k not in ("wall_s", "created")
        }
        kept[node.path] = run
    return kept


def files(out: Path, cell: tuple[str, int]) -> Files:
    """Return when a cell's files were written, and what is in them."""
    folder = out / "runs.zarr" / cell[0] / str(cell[1])
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def complete(out: Path) -> dict[tuple[str, int], Files]:
    """Return the complete cells with their files."""
    store = out / "runs.zarr"
    return {cell: files(out, cell) for cell in CELLS if is_complete(store, *cell)}


def killed_after(seconds: float, out: Path) -> bool:
    """Run a study in a child, kill it, and return whether it was still at work."""
    process = os.fork()
    if not process:
        try:
            repsim.run_study(out=out, **STUDY)
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "the study failed by itself"
        return False
    return True


def studies(kills: int, seed: int, folder: Path) -> collections.Counter[str]:
    """Kill so many studies; return how many cells were whole at the blows."""
    chance, tally = random.Random(seed), collections.Counter[str]()
    undisturbed = folder / "undisturbed"
    began = time.perf_counter()
    repsim.run_study(out=undisturbed, **STUDY)
    span = time.perf_counter() - began
    expected = numbers(undisturbed)
    out, before = folder / "s", dict[tuple[str, int], Files]()
    done = 0
    while done < kills:
        hit = killed_after(chance.uniform(0, span / 2), out)
        done += hit
        now = complete(out) if out.is_dir() else {}
        for cell, was in before.items():
            assert now.get(cell) == was, f"{cell} was complete, and is not as it was"
        before = now
        if hit:
            tally[f"study with {len(now)} of 4 networks"] += 1
        else:
            found = numbers(out)
            assert found.keys() == expected.keys()
            for name, run in expected.items():
                xr.testing.assert_identical(found[name], run)
            tally["studies that came to their end, as if undisturbed"] += 1
            shutil.rmtree(out)
            before = {}
    return tally


def main() -> None:
    """Print how often the blow met what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=100)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.studies:
            tally = studies(options.studies, options.seed, Path(folder))
            print("studies", dict(tally))  # noqa: T201
    if options.recordings:
        script = Path(__file__).parents[1] / "datasets/store/kill_writer.py"
        kill = runpy.run_path(str(script))["run_apart"]
        print("recordings", dict(kill(options.recordings, options.seed)))  # noqa: T201


if __name__ == "__main__":
    main()
