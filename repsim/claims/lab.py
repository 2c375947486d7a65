"""What an experiment may use: settings, seeds, rules, and networks trained once."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from joblib import Parallel, delayed
from torch import nn

from repsim import learning
from repsim.claims.settings import IN_DETAIL, RULE, Settings, conditions
from repsim.claims.sources import code, data_code, rule_code
from repsim.claims.trained import (
    Cell,
    is_kept,
    numbers,
    recording,
    train_missing,
)
from repsim.core.files import write_whole
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Diverged

TUNING_SEED = 10_000
"""Added to the first seed: learning rates are chosen on networks used nowhere else."""

BEYOND = 4
"""At most so many rates are tried beyond an end of the grid."""

Numbers = dict[str, Any]
Runs = list[xr.Dataset]
Score = Literal["loss", "area"]


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
        self._read: dict[str, Numbers] = {}

    @property
    def rule(self) -> str:
        """Name of the rule under test."""
        return self.settings.rule

    @property
    def seeds(self) -> list[int]:
        """The seeds of every stochastic experiment."""
        return list(range(self.settings.seed, self.settings.seed + self.settings.seeds))

    @property
    def few_seeds(self) -> list[int]:
        """The seeds of experiments that need few; see `Size.few_seeds`."""
        return self.seeds[: self.settings.few]

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
            measured=label in IN_DETAIL,
        )
        return replace(made, **changes)

    def numbers(self, cells: Sequence[Cell]) -> list[Numbers]:
        """Return the numbers of cells, training in parallel those that are missing."""
        missing = [cell for cell in cells if not is_kept(cell, self.folder)]
        work = Parallel(n_jobs=self.jobs, return_as="generator_unordered")
        for cell in work(
            delayed(train_missing)(cell, self.root, self.folder, cell.key)
            for cell in missing
        ):
            self._count([cell])
        self._count(cells)
        for cell in cells:
            if cell.key not in self._read:
                self._read[cell.key] = numbers(cell, self.folder)
        return [self._read[cell.key] for cell in cells]

    def _count(self, cells: Sequence[Cell]) -> None:
        new = {cell.key: cell.label for cell in cells if cell.key not in self._seen}
        self._seen |= new.keys()
        if self.tick is not None and new:
            self.tick(next(iter(new.values())), len(new))

    def rate(self, label: str, by: Score = "loss", **changes: Any) -> float:
        """Return a condition's learning rate, tuned over the grid all rules share.

        By the training loss at the end, or by the training accuracy averaged over
        training ("area"): what is gated. Test data are not looked at.
        """
        return self.tuned([label], by, **changes)[label]

    def tuned(
        self, labels: Sequence[str], by: Score = "loss", **changes: Any
    ) -> dict[str, float]:
        """Return tuned rates by condition; see `rate`."""
        table = self.grid(labels, by, **changes)
        return {label: min(row, key=lambda lr: row[lr]) for label, row in table.items()}

    def grid(
        self, labels: Sequence[str], by: Score = "loss", **changes: Any
    ) -> dict[str, dict[float, float]]:
        """Return what is tuned by condition and rate, lower is better.

        inf where it diverged. A condition that is best at an end of the grid gets
        rates beyond it, until it is not: all rules by one procedure.
        """
        rates = list(self.settings.scale.grid)
        own = {"sg_shared": "sg", "untrained": "bp"}
        labels = [own.get(label, label) for label in labels] + list(labels)
        unique = [label for label in dict.fromkeys(labels) if label not in own]
        seed = self.settings.seed + TUNING_SEED
        table: dict[str, dict[float, float]] = {label: {} for label in unique}
        todo = dict.fromkeys(unique, rates)
        while any(todo.values()):
            cells = [
                self.cell(label, lr, seed, **{**changes, "measured": False})
                for label in unique
                for lr in todo[label]
            ]
            results = iter(self.numbers(cells))
            for label, row in table.items():
                row |= {lr: _score(next(results), by) for lr in todo[label]}
            todo = {
                label: further(row) if len(row) < len(rates) + BEYOND else []
                for label, row in table.items()
            }
        ordered = {label: dict(sorted(row.items())) for label, row in table.items()}
        return {
            label: ordered[own.get(label, label)] for label in dict.fromkeys(labels)
        }

    def cells(self, label: str) -> list[Cell]:
        """Return a condition's networks, one a seed, at its tuned rate."""
        return [self.cell(label, self.rate(label), seed) for seed in self.seeds]

    def study(
        self,
        labels: Sequence[str],
        rates: Mapping[str, float] | None = None,
        seeds: Sequence[int] | None = None,
        **changes: Any,
    ) -> dict[str, list[Numbers]]:
        """Return the numbers of conditions, one a seed each, at their tuned rates.

        Of all seeds unless some are given.

        Raises `Diverged` where a network did.
        """
        rates = self.tuned(labels) if rates is None else rates
        seeds = self.seeds if seeds is None else seeds
        cells = [
            self.cell(label, rates[label], seed, **changes)
            for label in labels
            for seed in seeds
        ]
        results = iter(self._whole(cells))
        return {label: [next(results) for _ in seeds] for label in labels}

    def _whole(self, cells: Sequence[Cell]) -> list[Numbers]:
        """Return the numbers of cells; Diverged where one has none."""
        results = self.numbers(cells)
        for cell, one in zip(cells, results, strict=True):
            if "diverged" in one:
                msg = f"{cell.label}, seed {cell.seed}: {one['diverged']}"
                raise Diverged(msg)
        return results

    def recordings(self, label: str, cells: Sequence[Cell] | None = None) -> Runs:
        """Return the activations of a condition's networks, one a seed."""
        cells = self.cells(label) if cells is None else cells
        self._whole(cells)
        return [recording(cell, self.folder) for cell in cells]

    def each(self, function: Callable[..., Any], calls: Sequence[Any]) -> list[Any]:
        """Return what a function gives for each tuple of arguments, JSON-able.

        What is finished is kept, under the code that it runs, that of the rule under
        test and its arguments.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        made_by = rule_code(self.rule), code(sys.modules[function.__module__])
        paths = []
        for call in calls:
            text = json.dumps([*made_by, call])
            name = f"{function.__name__.strip('_')}-{sha256(text.encode()).hexdigest()}"
            paths.append(self.folder / f"{name[:-52]}.json")
        Parallel(n_jobs=self.jobs)(
            delayed(_keep)(function, call, path)
            for call, path in zip(calls, paths, strict=True)
            if not path.is_file()
        )
        return [json.loads(path.read_text("utf-8")) for path in paths]

    def key(self, module: str) -> str:
        """Return a hash of what decides the numbers of an experiment in a module."""
        content = (
            asdict(self.settings),
            rule_code(self.rule),
            code(sys.modules[module], sys.modules[__name__]),
            data_code(self.settings.dataset),
        )
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def matched(self, first: str, second: str) -> dict[str, list[Cell]]:
        """Return the networks of two conditions at equal test accuracy.

        The better one is stopped at the first update after which its mean test
        accuracy has reached the other's final one.
        """
        both = self.study([first, second])
        cells = {label: self.cells(label) for label in both}
        final = {
            label: float(np.mean([n["test_accuracy"][-1] for n in results]))
            for label, results in both.items()
        }
        better, worse = sorted(final, key=lambda label: -final[label])
        earlier, stopped = _reached(both[better], final[worse])
        if between := tuple(range(earlier + 1, stopped)):
            finer = [
                replace(cell, steps=stopped, evaluated=between, measured=False)
                for cell in cells[better]
            ]
            _, stopped = _reached(self.numbers(finer), final[worse])
        # A rule that has learned nothing is reached at the start: after one update.
        steps = max(stopped, 1)
        cells[better] = [replace(cell, steps=steps) for cell in cells[better]]
        return cells


def _reached(runs: Sequence[Numbers], accuracy: float) -> tuple[int, int]:
    """Return the evaluated updates before and after mean test accuracy is reached."""
    step = runs[0]["step"]
    enough = np.mean([n["test_accuracy"] for n in runs], axis=0) >= accuracy
    enough[-1] = True  # Reached there; another machine may fall a last bit short.
    at = int(enough.argmax())
    return step[max(at - 1, 0)], step[at]


def further(row: Mapping[float, float]) -> list[float]:
    """Return the next rate beyond the end that is best, none where the best is inside.

    The spacing goes on as it is at that end. Fewer than three rates are a choice, not
    a grid: they stay.
    """
    rates = sorted(row)
    best = rates.index(min(rates, key=row.__getitem__))
    if len(rates) < 3 or 0 < best < len(rates) - 1:
        return []
    end, second, third = rates[:3] if best == 0 else rates[:-4:-1]
    return [float(f"{end * second / third:.3g}")]


def _keep(function: Callable[..., Any], call: Sequence[Any], path: Path) -> None:
    write_whole(path, json.dumps(function(*call)))


def _score(numbers: Numbers, by: Score) -> float:
    if "diverged" in numbers:
        return float("inf")
    if by == "area":
        return -float(np.mean(numbers["accuracy"][1:]))
    return float(numbers["loss"][-1])
