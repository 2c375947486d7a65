"""Accuracy of every learning rule on a deep network, each at its own best rate.

    python tests/benchmarks/rules_table.py --root DIR --out FOLDER --jobs 2

Every cell (rule, learning rate, seed) is one file in FOLDER, so that a broken run
continues where it stopped. The learning rate is chosen from one grid for all rules on
training examples that are held out; the seeds then train on all of them and are
scored on the test set once.
"""

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

import repsim

RULES: dict[str, dict[str, Any]] = {
    "bp": {},
    "sg": {},
    "sg:at=every": {"at": "every"},
    "dni": {},
    "fa": {},
    "dfa": {},
    "kickback": {},
    "noise": {},
}
HELD_OUT = 5000


class Cell(NamedTuple):
    """One network to train."""

    rule: str
    lr: float
    seed: int
    tuning: bool

    @property
    def file(self) -> str:
        """Name of the file that holds the result."""
        kind = "tune" if self.tuning else "test"
        rule = self.rule.replace(":", "_").replace("=", "_")
        return f"{kind}_{rule}_{self.lr:g}_{self.seed}.json"


load = lru_cache(repsim.datasets.load)


def run(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """Train one network, unless its file is there, and return its accuracies."""
    path = Path(options.out) / cell.file
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    torch.set_num_threads(1)
    data = load(options.dataset, "train", options.root)
    if cell.tuning:
        held = data.isel(example=slice(None, HELD_OUT))
        data = data.isel(example=slice(HELD_OUT, None))
    else:
        held = load(options.dataset, "test", options.root)
    pixels = data["image"][0].size
    hidden = [options.width] * options.depth
    net = repsim.networks.mlp(pixels, hidden, seed=cell.seed)
    name = cell.rule.split(":")[0]
    rule = repsim.learning.make(
        name, net, lr=cell.lr, seed=cell.seed, **RULES[cell.rule]
    )
    began = time.process_time()
    try:
        log = repsim.train(
            rule,
            data,
            steps=options.steps,
            batch_size=options.batch_size,
            seed=cell.seed,
            test=held,
            eval_every=[options.steps],
            progress=False,
        )
        accuracy: dict[str, Any] = {
            n: float(log[n][-1]) for n in ("accuracy", "test_accuracy")
        }
    except repsim.learning.Diverged as error:
        accuracy = {"accuracy": 0.0, "test_accuracy": 0.0}
        accuracy["diverged"] = str(error)
    row = {**cell._asdict(), **accuracy, "cpu_s": time.process_time() - began}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(row))
    part.rename(path)
    return row


def run_all(cells: list[Cell], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run cells in worker processes and tell on stderr how far it is."""
    rows = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for row in pool.map(run, cells, [options] * len(cells)):
            rows.append(row)
            told = f"{len(rows)}/{len(cells)} {row['rule']} lr {row['lr']:g} seed "
            sys.stderr.write(f"{told}{row['seed']}: {row['test_accuracy']:.3f}\n")
    return rows


def table(options: argparse.Namespace) -> str:
    """Tune, train the seeds and return the table as Markdown."""
    tuned = run_all(
        [Cell(r, lr, 1000, True) for r, lr in product(RULES, options.rates)], options
    )
    best = {
        rule: max(
            (row for row in tuned if row["rule"] == rule),
            key=lambda row: row["test_accuracy"],
        )["lr"]
        for rule in RULES
    }
    rows = run_all(
        [
            Cell(r, best[r], seed, False)
            for r, seed in product(RULES, range(options.seeds))
        ],
        options,
    )
    lines = [
        "| rule | rate | training accuracy | test accuracy ± sd | lowest – highest |",
        "| --- | --- | --- | --- | --- |",
    ]
    for rule in RULES:
        mine = [row for row in rows if row["rule"] == rule]
        test = [row["test_accuracy"] for row in mine]
        train = statistics.mean(row["accuracy"] for row in mine)
        spread = statistics.stdev(test) if len(test) > 1 else float("nan")
        lines.append(
            f"| `{rule}` | {best[rule]:g} | {train:.3f} "
            f"| {statistics.mean(test):.3f} ± {spread:.3f} "
            f"| {min(test):.3f} – {max(test):.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--root", default=None, help="folder of the fetched sets")
    parser.add_argument("--out", default="rules_table", help="folder for the cells")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    rates = [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    parser.add_argument("--rates", type=float, nargs="+", default=rates)
    options = parser.parse_args()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    sys.stdout.write(table(options) + "\n")


if __name__ == "__main__":
    main()
