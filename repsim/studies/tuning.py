"""Choose each condition's learning rate, all from the same grid and several seeds."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from repsim.core.files import write_whole
from repsim.learning.rule_info import Diverged
from repsim.studies.cell import tune_cell
from repsim.studies.conditions import Condition, parse
from repsim.studies.progress import ProgressFiles
from repsim.studies.spec import Spec
from repsim.studies.workers import Run

TUNING = "tuning.json"
RULE = (
    "Rates are compared by the held-out loss, a mean over several networks. Of the "
    "rates within one standard error of a condition's best, the smallest is taken; "
    " where the first two conditions have such rates in common, the smallest of "
    "those, and every other condition takes the first condition's rate where it is "
    "among its own."
)
"""How a rate is chosen, in the report's words."""

Trial = tuple[Condition, float, int]


class Untrainable(Diverged):
    """A condition that cannot be trained: every rate, or a network, diverged."""

    def __init__(self, condition: str, why: str) -> None:
        super().__init__(condition, why)
        self.condition, self.why = condition, why

    def __str__(self) -> str:
        """Return the sentence."""
        return self.why


class Scores:
    """Held-out scores of every rate and seed, kept in a file as soon as known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = json.loads(path.read_text()) if path.exists() else {}
        self.scores: dict[str, dict[str, dict[str, Any]]] = content.get("scores", {})
        self.rates: dict[str, float] = content.get("rates", {})

    def add(self, key: str, lr: float, number: int, found: dict[str, float]) -> None:
        """Keep one network's scores; a diverged one's are null."""
        known = {k: None if math.isnan(v) else v for k, v in found.items()}
        self.scores.setdefault(key, {}).setdefault(str(lr), {})[str(number)] = known
        self.write()

    def has(self, key: str, lr: float, number: int) -> bool:
        """Return whether a network was scored."""
        return str(number) in self.scores.get(key, {}).get(str(lr), {})

    def table(self, key: str) -> dict[float, tuple[float, float, float]]:
        """Return mean loss, its standard error and mean score by rate.

        A rate at which a network diverged is left out: it trains this rule by luck.
        """
        rows = {}
        for lr, of in self.scores.get(key, {}).items():
            if any(one["loss"] is None for one in of.values()):
                continue
            losses = np.array([one["loss"] for one in of.values()])
            error = losses.std(ddof=1) / math.sqrt(len(losses)) if len(of) > 1 else 0.0
            values = [v for one in of.values() for k, v in one.items() if k != "loss"]
            rows[float(lr)] = (float(losses.mean()), float(error), _mean(values))
        return rows

    def tables(self, conditions: Sequence[Condition]) -> dict[str, Any]:
        """Return the table of every tuned condition, by label, for `study.json`."""
        return {
            c.label: {
                f"{lr:g}": dict(
                    zip(
                        ("loss", "standard_error", self._score(c.key)), row, strict=True
                    )
                )
                for lr, row in sorted(self.table(c.key).items())
            }
            for c in conditions
            if c.key in self.scores
        }

    def _score(self, key: str) -> str:
        """Return what the networks were scored by beside the loss."""
        rows = (one for of in self.scores[key].values() for one in of.values())
        return next((k for one in rows for k in one if k != "loss"), "accuracy")

    def write(self) -> None:
        """Write the file whole."""
        content = {"rule": RULE, "scores": self.scores, "rates": self.rates}
        write_whole(self.path, json.dumps(content, indent=1).encode())


def trials(spec: Spec, conditions: Sequence[Condition], scores: Scores) -> list[Trial]:
    """Return the networks still to be tried: condition, rate, number."""
    # Conditions that differ only in whose initialisation they share are tuned once.
    tuned: dict[str, Condition] = {}
    for condition in conditions:
        if fixed_rate(spec, condition) is None:
            tuned.setdefault(condition.key, condition)
    return [
        (condition, lr, number)
        for key, condition in tuned.items()
        for lr in spec.grid
        for number in range(spec.tune_seeds)
        if not scores.has(key, lr, number)
    ]


def tune(
    spec: Spec, todo: list[Trial], scores: Scores, run: Run, files: ProgressFiles
) -> None:
    """Score learning rates, and keep every score as soon as it is there."""
    files.bar.set_description("tuning")
    names = [f"{condition.key}-{lr}-{number}" for condition, lr, number in todo]
    calls = [
        joblib.delayed(_tune_one)(i, spec, *todo[i], files(name))
        for i, name in enumerate(names)
    ]
    for i, score in run(calls) if calls else ():
        condition, lr, number = todo[i]
        files.finished(names[i])
        scores.add(condition.key, lr, number, score)


def fixed_rate(spec: Spec, condition: Condition) -> float | None:
    """Return the rate that the user named, None where it is to be tuned."""
    rate = dict(condition.options).get("lr", spec.lr)
    return None if rate is None else float(rate)


def choose_rates(
    spec: Spec, conditions: Sequence[Condition], scores: Scores
) -> dict[str, float]:
    """Return each condition's rate by label; what was chosen before stays chosen.

    One common rate makes rules comparable, so it is preferred where it costs no
    condition more than one standard error of its own best (`RULE`).
    """
    new = [c for c in conditions if c.label not in scores.rates]
    near = {c.label: _near_best(spec, c, scores) for c in new}
    first = spec.parsed[0]
    preferred = fixed_rate(spec, first) or scores.rates.get(first.label)
    if preferred is None:
        pair = [near[c.label] for c in spec.parsed[:2] if c.label in near]
        shared = set.intersection(*pair) if pair else set()
        preferred = min(shared or near.get(first.label, set()), default=None)
    for label, own in near.items():
        scores.rates[label] = preferred if preferred in own else min(own)
    if near:
        scores.write()
    return {c.label: scores.rates[c.label] for c in conditions}


def _near_best(spec: Spec, condition: Condition, scores: Scores) -> set[float]:
    """Return the rates within one standard error of the best one."""
    if (fixed := fixed_rate(spec, condition)) is not None:
        return {fixed}
    table = scores.table(condition.key)
    if not table:
        msg = (
            f"Expected one of the learning rates {spec.grid} to train condition "
            f"{condition.label!r}, but all diverged; give --lr or another grid."
        )
        raise Untrainable(condition.label, msg)
    best, error, _ = min(table.values())
    return {lr for lr, (loss, *_) in table.items() if loss <= best + error}


def at_common_rate(spec: Spec, rates: dict[str, float], scores: Scores) -> list[str]:
    """Return conditions that repeat at the first one's rate those tuned to another."""
    first, *others = spec.parsed
    common = rates[first.label]
    if not spec.common_rate:
        return []
    repeated = [
        f"{c.text}:lr={common:g}"
        for c in others
        if fixed_rate(spec, c) is None
        and rates[c.label] != common
        and common in scores.table(c.key)
    ]
    return [text for text in repeated if parse(text).label not in rates]


def _mean(values: list[float | None]) -> float:
    """Return the mean; NaN where a score is missing."""
    return float(np.mean([math.nan if v is None else v for v in values]))


def _tune_one(
    number: int, spec: Spec, condition: Condition, lr: float, seed: int, tell: Path
) -> tuple[int, dict[str, float]]:
    return number, tune_cell(spec, condition, lr, seed, tell)
