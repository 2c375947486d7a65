"""Orders along circles: the long way, their level, and that they are used."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import repsim
from repsim.inference import permutation, permutation_test, reordered, shifts
from repsim.inference.closed_forms import Kernel
from repsim.inference.shifts import Shifts


def recording(x: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"h": (("example", "h_unit"), x)})


@pytest.mark.parametrize("permutations", [9, 30])
@pytest.mark.parametrize(
    ("measure", "options"),
    [
        ("cka", {}),
        ("cka", {"debiased": False}),
        ("cka", {"kernel": "rbf"}),
        ("hsic", {}),
        ("hsic", {"debiased": False}),
        ("rsa", {}),
        ("rsa", {"method": "rho-a"}),
        ("rsa", {"method": "pearson", "metric": "euclidean"}),
        ("rsa", {"method": "cosine"}),
    ],
)
def test_turned_circles_against_the_long_way(
    measure: str,
    options: dict[str, Any],
    permutations: int,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(permutation, "SHIFTED", 4)
    monkeypatch.setattr(permutation, "_in_features", lambda *_: False)
    monkeypatch.setattr(shifts, "_CELLS", 200)
    for n in (20, 21):
        x, y = rng.normal(size=(2, n, 5))
        y += 0.3 * x
        found = permutation_test(
            recording(x),
            recording(y),
            measure,
            permutations=permutations,
            seed=3,
            **options,
        )
        draws = np.random.default_rng(3)
        for _ in range(permutations):
            draws.permutation(n)
        orders = Shifts.drawn(n, permutations, draws).orders()
        # All are orders, no one twice, and none is the observed one.
        assert len({tuple(order) for order in orders}) == permutations
        assert all((np.sort(order) == np.arange(n)).all() for order in orders)
        assert not any((order == np.arange(n)).all() for order in orders)
        function = repsim.measures.get(measure)
        observed = function(x, y, **options)
        null = [function(x, y[order], **options) for order in orders]
        count = sum(value >= observed - 1e-12 for value in null)
        p = (1 + count) / (1 + permutations)
        assert float(found["p_value"].squeeze()) == pytest.approx(p)
        assert float(found["null_mean"].squeeze()) == pytest.approx(np.mean(null))


def test_turned_circles_hold_their_level() -> None:
    rng = np.random.default_rng(1)
    ranks = []
    for _ in range(400):
        sides = [Kernel(rng.normal(size=(16, 2)), "linear", 1.0) for _ in range(2)]
        left, right = ([side.rows(0, 16)] for side in sides)
        drawn = Shifts.drawn(16, 19, rng)
        p, _ = drawn.null(left, right, np.ones((1, 1)), 1.0, progress=False)
        ranks.append(round(20 * p.item()))
    assert stats.chisquare(np.bincount(ranks, minlength=21)[1:]).pvalue > 0.01


def test_large_sides_take_few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    # No order is computed by itself where circles are turned.
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(reordered, "_moved", refuse)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 200))
    runs = recording(x), recording(x[:, :150] + 5 * rng.normal(size=(300, 150)))
    for measure in ("cka", "rsa"):
        found = permutation_test(*runs, measure, permutations=999)
        assert float(found["p_value"].squeeze()) == pytest.approx(0.001)
