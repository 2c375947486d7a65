"""Kill a recording process again and again; look at what it left; let it go on.

    python tests/datasets/store/kill_writer.py --kills 200

A child trains a tiny network and records every update into one store. The parent
kills it (SIGKILL) after a random time, opens the store, checks that every step shown
is exact, that the recording says it is incomplete, and starts the child again with
`resume=True` from a random earlier update. Two in three times the child's recording
is short enough that the blow may fall while it is being compacted.
"""

import argparse
import collections
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

import repsim

FIXED = torch.linspace(-1, 1, 64 * 16).reshape(64, 16)


def network(update: int) -> nn.Module:
    """Return the network after so many updates: a function of their number alone."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8))
    for parameter in net.parameters():
        parameter.data += torch.sin(torch.tensor(float(update)))
    return net


def set_update(net: nn.Module, update: int) -> None:
    """Give the network the weights it has after so many updates."""
    net.load_state_dict(network(update).state_dict())


def child(store: Path, start: int, stop: int) -> None:
    """Record every update from `start` to `stop`."""
    net = network(start)
    with repsim.Recorder(
        net, FIXED, every=1, store=store, group="bp/0", resume=True, start=start
    ) as recorder:
        for update in range(start + 1, stop + 1):
            set_update(net, update)
            recorder.step()


def check(store: Path, cache: dict[int, xr.Dataset]) -> tuple[int, bool] | None:
    """Return the last complete step and whether the recording is complete."""
    try:
        run = repsim.open_recording(store / "bp/0")
    except FileNotFoundError:
        return None  # killed before the first step
    steps = run["step"].values
    assert np.array_equal(steps, np.arange(len(steps))), steps
    values = run.load()
    checked = {0, len(steps) // 2, *range(max(0, len(steps) - 3), len(steps))}
    for step in checked if len(steps) else ():
        if step not in cache:
            cache[step] = repsim.record(network(step), FIXED)
        for name in ("0", "1", "2"):
            held = values[name].values[step]
            assert np.array_equal(held, cache[step][name].values), (step, name)
    assert not any(np.isnan(v.values).any() for v in values.values())
    complete = run.attrs["complete"] == 1
    try:
        plain = xr.open_zarr(store / "bp/0", consolidated=False)
        assert int((plain["step"] >= 0).sum()) == len(steps)
    except ValueError as error:
        # Between the first and the last zarr.json of one growth.
        assert "conflicting sizes" in str(error)
    return max(0, len(steps) - 1), complete


def main(kills: int, seed: int, folder: Path) -> collections.Counter[str]:
    """Kill so many running processes; return how often the blow met what."""
    chance, tally = random.Random(seed), collections.Counter[str]()
    store, cache = folder / "s.zarr", dict[int, xr.Dataset]()
    start = 0
    while tally.total() - tally["too late"] < kills:  # blows that hit a process
        stop = start + chance.choice([8, 40, 3000])
        process = os.fork()
        if not process:
            try:
                child(store, start, stop)
                os._exit(0)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0, 0.4))
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        finished = os.WIFEXITED(status)
        assert not finished or os.WEXITSTATUS(status) == 0
        found = check(store, cache)
        if found is None:
            tally["before the first step"] += 1
            start = 0
            continue
        last, complete = found
        if finished:
            assert complete
            tally["too late"] += 1
        else:
            tally["complete already" if complete else "incomplete, as it says"] += 1
        start = chance.randint(0, last) if last < 400 else 0
    return tally


def run_apart(kills: int, seed: int = 0) -> collections.Counter[str]:
    """Do so in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return main(kills, seed, Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(dict(run_apart(options.kills, options.seed)))  # noqa: T201
