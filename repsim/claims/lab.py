"""What an experiment may use: settings, seeds, rules, and networks trained once."""

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from joblib import Parallel, delayed
from torch import nn

from repsim import learning
from repsim.claims.settings import LOOKED, RULE, Settings, conditions
from repsim.claims.trained import Cell, measure, recording, write
from repsim.learning.rule import Rule

TUNING_SEED = 10_000
"""Added to the first seed: learning rates are chosen on networks used nowhere else."""

Numbers = dict[str, Any]


class Lab:
    """Trains each network once, and hands its numbers to every claim that asks."""

    def __init__(
        self,
        settings: Settings,
        out: Path,
        root: str | os.PathLike[str] | None = None,
        jobs: int = 1,
        tick: Callable[[str, int], None] | None = None,
    ) -> None:
        self.settings, self.jobs = settings, jobs
        self.root = None if root is None else os.fspath(root)
        self.folder = out / "networks"
        self.tick = tick
        self._seen: set[str] = set()

    @property
    def rule(self) -> str:
        """Name of the rule under test."""
        return self.settings.rule

    @property
    def seeds(self) -> list[int]:
        """The seeds of every stochastic experiment."""
        return list(range(self.settings.seed, self.settings.seed + self.settings.seeds))

    @property
    def split(self) -> int:
        """Number of the hidden layer behind which `sg` synthesises its gradient."""
        return max(self.settings.scale.depth // 2, 1)

    def make(self, name: str, network: nn.Module, **options: Any) -> Rule:
        """Return a rule on a network; see `repsim.learning.make`."""
        return learning.make(name, network, **options)

    def parallel(self, calls: Iterable[Any]) -> list[Any]:
        """Return what joblib's delayed calls give, in their order."""
        return list(Parallel(n_jobs=self.jobs)(calls))

    def cell(self, label: str, lr: float, seed: int, **changes: Any) -> Cell:
        """Return the network of a condition at a learning rate and seed."""
        scale = self.settings.scale
        depth = changes.get("depth", scale.depth)
        rule, options = conditions(depth)[label]
        made = Cell(
            label=label,
            rule=self.rule if rule == RULE else rule,
            options=json.dumps(options, sort_keys=True),
            lr=lr,
            seed=seed,
            init="bp" if label in ("sg_shared", "untrained") else label,
            dataset=self.settings.dataset,
            depth=scale.depth,
            width=scale.width,
            activation="relu",
            steps=0 if label == "untrained" else scale.steps,
            batch_size=scale.batch_size,
            look=label in LOOKED,
        )
        return replace(made, **changes)

    def numbers(self, cells: Sequence[Cell]) -> list[Numbers]:
        """Return the numbers of cells, training in parallel those that are missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [c for c in cells if not (self.folder / f"{c.key}.json").is_file()]
        if len(missing) < 2 or self.jobs == 1:
            for cell in missing:
                _measure(cell, self.root, self.folder)
                self._count([cell])
        else:
            work = Parallel(n_jobs=self.jobs, return_as="generator_unordered")
            for cell in work(
                delayed(_measure)(cell, self.root, self.folder) for cell in missing
            ):
                self._count([cell])
        self._count(cells)
        return [measure(cell, self.root, self.folder) for cell in cells]

    def _count(self, cells: Sequence[Cell]) -> None:
        new = {cell.key: cell.label for cell in cells if cell.key not in self._seen}
        self._seen |= new.keys()
        if self.tick is not None and new:
            self.tick(next(iter(new.values())), len(new))

    def rate(self, label: str, **changes: Any) -> float:
        """Return a condition's learning rate, tuned over the grid all rules share.

        The one with the lowest training loss at the end; test data are not looked at.
        """
        return self.tuned([label], **changes)[label]

    def tuned(self, labels: Sequence[str], **changes: Any) -> dict[str, float]:
        """Return tuned rates by condition; see `rate`."""
        table = self.grid(labels, **changes)
        return {
            label: min(losses, key=lambda lr: losses[lr])
            for label, losses in table.items()
        }

    def grid(
        self, labels: Sequence[str], **changes: Any
    ) -> dict[str, dict[float, float]]:
        """Return the final training loss by condition and rate (inf if it diverged)."""
        rates = self.settings.scale.grid
        own = {"sg_shared": "sg", "untrained": "bp"}
        labels = [own.get(label, label) for label in labels] + list(labels)
        unique = [label for label in dict.fromkeys(labels) if label not in own]
        seed = self.settings.seed + TUNING_SEED
        cells = [
            self.cell(label, lr, seed, look=False, **changes)
            for label in unique
            for lr in rates
        ]
        found = iter(self.numbers(cells))
        table = {
            label: {lr: _final_loss(next(found)) for lr in rates} for label in unique
        }
        return {label: table[own.get(label, label)] for label in dict.fromkeys(labels)}

    def cells(self, label: str) -> list[Cell]:
        """Return a condition's networks, one a seed, at its tuned rate."""
        return [self.cell(label, self.rate(label), seed) for seed in self.seeds]

    def study(self, labels: Sequence[str]) -> dict[str, list[Numbers]]:
        """Return the numbers of conditions at their tuned rates, one a seed each."""
        rates = self.tuned(labels)
        cells = [
            self.cell(label, rates[label], seed)
            for label in labels
            for seed in self.seeds
        ]
        found = iter(self.numbers(cells))
        return {label: [next(found) for _ in self.seeds] for label in labels}

    def recordings(self, label: str) -> list[xr.Dataset]:
        """Return the activations of a condition's networks, one a seed."""
        cells = self.cells(label)
        self.numbers(cells)
        return [recording(cell, self.folder) for cell in cells]

    def kept(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return what `compute` gives, JSON-able, computed once.

        Again with other settings, and when the module that computes it has changed.
        """
        made_by = compute.__module__
        text = json.dumps([asdict(self.settings), source_hash(made_by)], sort_keys=True)
        path = self.folder / f"{name}-{sha256(text.encode()).hexdigest()[:12]}.json"
        if not path.is_file():
            write(path, json.dumps(compute()))
        return json.loads(path.read_text("utf-8"))

    def matched(self, first: str, second: str) -> dict[str, list[Numbers]]:
        """Return two conditions at equal test accuracy.

        The better one is stopped at the first evaluation at which its mean test
        accuracy has reached the other's final one.
        """
        both = self.study([first, second])
        final = {
            label: float(np.mean([n["test_accuracy"][-1] for n in numbers]))
            for label, numbers in both.items()
        }
        better, worse = sorted(final, key=lambda label: -final[label])
        curve = np.mean([n["test_accuracy"] for n in both[better]], axis=0)
        at = int(np.flatnonzero(curve >= final[worse])[0])
        steps = max(int(both[better][0]["step"][at]), 1)
        if steps < self.settings.scale.steps:
            cells = [replace(cell, steps=steps) for cell in self.cells(better)]
            both[better] = self.numbers(cells)
        return both


@lru_cache
def source_hash(module: str) -> str:
    """Return a hash of a module's source: what it found holds for this code alone."""
    return sha256(inspect.getsource(sys.modules[module]).encode()).hexdigest()[:12]


def _measure(cell: Cell, root: str | None, folder: Path) -> Cell:
    measure(cell, root, folder)
    return cell


def _final_loss(numbers: Numbers) -> float:
    return float("inf") if "diverged" in numbers else float(numbers["loss"][-1])
