"""Whether a folder already holds a study that is asked for, told from its documents."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from repsim.core.files import RUNS, SUMMARY, address_of_runs
from repsim.studies.facts import attributes
from repsim.studies.spec import Spec, spec_from_json

TRAINING = "training"
TEST_SIZE, TEST_POSITIONS = "test_examples", "test_positions"
"""Attributes of a study's root: of how many test examples which ones are recorded."""


def runs_of(out: Path, storage_options: Mapping[str, Any] | None = None) -> Path:
    """Return where a study keeps its recordings, as its study.json says."""
    return runs_at(out, address_of_runs(out), storage_options)


def runs_at(
    out: Path, store: Any, storage_options: Mapping[str, Any] | None = None
) -> Path:
    """Return where a study shall keep its recordings; None is beside study.json."""
    if store is None:
        return out / RUNS  # most are, and are told without xarray
    from repsim.datasets.store.places import expect_folder_name, writable_place_of

    place = writable_place_of(store, storage_options)
    expect_folder_name(place)
    return place.absolute() if isinstance(place, Path) else place


def address_at(out: Path, runs: Path) -> str | None:
    """Return what study.json says of where the recordings lie."""
    return None if runs == out / RUNS else str(runs).rstrip("/")


def finished(out: Path, spec: Spec, runs: Path) -> bool:
    """Return whether all that is asked for is there, with these settings."""
    path = out / SUMMARY
    if not path.is_file() or not json.loads(path.read_text()).get("finished"):
        return False
    whole = merge(out, spec, runs)
    there = spec_from_json(path.read_text())
    return (whole.conditions, whole.seeds) == (there.conditions, there.seeds) and all(
        is_complete(runs, condition.label, seed)
        for condition in whole.parsed
        for seed in whole.seeds
    )


def of_own(out: Path) -> bool:
    """Return whether a study's code or data are said to be other than what ships."""
    path = out / SUMMARY
    if not path.is_file():
        return False
    spec = json.loads(path.read_text()).get("spec") or {}
    return bool(spec.get("data") or spec.get("code"))


def is_complete(store: Path, condition: str, seed: int) -> bool:
    """Return whether a cell's recording and training record were both closed."""
    cell = store / condition / str(seed)
    return all(
        attributes(folder).get("complete") == 1 for folder in (cell, cell / TRAINING)
    )


def merge(out: Path, spec: Spec, runs: Path) -> Spec:
    """Return the specification with what the folder already holds."""
    path = out / SUMMARY
    if not path.exists():
        _expect_free(out, runs)
        return spec
    expect_runs(out, runs)
    there = spec_from_json(path.read_text())
    mine, theirs = spec.as_dict(), there.as_dict()
    for name in mine:
        if name in ("conditions", "seeds", "device", "root", "code"):
            continue
        if name == "data" and theirs[name] is None:
            continue  # an earlier version's, which did not ask
        if name == "data" and mine[name] != theirs[name]:
            msg = (
                f"Expected the data of the study in {out}, but {spec.dataset!r} now "
                "gives others; choose another `out`."
            )
            raise ValueError(msg)
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
    whole = replace(spec, code=theirs["code"], **grown)
    if whole.code:
        _expect_code(out, whole)
    return whole


def _expect_code(out: Path, spec: Spec) -> None:
    """Refuse what does not ship and does something else than when it was trained."""
    from repsim.studies.own_code import changed, own_code

    if (name := changed(own_code(spec), spec.code)) is not None:
        msg = (
            f"Expected the code of the study in {out}, but its {name} has changed; "
            "choose another `out`, or undo the change (one that changes no number: "
            f"delete `code` in {SUMMARY})."
        )
        raise ValueError(msg)


def expect_runs(out: Path, runs: Path) -> None:
    """Refuse another store than the one that a study was told.

    It is to be named again, as what writes there: a study.json may be a stranger's.
    """
    there = address_of_runs(out)
    if address_at(out, runs) != there:
        msg = (
            f"Expected the store of the study in {out} ({there or out / RUNS}), but "
            f"got {runs}; choose another `out`, or repeat `store` to continue."
        )
        raise ValueError(msg)


def _expect_free(out: Path, runs: Path) -> None:
    """Refuse a place for recordings where something lies of which nothing is known."""
    if address_at(out, runs) is None:
        if runs.exists():
            msg = (
                f"Expected {out} to be a new folder or a study, but it holds "
                f"{RUNS} without {SUMMARY}; choose another `out`."
            )
            raise ValueError(msg)
        return
    from repsim.datasets.store.places import is_taken

    if is_taken(runs):
        msg = (
            f"Expected a new place for the recordings of {out}, but {runs} is "
            f"occupied, and {out} has no {SUMMARY} that names it; choose another "
            "`store`."
        )
        raise ValueError(msg)
