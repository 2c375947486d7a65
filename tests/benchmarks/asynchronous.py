"""Updates a second: segments in processes of their own, one process, a pipeline.

    OMP_NUM_THREADS=1 python -P tests/benchmarks/asynchronous.py --page docs/learning.md
    python -P tests/benchmarks/asynchronous.py --plan docs/scaling.md

`sg` with one synthetic gradient in the middle, in one process and in two that do not
wait for each other (`repsim.train(workers=2)`), beside backpropagation in one process
and as a pipeline of two (torch.distributed.pipelining: 1F1B, four micro-batches, gloo).
Wall time, because waiting is what is measured: each process has one thread, so the
machine must have two free cores. The first updates are not timed, so that starting
processes does not count; methods in turn, medians over the rounds. As it stands it
takes two to three minutes on two free cores.

`--plan` measures no time: it counts the operations of each worker's part, as the
package shares them out, and says how many updates a second as many free cores could
make at most, on a page.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.utils.flop_counter import FlopCounterMode

import repsim
from repsim.claims.render import replaced
from repsim.training.processes import CAPACITY, shapes_between
from repsim.training.repetition import batches
from repsim.training.segment_groups import make_parts

WARM = 5
"""First updates, which are not timed: memory is got, and a pipeline sends shapes."""

MICRO = 4
"""Micro-batches of a pipeline."""

PLANNED = (1, 2, 4, 8, 16)
"""Workers of the plan, the last ones as many as it has hidden layers."""


def network(width: int, depth: int) -> nn.Sequential:
    """Return the network that all are timed on."""
    return repsim.networks.mlp(784, [width] * depth, seed=0)


def data(batch: int) -> tuple[Tensor, Tensor]:
    """Return 20 batches of noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20 * batch, 784, generator=generator)
    return x, torch.randint(0, 10, (len(x),), generator=generator)


class Clock:
    """A callback that notes when the first updates and the last one are made."""

    def __init__(self, steps: int) -> None:
        self.steps, self.count = steps, 0
        self.times: dict[int, float] = {}

    def due(self, step: int) -> bool:
        """Return whether all workers meet after this many updates."""
        return step in (WARM, self.steps)

    def step(self) -> None:
        """Count one update."""
        self.count += 1
        if self.due(self.count):
            self.times[self.count] = time.perf_counter()

    def rate(self) -> float:
        """Return the updates a second between the two."""
        seconds = self.times[self.steps] - self.times[WARM]
        return (self.steps - WARM) / seconds


def trained(
    name: str, workers: int | None, width: int, given: argparse.Namespace
) -> tuple[float, Any]:
    """Return the updates a second of `repsim.train`, and its record."""
    rule = repsim.learning.make(name, network(width, given.depth))
    clock = Clock(given.steps)
    log = repsim.train(
        rule, data(given.batch_size), steps=given.steps, callbacks=[clock],
        batch_size=given.batch_size, eval_every=[given.steps], diagnostics=False,
        progress=False, workers=workers,
    )  # fmt: skip
    return clock.rate(), log


def stage(rank: int, place: str, width: int, given: Any, told: Any) -> None:
    """Train one half of a pipeline; the first tells the updates a second."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{place}", rank=rank, world_size=2
    )
    blocks = list(network(width, given.depth).children())
    half = given.depth // 2
    own = nn.Sequential(*(blocks[:half] if rank == 0 else blocks[half:]))
    optimizer = torch.optim.Adam(own.parameters(), lr=1e-3, fused=True)
    schedule = Schedule1F1B(
        PipelineStage(own, rank, 2, torch.device("cpu")),
        MICRO,
        loss_fn=nn.functional.cross_entropy,
    )
    x, y = data(given.batch_size)
    for step in range(given.steps + WARM):
        if step == WARM:
            distributed.barrier()
            began = time.perf_counter()
        rows = torch.arange(given.batch_size) + step % 20 * given.batch_size
        if rank == 0:
            schedule.step(x[rows])
        else:
            schedule.step(target=y[rows])
        optimizer.step()
        optimizer.zero_grad()
    distributed.barrier()
    if rank == 0:
        told.put(given.steps / (time.perf_counter() - began))
    distributed.destroy_process_group()


def pipelined(width: int, given: argparse.Namespace) -> float:
    """Return the updates a second of backpropagation as a pipeline of two."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        told, place = context.SimpleQueue(), str(Path(folder) / "meet")
        halves = [
            context.Process(target=stage, args=(rank, place, width, given, told))
            for rank in range(2)
        ]
        for half in halves:
            half.start()
        for half in halves:
            half.join()
        if any(half.exitcode for half in halves):
            sys.exit("A process of the pipeline failed; see above.")
        return float(told.get())


def made(name: str, workers: int, width: int, depth: int) -> repsim.learning.Rule:
    """Return a rule that is cut into as many equal parts as there are workers."""
    cuts = {"at": [depth * k // workers for k in range(1, workers)]}
    options = cuts if name == "sg" and workers > 1 else {}
    return repsim.learning.make(name, network(width, depth), **options)


def work_of(rule: repsim.learning.Rule, workers: int, batch: int) -> list[int]:
    """Return the operations of each worker's part in one update, counted as it runs."""
    x, y = data(batch)
    parts = make_parts(rule, workers, batches(rule, x, y, batch, 0))
    _, hears = shapes_between(parts, batch)
    counted: list[int] = []
    h: Tensor | None = None
    for j, part in enumerate(parts):
        with FlopCounterMode(display=False) as counter:
            h, _ = part.forward(1, h)
            if j in hears:
                part.message(1, torch.zeros_like(h))
        counted.append(counter.get_total_flops())
    return counted


def plan(width: int, depth: int, batch: int) -> str:
    """Return what more workers could give at most, on paper, as Markdown."""
    with FlopCounterMode(display=False) as counter:
        x, y = data(batch)
        made("bp", 1, width, depth).step(x[:batch], y[:batch])
    alone = counter.get_total_flops()
    lines = [
        "| processes | operations of `sg` to bp's | largest part | `sg`, nobody waits: "
        f"updates to bp's in one process | bp as a pipeline, {MICRO} micro-batches | "
        "MB an update between neighbours | batches late, at most |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for k in PLANNED:
        parts = work_of(made("sg", k, width, depth), k, batch)
        pipeline = k * MICRO / (MICRO + k - 1)
        sent = 2 * 4 * batch * width / 1e6 if k > 1 else 0.0
        late = CAPACITY + 1 if k > 1 else 0
        lines.append(
            f"| {k} | {sum(parts) / alone:.2f} | {max(parts) / sum(parts):.2f} | "
            f"{alone / max(parts):.2f} | {pipeline:.2f} | {sent:.2f} | {late} |"
        )
    of = f"{depth} hidden layers × {width}, 784 inputs, batches of {batch}."
    return "\n".join([of, "", *lines])


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description="Updates a second, asynchronously.")
    parser.add_argument("--width", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=Path, help="a Markdown page to put it in")
    parser.add_argument("--plan", type=Path, help="the page of what is only planned")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.plan:
        text = plan(given.width[-1], PLANNED[-1], given.batch_size)
        print(text)
        page = replaced(given.plan.read_text(), "plan of segments", text)
        given.plan.write_text(page)
        return
    lines = [
        "| width | method | updates/s: median [lowest, highest] | to bp |",
        "| --- | --- | --- | --- |",
    ]
    notes: list[str] = []
    for width in given.width:
        found: dict[str, list[float]] = {}
        stale: Counter[int] = Counter()
        for _ in range(given.rounds):
            for title, name, workers in (
                ("bp, one process", "bp", None),
                ("sg, one process", "sg", None),
                ("sg, two processes, nobody waits", "sg", 2),
            ):
                rate, log = trained(name, workers, width, given)
                found.setdefault(title, []).append(rate)
                if workers:
                    stale.update(log["staleness"].values[0].tolist())
            rate = pipelined(width, given)
            found.setdefault("bp, a pipeline of two", []).append(rate)
        base = statistics.median(found["bp, one process"])
        for title, rates in found.items():
            middle = statistics.median(rates)
            lines.append(
                f"| {width} | {title} | {middle:.0f} "
                f"[{min(rates):.0f}, {max(rates):.0f}] | {middle / base:.2f} |"
            )
        one, two = (
            found[title]
            for title in ("sg, one process", "sg, two processes, nobody waits")
        )
        ratios = [b / a for a, b in zip(one, two, strict=True)]
        notes.append(
            f"Width {width}, `sg` in two processes against one, by round: "
            f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]."
        )
        whole = sum(stale.values())
        shares = ", ".join(f"{k}: {n / whole:.2f}" for k, n in sorted(stale.items()))
        notes.append(f"Batches that a message came late, by share: {shares}.")
    text = "\n".join([*lines, "", *notes])
    print(text)
    if given.page:
        page = given.page.read_text()
        given.page.write_text(replaced(page, "updates a second", text))


if __name__ == "__main__":
    main()
