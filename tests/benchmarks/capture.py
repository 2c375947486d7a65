"""What recording costs a training run, and what the store costs in bytes.

    python tests/benchmarks/capture.py            # all three tables, about a minute
    python tests/benchmarks/capture.py overhead   # or one: overhead, codecs, memory

Process CPU time of all threads, one thread for torch, interleaved, medians.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import repsim
from repsim.datasets.layout import Codec

EXAMPLES, LAYERS, WIDTH, BATCH = 256, 20, 256, 128


def _network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return repsim.networks.mlp(784, hidden=[WIDTH] * LAYERS, classes=10)


def overhead(rounds: int = 7, updates: int = 20, records: int = 4) -> None:
    """Print the time of a recording to disk over that of the updates between two."""
    net = _network()
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-4, fused=True)
    x, y = torch.randn(BATCH, 784), torch.randint(0, 10, (BATCH,))
    update_times, record_times = [], []
    with tempfile.TemporaryDirectory() as folder:
        with repsim.Recorder(
            net,
            torch.rand(EXAMPLES, 784),
            layers="hidden_*",
            every=10**9,
            store=f"{folder}/s.zarr",
        ) as recorder:
            for _ in range(rounds):
                begin = time.process_time()
                for _ in range(updates):
                    optimiser.zero_grad()
                    F.cross_entropy(net(x), y).backward()
                    optimiser.step()
                    recorder.step()  # none is due
                update_times.append((time.process_time() - begin) / updates)
                recorder.dataset()
                begin = time.process_time()
                for _ in range(records):
                    recorder._count += 1
                    recorder.snapshot()
                recorder._sink._flush()  # type: ignore[attr-defined]
                record_times.append((time.process_time() - begin) / records)
            begin = time.process_time()
        closing = (time.process_time() - begin) / (rounds * records + 1)
    update, record = map(statistics.median, (update_times, record_times))
    _say(f"\n{EXAMPLES} examples, {LAYERS} layers of {WIDTH}, batch {BATCH}")
    _say(f"one update {1e3 * update:.1f} ms, one recording {1e3 * record:.1f} ms and")
    _say(f"{1e3 * closing:.1f} ms when the store is packed at the end\n")
    _say("| recorded every | of training time |")
    _say("| --- | --- |")
    for every in (1, 10, 100):
        _say(f"| {every} | {(record + closing) / update / every:.1%} |")


def codecs(rounds: int = 5) -> None:
    """Print speed and size by zstd level and mantissa bits, and the disk's own."""
    net = _network()
    run = repsim.record(net, torch.rand(EXAMPLES, 784), layers="hidden_*")
    values = [run[n].values for n in repsim.layers(run)]
    size = sum(v.nbytes for v in values)
    plain: dict[str, Callable[[Any], bytes]] = {"no compression": lambda v: v.tobytes()}
    for level in (1, 3, 5, 9):
        plain[f"zstd {level}"] = Codec(level).encode
    for bits in (16, 10, 7):
        plain[f"zstd 1, keepbits={bits}"] = Codec(1, bits).encode
    times: dict[str, list[float]] = {name: [] for name in plain}
    sizes = dict.fromkeys(plain, 0)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, encode in plain.items():
                begin = time.process_time()
                sizes[name] = 0
                for i, v in enumerate(values):
                    data = encode(v)
                    sizes[name] += len(data)
                    (Path(folder) / f"c.{i}").write_bytes(data)
                times[name].append(time.process_time() - begin)
    _say("\n| objects | MB/s of CPU time | size |")
    _say("| --- | --- | --- |")
    for name in plain:
        speed = size / statistics.median(times[name]) / 1e6
        _say(f"| {name} | {speed:.0f} | {sizes[name] / size:.0%} |")
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "zeros")
        command = ["dd", "if=/dev/urandom", f"of={target}", "bs=4M", "count=64"]
        subprocess.run(command, check=True, capture_output=True)
        begin = time.perf_counter()
        copy = ["dd", f"if={target}", f"of={target}2", "bs=4M", "conv=fdatasync"]
        subprocess.run(copy, check=True, capture_output=True)
        speed = 64 * 4.194304 / (time.perf_counter() - begin)
    _say(f"\n`dd` with fdatasync, 268 MB, wall clock: {speed:.0f} MB/s")


def _peak(moments: int) -> None:
    """Record so many moments of 8 MB, and print the peak memory above the start."""
    net = nn.Sequential(nn.Linear(64, 1024), nn.Tanh(), nn.Linear(1024, 1024))
    fixed = torch.rand(1024, 64)
    with tempfile.TemporaryDirectory() as folder:
        with repsim.Recorder(net, fixed, layers=["0", "2"], every=1) as recorder:
            pass  # what the libraries need once
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with repsim.Recorder(
            net, fixed, layers=["0", "2"], every=1, store=f"{folder}/s.zarr"
        ) as recorder:
            for _ in range(moments - 1):
                recorder.step()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        held = sum(v.nbytes for v in recorder.dataset().data_vars.values())
    _say(f"{held} {after - before}")


def memory() -> None:
    """Print peak memory while a recording grows tenfold, each in its own process."""
    _say("\n| recording | peak memory above the start |")
    _say("| --- | --- |")
    for moments in (30, 100, 300):
        command = [sys.executable, __file__, "peak", str(moments)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        held, peak = map(int, done.stdout.split())
        _say(f"| {held / 1e6:.0f} MB | {peak / 1e3:.0f} MB |")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    tables = {"overhead": overhead, "codecs": codecs, "memory": memory}
    parser.add_argument("table", nargs="?", choices=[*tables, "peak"])
    parser.add_argument("moments", nargs="?", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if options.table == "peak":
        _peak(options.moments)
    else:
        for name, table in tables.items():
            if options.table in (None, name):
                table()
