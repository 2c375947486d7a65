"""Cost of one training step of every rule against plain PyTorch.

    OMP_NUM_THREADS=1 python tests/benchmarks/learning_steps.py --width 50 128 256

Plain is a module, a loss, `backward` and fused Adam. CPU time of one thread, rules
interleaved and rotated in every round, medians over the rounds; the spread is that of
the ratio to plain within a round. `--page` puts the table between the markers `steps`
of a Markdown page.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import repsim
from repsim.claims.render import replaced
from repsim.learning.stacked import StackedRules

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in repsim.learning.names()},
    "sg:at=every": ("sg", {"at": "every"}),
}
TIME, UNITS = 12, 16
"""Steps of the sequences that recurrent networks learn from, and their units."""

RECURRENT: dict[str, dict[str, Any]] = {
    "truncated, windows of 3": {"trace": None, "window": 3},
    "synthetic gradient, windows of 3": {"trace": 0.0, "window": 3},
    "BP(lambda), windows of 3": {"trace": 0.9, "window": 3},
}
Step = Callable[[Tensor, Tensor], object]


def plain(network: nn.Module) -> Step:
    """Return a step of plain PyTorch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4, fused=True)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def measure(width: int, options: argparse.Namespace) -> list[str]:
    """Return the table's rows for one width."""

    def net() -> nn.Module:
        return repsim.networks.mlp(784, [width] * options.depth, seed=0)

    steps: dict[str, Step] = {"plain PyTorch": plain(net())}
    for label, (name, extra) in RULES.items():
        steps[label] = repsim.learning.make(name, net(), **extra).step
    stack = StackedRules([repsim.learning.make("bp", net()) for _ in range(5)])
    steps["bp, five networks as one"] = lambda x, y: stack.step(
        x.expand(5, *x.shape), y.expand(5, *y.shape)
    )
    generator = torch.Generator().manual_seed(0)
    n = options.batch_size
    x = torch.rand(n * options.steps, 784, generator=generator)
    y = torch.randint(0, 10, (n * options.steps,), generator=generator)
    return rows(str(width), steps, (x, y), options)


def recurrent(options: argparse.Namespace) -> list[str]:
    """Return the rows of rules for sequences, beside all of time at once."""

    def parts() -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        return nn.RNNCell(28, UNITS), nn.Linear(UNITS, 10)

    cell, readout = parts()
    optimizer = torch.optim.Adam(
        nn.ModuleList([cell, readout]).parameters(), fused=True
    )

    def whole(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        state, loss = x.new_zeros(len(x), UNITS), x.new_zeros(())
        for t in range(TIME):
            state = cell(x[:, t], state)
            loss = loss + nn.functional.cross_entropy(readout(state), y[:, t])
        loss.backward()
        optimizer.step()

    steps: dict[str, Step] = {"plain PyTorch, through all time": whole}
    for label, extra in RECURRENT.items():
        steps[label] = repsim.learning.RecurrentSyntheticGradient(
            *parts(), **extra
        ).step
    generator = torch.Generator().manual_seed(0)
    n = options.batch_size * options.steps
    x = torch.rand(n, TIME, 28, generator=generator)
    y = torch.randint(0, 10, (n, TIME), generator=generator)
    return rows(f"RNN, {UNITS}", steps, (x, y), options)


def rows(
    where: str,
    steps: dict[str, Step],
    data: tuple[Tensor, Tensor],
    options: argparse.Namespace,
) -> list[str]:
    """Time the steps, the first of which is the one that all are compared with."""
    (x, y), n = data, options.batch_size
    for step in steps.values():
        for _ in range(3):
            step(x[:n], y[:n])
    times: dict[str, list[float]] = {label: [] for label in steps}
    labels = list(steps)
    for turn in range(options.rounds):
        for label in labels[turn % len(labels) :] + labels[: turn % len(labels)]:
            began = clock.now()
            for k in range(options.steps):
                steps[label](x[k * n : (k + 1) * n], y[k * n : (k + 1) * n])
            times[label].append((clock.now() - began) / options.steps)
    base = times[labels[0]]
    lines = []
    for label, found in times.items():
        ratios = [a / b for a, b in zip(found, base, strict=True)]
        lines.append(
            f"| {where} | {label} | {1e3 * statistics.median(found):.2f} "
            f"| {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f} – {max(ratios):.2f}] |"
        )
    return lines


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, nargs="+", default=[50, 128, 256])
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="steps a block")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--page", type=Path, help="a Markdown page to put it in")
    clock.add_option(parser)
    options = parser.parse_args()
    clock.use(options.threads)
    torch.set_flush_denormal(True)
    lines = ["| width | step | ms | ratio to plain |", "| --- | --- | --- | --- |"]
    for width in options.width:
        lines += measure(width, options)
    lines += recurrent(options)
    text = "\n".join(lines)
    print(text)
    if options.page:
        page = replaced(options.page.read_text(), "steps", text)
        options.page.write_text(page)


if __name__ == "__main__":
    main()
