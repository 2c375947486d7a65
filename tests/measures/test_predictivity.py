"""Linear predictivity against scikit-learn's ridge regression."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from repsim.measures import linear_predictivity


def reference(
    x: np.ndarray, y: np.ndarray, folds: int, penalty: float, seed: int
) -> float:
    order = np.random.default_rng(seed).permutation(len(x))
    left = total = 0.0
    for rows in np.array_split(order, folds):
        train = np.setdiff1d(order, rows)
        centred = x[train] - x[train].mean(0)
        s = np.linalg.svd(centred, compute_uv=False)
        model = Ridge(alpha=penalty * np.mean(s**2)).fit(x[train], y[train])
        left += ((y[rows] - model.predict(x[rows])) ** 2).sum()
        total += ((y[rows] - y[train].mean(0)) ** 2).sum()
    return float(1 - left / total)


@pytest.mark.parametrize("shape", [(60, 5, 3), (30, 80, 4)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_it_is_the_held_out_r2(
    rng: np.random.Generator, shape: tuple[int, int, int], penalty: float
) -> None:
    n, p, q = shape
    x = rng.normal(size=(n, p)) + 2
    y = x[:, :2] @ rng.normal(size=(2, q)) + rng.normal(size=(n, q)) - 5
    got = linear_predictivity(x, y, folds=4, penalty=penalty, seed=3)
    assert got == pytest.approx(reference(x, y, 4, penalty, 3), abs=1e-10)


def test_the_chosen_penalty_is_near_the_best(rng: np.random.Generator) -> None:
    x = rng.normal(size=(60, 100))
    y = x[:, :5] @ rng.normal(size=(5, 10)) + rng.normal(size=(60, 10))
    best = max(linear_predictivity(x, y, penalty=10.0**e) for e in range(-6, 5))
    assert linear_predictivity(x, y) > best - 0.05
    noise = rng.normal(size=(60, 10))
    assert -0.2 < linear_predictivity(x, noise) < 0.1


def test_it_is_not_symmetric(rng: np.random.Generator) -> None:
    x = rng.normal(size=(100, 6))
    assert linear_predictivity(x, x[:, :2]) == pytest.approx(1, abs=1e-6)
    assert linear_predictivity(x[:, :2], x) < 0.5


@pytest.mark.parametrize("folds", [1, 11])
def test_folds_out_of_range(rng: np.random.Generator, folds: int) -> None:
    x = rng.normal(size=(20, 3))
    with pytest.raises(ValueError, match=r"`folds` to lie in \[2, 10\]"):
        linear_predictivity(x, x, folds=folds)


def test_penalties_out_of_range(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 3))
    with pytest.raises(ValueError, match="`penalty` to be positive"):
        linear_predictivity(x, x, penalty=0.0)
