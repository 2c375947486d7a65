"""Whether a folder already holds a study that is asked for, told from its documents."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from repsim.studies.facts import attributes
from repsim.studies.spec import Spec, spec_from_json

RUNS, SUMMARY, TRAINING = "runs.zarr", "study.json", "training"
TEST_SIZE, TEST_POSITIONS = "test_examples", "test_positions"
"""Attributes of a study's root: of how many test examples which ones are recorded."""


def finished(out: Path, spec: Spec) -> bool:
    """Return whether the folder holds all that is asked for, with these settings."""
    path = out / SUMMARY
    if not path.is_file() or not json.loads(path.read_text()).get("finished"):
        return False
    whole = merge(out, spec)
    there = spec_from_json(path.read_text())
    return (whole.conditions, whole.seeds) == (there.conditions, there.seeds) and all(
        is_complete(out / RUNS, condition.label, seed)
        for condition in whole.parsed
        for seed in whole.seeds
    )


def is_complete(store: Path, condition: str, seed: int) -> bool:
    """Return whether a cell's recording and training record were both closed."""
    cell = store / condition / str(seed)
    return all(
        attributes(folder).get("complete") == 1 for folder in (cell, cell / TRAINING)
    )


def merge(out: Path, spec: Spec) -> Spec:
    """Return the specification with what the folder already holds."""
    path = out / SUMMARY
    if not path.exists():
        if (out / RUNS).exists():
            msg = (
                f"Expected {out} to be a new folder or a study, but it holds "
                f"{RUNS} without {SUMMARY}; choose another `out`."
            )
            raise ValueError(msg)
        return spec
    there = spec_from_json(path.read_text())
    mine, theirs = spec.as_dict(), there.as_dict()
    for name in mine:
        if name in ("conditions", "seeds", "device", "root"):
            continue
        if mine[name] != theirs[name]:
            msg = (
                f"Expected the settings of the study in {out} ({name} = "
                f"{theirs[name]!r}), but got {name} = {mine[name]!r}; choose another "
                "`out`, or repeat the settings to continue."
            )
            raise ValueError(msg)
    grown: dict[str, Any] = {
        name: [*theirs[name], *(v for v in mine[name] if v not in theirs[name])]
        for name in ("conditions", "seeds")
    }
    return replace(spec, **grown)
