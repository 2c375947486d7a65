"""The short form: a few ratios against peers, held with wide margins, in a minute.

    python -P tests/benchmarks/ratios.py [--threads 2] [--out FILE]

Each bound is far below what `docs/performance.md` shows, so that a busy machine does
not break it: what falls below has become slower in kind. Exit status 1 if any does.
"""

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import pdist
from sklearn.linear_model import LogisticRegression

import repsim

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock
from learning_steps import plain
from threads import pairs, recording

Task = Callable[[], object]


def contests() -> list[tuple[str, float, Task, Task]]:
    """Return what is compared: its name, the least ratio, ours, the peer."""
    a, b = recording(2_000, 50, 20), recording(2_000, 50, 20, 2)
    wide = recording(1_000, 512, 4)
    tall = recording(4_000, 128, 1)
    x, y = tall["h0"].values, np.argmax(tall["h0"].values[:, :5], axis=1)
    net = repsim.networks.mlp(784, hidden=[128] * 20, classes=10, seed=0)
    other = repsim.networks.mlp(784, hidden=[128] * 20, classes=10, seed=0)
    rule, step = repsim.learning.make("bp", net), plain(other)
    images, labels = torch.rand(128, 784), torch.arange(128) % 10
    return [
        (
            "CKA of 20 × 20 layers, 2,000 × 50 / anatome's form in torch",
            1.5,
            lambda: repsim.compare(a, b),
            lambda: pairs(a, b),
        ),
        (
            "RDMs of 4 layers, 1,000 × 512 / scipy's pdist",
            3.0,
            lambda: repsim.rdms(wide),
            lambda: [pdist(v.values, "correlation") for v in wide.data_vars.values()],
        ),
        (
            "logistic probe, 4,000 × 128 / scikit-learn at tol 1e-6",
            2.0,
            lambda: repsim.probes.LinearProbe().fit(x, y),
            lambda: LogisticRegression(tol=1e-6, max_iter=20_000).fit(x, y),
        ),
        (
            "step of bp, 20 × 128 / plain PyTorch",
            0.7,
            lambda: rule.step(images, labels),
            lambda: step(images, labels),
        ),
    ]


def ratio(ours: Task, theirs: Task, rounds: int) -> float:
    """Return the median over rounds of the peer's time divided by ours."""
    found = []
    for turn in range(-1, rounds):
        seconds = {}
        for name, task in (("ours", ours), ("theirs", theirs))[
            :: 1 if turn % 2 else -1
        ]:
            began = clock.now()
            task()
            seconds[name] = clock.now() - began
        if turn >= 0:  # the one before warms up
            found.append(seconds["theirs"] / seconds["ours"])
    return statistics.median(found)


def main() -> None:
    """Print the ratios, and end with status 1 if one is below its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    clock.add_option(parser)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    clock.use(asked.threads)
    rows, low = {}, []
    print(f"{clock.words()}; times faster than the peer, median of {asked.rounds}")
    for name, least, ours, theirs in contests():
        rows[name] = {"ratio": ratio(ours, theirs, asked.rounds), "least": least}
        print(f"{rows[name]['ratio']:6.2f}  (at least {least})  {name}", flush=True)
        if rows[name]["ratio"] < least:
            low.append(name)
    if asked.out:
        asked.out.write_text(json.dumps({"clock": clock.words(), "rows": rows}))
    sys.exit(f"Expected these to be faster: {'; '.join(low)}." if low else 0)


if __name__ == "__main__":
    main()
