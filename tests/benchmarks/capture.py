"""What recording costs a training run, and what the store costs in bytes.

    python tests/benchmarks/capture.py            # all of it, some five minutes
    python tests/benchmarks/capture.py overhead   # or codecs, bfloat16, memory, …

CPU time is the process's, all threads together; one thread for torch; medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import repsim
from repsim.datasets.store.zarr_format import Codec

EXAMPLES, LAYERS, WIDTH, BATCH = 256, 20, 256, 128
_Times = tuple[float, float]  # CPU seconds, wall-clock seconds


def _network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return repsim.networks.mlp(784, hidden=[WIDTH] * LAYERS, classes=10)


def overhead(rounds: int = 9) -> None:
    """Print the time of a training loop with a recorder over that of its twin."""
    _say(f"\n{EXAMPLES} examples, {LAYERS} layers of {WIDTH}, batch {BATCH};")
    _say(f"{rounds} × 100 updates with a recorder and without, in turns\n")
    _say("| recorded every | clock | plain update | recorder's share | whole run |")
    _say("| --- | --- | --- | --- | --- |")
    for every in (100, 10):
        turns, ends = _twins(rounds, every)
        for clock in (0, 1):
            plain = [t[False][clock] for t in turns]
            ratios = sorted(t[True][clock] / t[False][clock] - 1 for t in turns)
            whole = sum(t[True][clock] for t in turns) + ends[clock]
            _say(
                f"| {every} | {('CPU', 'wall')[clock]} "
                f"| {10 * statistics.median(plain):.1f} ms "
                f"| {statistics.median(ratios):+.1%} "
                f"({ratios[0]:+.1%} to {ratios[-1]:+.1%}) "
                f"| {whole / sum(plain) - 1:+.1%} |"
            )


def _twins(rounds: int, every: int) -> tuple[list[dict[bool, _Times]], _Times]:
    """Train equal networks in turns of 100 updates, one of them recorded.

    Returns the times of each turn, with the recorder and without, and those of opening
    and closing the recording.
    """
    x, y = torch.rand(100 * BATCH, 784), torch.randint(0, 10, (100 * BATCH,))
    plain, recorded = _Loop(x, y), _Loop(x, y)
    turns: list[dict[bool, _Times]] = []
    with tempfile.TemporaryDirectory() as folder:
        begin = _clocks()
        recorder = repsim.Recorder(
            recorded.net,
            torch.rand(EXAMPLES, 784),
            layers="hidden_*",
            every=every,
            store=f"{folder}/s.zarr",
        ).__enter__()
        opening = _since(begin)
        # Half a period ahead: the background has written a recording before the other
        # network's turn.
        plain.train(every // 2, None)
        recorded.train(every // 2, recorder)
        for i in range(rounds):
            turns.append({})
            for watched in (True, False) if i % 2 else (False, True):
                begin = _clocks()
                if watched:
                    recorded.train(100, recorder)
                else:
                    plain.train(100, None)
                turns[-1][watched] = _since(begin)
        begin = _clocks()
        recorder.__exit__(None, None, None)
        closing = _since(begin)
        held = recorder.dataset().sizes["step"]
    assert held == 1 + (rounds * 100 + every // 2) // every
    weights = zip(plain.net.parameters(), recorded.net.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    return turns, (opening[0] + closing[0], opening[1] + closing[1])


def _clocks() -> _Times:
    return time.process_time(), time.perf_counter()


def _since(begin: _Times) -> _Times:
    now = _clocks()
    return now[0] - begin[0], now[1] - begin[1]


class _Loop:
    """One network in training, on the same batches as its twin."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.net = _network()
        self._optimiser = torch.optim.Adam(self.net.parameters(), lr=3e-4, fused=True)
        self._x, self._y, self._count = x, y, 0

    def train(self, updates: int, recorder: repsim.Recorder | None) -> None:
        """Make so many updates."""
        for _ in range(updates):
            start = self._count % 100 * BATCH
            rows = slice(start, start + BATCH)
            self._optimiser.zero_grad()
            F.cross_entropy(self.net(self._x[rows]), self._y[rows]).backward()
            self._optimiser.step()
            self._count += 1
            if recorder is not None:
                recorder.step()


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
        target = os.path.join(folder, "noise")
        command = ["dd", "if=/dev/urandom", f"of={target}", "bs=4M", "count=64"]
        subprocess.run(command, check=True, capture_output=True)
        copy = ["dd", f"if={target}", f"of={target}2", "bs=4M"]
        disk = {how: _seconds([*copy, *how.split()]) for how in ("", "conv=fdatasync")}
    cached, synced = (64 * 4.194304 / seconds for seconds in disk.values())
    _say(f"\n`dd` of 268 MB, wall clock: {cached:.0f} MB/s into the system's cache,")
    _say(f"{synced:.0f} MB/s with conv=fdatasync (medians of {rounds})")


def bfloat16() -> None:
    """Print the room that bfloat16 takes as it is stored, and as its bare 16 bits."""
    torch.manual_seed(0)
    outs = {"Linear": nn.Linear(64, 512), "ReLU": nn.ReLU(), "GELU": nn.GELU()}
    net = nn.Sequential(outs["Linear"], outs["ReLU"], nn.Linear(512, 512), outs["GELU"])
    kinds = (torch.float32, torch.bfloat16)
    wide, run = (
        repsim.record(net.to(kind), torch.randn(2048, 64).to(kind)) for kind in kinds
    )
    forms: dict[str, Callable[[Any], bytes]] = {
        "as stored": lambda x: Codec().encode(x),
        "its 16 bits alone": lambda x: Codec().encode(
            (x.view(np.uint32) >> 16).astype(np.uint16)
        ),
        "zstd, not shuffled": lambda x: numcodecs.Zstd(1).encode(x),
    }
    _say(f"\n| bytes a number | {' | '.join(forms)} | the layer in float32 |")
    _say("| --- " * (len(forms) + 2) + "|")
    for name, layer in zip(outs, ("0", "1", "3"), strict=True):
        x = np.ascontiguousarray(run[layer].values)
        sizes = [len(form(x)) for form in forms.values()]
        sizes.append(len(Codec().encode(wide[layer].values)))
        _say(f"| {name} | " + " | ".join(f"{n / x.size:.2f}" for n in sizes) + " |")


def _seconds(command: list[str], rounds: int = 5) -> float:
    """Return the median time of a command on the wall clock."""
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _high_water() -> int:
    """Return this process's largest resident size in kB.

    `ru_maxrss` would do, were it not inherited from a larger parent on Linux.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def _peak(moments: int) -> None:
    """Record so many moments of 8 MB; print bytes, peak memory, seconds on disk."""
    net = nn.Sequential(nn.Linear(64, 1024), nn.Tanh(), nn.Linear(1024, 1024))
    fixed = torch.rand(1024, 64)
    with tempfile.TemporaryDirectory() as folder:
        with repsim.Recorder(net, fixed, layers=["0", "2"], every=1) as recorder:
            pass  # what the libraries need once
        before = _high_water()
        begin = time.perf_counter()
        with repsim.Recorder(
            net, fixed, layers=["0", "2"], every=1, store=f"{folder}/s.zarr"
        ) as recorder:
            for _ in range(moments - 1):
                recorder.step()
        files = [f for f in Path(folder).rglob("*") if f.is_file()]
        for file in files:
            with file.open("rb") as held_open:
                os.fsync(held_open.fileno())
        seconds = time.perf_counter() - begin
        after = _high_water()
        held = sum(v.nbytes for v in recorder.dataset().data_vars.values())
        stored = sum(f.stat().st_size for f in files)
    _say(f"{held} {after - before} {stored} {seconds}")


def memory(rounds: int = 3) -> None:
    """Print peak memory while a recording grows tenfold, each in its own process."""
    _say("\n| recording | peak memory above the start | on disk | MB/s, synced |")
    _say("| --- | --- | --- | --- |")
    for moments in (30, 100, 300):
        found = []
        for _ in range(rounds):
            command = [sys.executable, __file__, "peak", str(moments)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append([float(v) for v in done.stdout.split()])
        held, peaks, stored, seconds = map(sorted, zip(*found, strict=True))
        _say(
            f"| {held[0] / 1e6:.0f} MB "
            f"| {statistics.median(peaks) / 1e3:.0f} MB "
            f"({peaks[0] / 1e3:.0f} to {peaks[-1] / 1e3:.0f}) "
            f"| {stored[0] / 1e6:.0f} MB "
            f"| {held[0] / statistics.median(seconds) / 1e6:.0f} |"
        )


def packing() -> None:
    """Print what closing makes of recordings of many steps: 20,000 and 60,000 files."""
    for steps in (1000, 3000):
        _packing(steps)


def _packing(steps: int) -> None:
    net = repsim.networks.mlp(64, hidden=[50] * LAYERS, classes=10)
    with tempfile.TemporaryDirectory() as folder:
        recorder = repsim.Recorder(
            net, torch.rand(EXAMPLES, 64), "hidden_*", every=1, store=f"{folder}/s.zarr"
        ).__enter__()
        for _ in range(steps - 1):
            recorder.step()
        recorder.dataset()  # waits for the background
        growing = [f for f in Path(folder).rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in growing)
        begin = _clocks()
        recorder.__exit__(None, None, None)
        cpu, wall = _since(begin)
        files = [f for f in Path(folder).rglob("*") if f.is_file()]
        documents = [f for f in files if f.name == "zarr.json"]
        begin = _clocks()
        run = repsim.open_recording(f"{folder}/s.zarr")
        opening = _since(begin)[1]
        assert run.sizes["step"] == steps
    _say(f"\n{LAYERS} layers, {steps} steps, {size / 1e6:.0f} MB: {len(growing)} files")
    _say(f"while it grows; closing takes {wall:.1f} s ({cpu:.1f} s of CPU) and leaves")
    _say(f"{len(files)}: {len(files) - len(documents)} objects and {len(documents)}")
    _say(f"zarr.json. It opens in {1e3 * opening:.0f} ms.")


def tokens(rounds: int = 64, sequences: int = 4, count: int = 128) -> None:
    """Print the CPU time of recording a GPT-2 over that of its own forward pass."""
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    net = GPT2Model(GPT2Config(use_cache=False)).eval()  # 12 blocks of 768, 124 M
    layers = [f"h.{i}" for i in range(12)]
    ways: dict[str, Any] = {"last": "last", "masked mean": "mean", "tokens": "tokens"}
    times: dict[str, list[float]] = {name: [] for name in ("forward", *ways)}
    held = dict.fromkeys(ways, 0)
    rows = dict.fromkeys(ways, 0)
    for _ in range(rounds):
        mask = torch.arange(count) < torch.randint(32, count + 1, (sequences, 1))
        words = torch.randint(0, 50257, (sequences, count))
        batch = {"input_ids": words, "attention_mask": mask.long()}
        for name in times:
            begin = time.process_time()
            if name == "forward":
                with torch.no_grad():
                    net(**batch)
            else:
                run = repsim.record(net, [batch], layers, reduce=ways[name])
                held[name] += sum(v.nbytes for v in run.data_vars.values())
                rows[name] += run.sizes["example"]
            times[name].append(time.process_time() - begin)
    _say(f"\nGPT-2 small, 12 blocks, {rounds * sequences} sequences of {count} tokens,")
    _say(f"{sequences} a batch; sums over {rounds} batches in turns (one batch)\n")
    _say("| recorded | CPU time over the forward pass | rows | float32 |")
    _say("| --- | --- | --- | --- |")
    for name in ways:
        pairs = zip(times[name], times["forward"], strict=True)
        ratios = sorted(mine / plain for mine, plain in pairs)
        _say(
            f"| {name} | {sum(times[name]) / sum(times['forward']):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) "
            f"| {rows[name]} | {held[name] / 1e6:.0f} MB |"
        )
    plain = sum(times["forward"])
    _say(f"\nThe forward passes take {plain:.0f} s of CPU.")
    _on_tokens(run.assign_coords(label=("example", run["position"].values // 32)))


def _on_tokens(run: Any) -> None:
    """Print what comparing, RDMs and probes on recorded tokens cost."""
    jobs: dict[str, Callable[[], Any]] = {
        "compare": lambda: repsim.compare(run),
        "rdms": lambda: repsim.rdms(run),
        "probe_layers": lambda: repsim.probes.probe_layers(run, groups="sequence"),
    }
    _say(f"\nOn the {run.sizes['example']} tokens of the last batch, 12 layers:")
    for name, job in jobs.items():
        begin = time.process_time()
        job()
        _say(f"{name} takes {time.process_time() - begin:.2f} s of CPU.")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    tables = {
        "overhead": overhead,
        "codecs": codecs,
        "bfloat16": bfloat16,
        "memory": memory,
        "packing": packing,
        "tokens": tokens,
    }
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
