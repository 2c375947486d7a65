"""Every measure on every kind of data is its slow reference."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from repsim import measures

_spec = spec_from_file_location(
    "kinds", Path(__file__).parents[1] / "benchmarks" / "kinds.py"
)
assert _spec is not None and _spec.loader is not None
kinds = module_from_spec(_spec)
_spec.loader.exec_module(kinds)


def test_no_measure_is_missing() -> None:
    ours = {
        name
        for name in measures.names()
        if measures.get(name).function.__module__.startswith("repsim.")
    }
    assert ours == {name for name, _, _ in kinds.MEASURES.values()}


@pytest.mark.parametrize("kind", list(kinds.KINDS))
def test_the_number_of_every_measure(kind: str) -> None:
    wrong = {}
    for title in kinds.MEASURES:
        got, right = kinds.cell(kind, title)
        assert np.isfinite(right), title
        if not kinds.agrees(got, right):
            wrong[title] = (got, right)
    assert wrong == {}


@pytest.mark.parametrize("kind", ["one-hot", "tied", "sparse, dead units and rows"])
def test_the_order_of_examples_does_not_matter(kind: str) -> None:
    rng = np.random.default_rng(1)
    sides = kinds.KINDS[kind](rng)
    order = rng.permutation(kinds.N)
    for title, (name, options, _) in kinds.MEASURES.items():
        if "predictivity" in name:
            continue  # Its folds are of places.
        there = kinds.quietly(measures.get(name), sides.x, sides.y, **options)
        back = kinds.quietly(
            measures.get(name), sides.x[order], sides.y[order], **options
        )
        assert kinds.agrees(back, there), title
