"""RSA without each example, to first order, and covering."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist

from repsim.inference import rsa_influence as geometry
from repsim.inference.jackknife import interval, scale


def related(n: int, p: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, p)) * np.arange(1, p + 1) ** -0.5
    return x, x @ rng.normal(size=(p, p)) + rng.normal(size=(n, p))


def without_each(
    measure: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    return np.array(
        [measure(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(len(x))]
    )


def slow_rsa(x: np.ndarray, y: np.ndarray, method: str) -> float:
    a, b = pdist(x, "correlation"), pdist(y, "correlation")
    if method == "cosine":
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))
    if method == "pearson":
        return float(stats.pearsonr(a, b).statistic)
    return float(stats.spearmanr(a, b).statistic)


@pytest.mark.parametrize("method", ["pearson", "spearman", "rho-a", "cosine"])
def test_rsa_without_each_example_to_first_order(
    method: str, rng: np.random.Generator
) -> None:
    x, y = related(50, 5, rng)
    found = geometry.leave_one_out([x], [y], method=method)
    slow = without_each(lambda a, b: slow_rsa(a, b, method), x, y)
    assert found.value[0, 0] == pytest.approx(slow_rsa(x, y, method), abs=1e-12)
    assert np.corrcoef(found.without[:, 0, 0], slow)[0, 1] > 0.999
    assert np.std(found.without) == pytest.approx(np.std(slow), rel=0.02)


def test_ranks_with_ties_are_mid_ranks(rng: np.random.Generator) -> None:
    entries = rng.integers(0, 7, 60).astype(float)
    ranked = geometry.Ranked(entries)
    expected = stats.rankdata(entries) / 60
    np.testing.assert_allclose(ranked.values, expected - expected.mean(), atol=1e-15)
    other = rng.normal(size=60)
    larger = (entries[None] > entries[:, None]) + 0.5 * (
        entries[None] == entries[:, None]
    )
    np.testing.assert_allclose(
        ranked.above(other), (larger * other).mean(1), atol=1e-12
    )


@pytest.mark.parametrize(("n", "p"), [(30, 10), (60, 100)])
def test_rsa_intervals_cover_zero_of_independent_data(n: int, p: int) -> None:
    rng, repeats, hits = np.random.default_rng(p), 200, 0
    for _ in range(repeats):
        x, y = rng.normal(size=(2, n, p))
        ends = interval(geometry.leave_one_out([x], [y]), scale((-1, 1)), 0.95)
        hits += bool(ends.low[0, 0] <= 0 <= ends.high[0, 0])
    # Within 3 standard errors of 1.5 %.
    assert 0.905 <= hits / repeats <= 0.995


def test_pairs_within_groups_and_without_distance_do_not_count(
    rng: np.random.Generator,
) -> None:
    x, y = related(40, 5, rng)
    x[3] = 0
    which = np.repeat(np.arange(20), 2)

    def slow(keep: np.ndarray) -> float:
        i, j = np.triu_indices(len(keep), 1)
        a, b = (pdist(side[keep], "correlation") for side in (x, y))
        good = np.isfinite(a) & (which[keep][i] != which[keep][j])
        return float(stats.spearmanr(a[good], b[good]).statistic)

    found = geometry.leave_one_out([x], [y], which=which)
    everything = np.arange(40)
    assert found.value[0, 0] == pytest.approx(slow(everything), abs=1e-12)
    each = [slow(everything[which != g]) for g in range(20)]
    assert np.corrcoef(found.without[:, 0, 0], each)[0, 1] > 0.99
    assert np.std(found.without) == pytest.approx(np.std(each), rel=0.05)
