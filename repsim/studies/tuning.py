"""Choose each condition's learning rate, all from the same grid."""

import json
import math
from pathlib import Path

import joblib

from repsim.core.files import write_whole
from repsim.studies.cell import tune_cell
from repsim.studies.conditions import Condition
from repsim.studies.progress import ProgressFiles
from repsim.studies.spec import Spec
from repsim.studies.workers import Run

TUNING = "tuning.json"
Scores = dict[str, dict[str, dict[str, float | None]]]


def trials(
    spec: Spec, conditions: list[Condition], scores: Scores
) -> list[tuple[Condition, float]]:
    """Return the learning rates still to be tried, by condition."""
    # Conditions that differ only in whose initialisation they share are tuned once.
    tuned: dict[str, Condition] = {}
    for condition in conditions:
        if _fixed_rate(spec, condition) is None:
            tuned.setdefault(_tuning_key(condition), condition)
    return [
        (condition, lr)
        for key, condition in tuned.items()
        for lr in spec.grid
        if str(lr) not in scores.get(key, {})
    ]


def tune(
    out: Path,
    spec: Spec,
    todo: list[tuple[Condition, float]],
    scores: Scores,
    run: Run,
    files: ProgressFiles,
) -> None:
    """Score learning rates, and keep every score as soon as it is there."""
    files.bar.set_description("tuning")
    calls = [
        joblib.delayed(_tune_one)(
            i, spec, condition, lr, files(f"{_tuning_key(condition)}-{lr}")
        )
        for i, (condition, lr) in enumerate(todo)
    ]
    for i, found in run(calls) if calls else ():
        condition, lr = todo[i]
        files.finished(f"{_tuning_key(condition)}-{lr}")
        scores.setdefault(_tuning_key(condition), {})[str(lr)] = {
            name: None if math.isnan(value) else value for name, value in found.items()
        }
        write_whole(out / TUNING, json.dumps(scores, indent=1).encode())


def _fixed_rate(spec: Spec, condition: Condition) -> float | None:
    rate = dict(condition.options).get("lr", spec.lr)
    return None if rate is None else float(rate)


def _tuning_key(condition: Condition) -> str:
    return json.dumps([condition.rule, *condition.options])


def chosen_rate(spec: Spec, condition: Condition, scores: Scores) -> float:
    """Return the learning rate with the smallest held-out loss."""
    fixed = _fixed_rate(spec, condition)
    if fixed is not None:
        return fixed
    losses = {
        lr: loss
        for lr in spec.grid
        if (loss := scores[_tuning_key(condition)][str(lr)]["loss"]) is not None
    }
    if not losses:
        msg = (
            f"Expected one of the learning rates {spec.grid} to train condition "
            f"{condition.label!r}, but all diverged; give --lr or another grid."
        )
        raise ValueError(msg)
    return min(losses, key=lambda lr: losses[lr])


def _tune_one(
    number: int, spec: Spec, condition: Condition, lr: float, tell: Path
) -> tuple[int, dict[str, float]]:
    return number, tune_cell(spec, condition, lr, tell)
