"""Distances that are equal in exact arithmetic are equal: ranks by whole numbers."""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, rankdata, spearmanr
from sklearn.datasets import load_digits

import repsim
from repsim.measures.dissimilarity import distances, ties
from repsim.measures.dissimilarity.distances import condensed
from repsim.measures.dissimilarity.ranks import doubled

METRICS = ("correlation", "cosine", "euclidean", "sqeuclidean", "cityblock")
N = 40


def one_hot(rng: np.random.Generator) -> np.ndarray:
    return np.eye(7)[rng.integers(0, 7, N)]


def binary(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2, (N, 9)).astype(float)


def counts(rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(2, (N, 6)).astype(float)


def large_counts(rng: np.random.Generator) -> np.ndarray:
    return 4096.0 * rng.poisson(3, (N, 6)) + 3


def offset(rng: np.random.Generator) -> np.ndarray:
    return 2.0**20 + rng.integers(0, 3, (N, 6))


def saturated(rng: np.random.Generator) -> np.ndarray:
    return np.sign(rng.normal(size=(N, 8)))


def dead(rng: np.random.Generator) -> np.ndarray:
    x = rng.integers(0, 3, (N, 8)) * (rng.random((N, 8)) < 0.3)
    x[:3] = 0
    x[:, 5] = 0
    return x.astype(float)


KINDS = (one_hot, binary, counts, large_counts, offset, saturated, dead)
Kind = Callable[[np.random.Generator], np.ndarray]


def exact_ranks(x: np.ndarray, metric: str) -> np.ndarray:
    """Rank the pairs of rows of whole numbers by their distances, without rounding."""
    rows = [[Fraction(int(v)) for v in row] for row in x]
    if metric == "correlation":
        rows = [[v - sum(row) / len(row) for v in row] for row in rows]
    keys: list[Fraction | None] = []
    for a, b in combinations(rows, 2):
        if metric == "cityblock":
            keys.append(
                sum((abs(p - q) for p, q in zip(a, b, strict=True)), Fraction(0))
            )
        elif metric.endswith("euclidean"):
            keys.append(
                sum(((p - q) ** 2 for p, q in zip(a, b, strict=True)), Fraction(0))
            )
        else:
            dot = sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))
            size = sum(p * p for p in a) * sum(q * q for q in b)
            # Falls as the distance grows: the square of the cosine, with its sign.
            keys.append(-dot * abs(dot) / size if size else None)
    known = sorted({key for key in keys if key is not None})
    place = {key: float(k) for k, key in enumerate(known)}
    return np.array([np.nan if key is None else place[key] for key in keys])


@pytest.mark.filterwarnings("ignore:.*examples are (constant|zero)")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_ties_are_those_of_exact_arithmetic(kind: Kind, metric: str) -> None:
    if metric == "cosine" and kind is offset:
        pytest.skip("angles of 1e-6 have no digits left in one minus a cosine")
    x = kind(np.random.default_rng(0))
    exact = exact_ranks(x, metric)
    there = ~np.isnan(exact)
    values = repsim.rdm(x, metric=metric)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.isnan(values), ~there)
    narrow = condensed(torch.as_tensor(x, dtype=torch.float32), metric)[0]
    assert narrow.dtype == np.float32
    for found in (values, repsim.rdm(x / 1024, metric=metric), narrow):  # type: ignore[arg-type]
        np.testing.assert_array_equal(rankdata(found[there]), rankdata(exact[there]))
        np.testing.assert_array_equal(doubled(found[there]), 2 * rankdata(exact[there]))


@pytest.mark.parametrize("metric", ["correlation", "cosine"])
@pytest.mark.parametrize("kind", [one_hot, saturated])
def test_scale_of_single_rows_splits_no_ties(kind: Kind, metric: str) -> None:
    # Winner-take-all: one value a row, of any size.
    rng = np.random.default_rng(1)
    x = kind(rng)
    y = x * rng.uniform(0.1, 9, (N, 1)) + (metric == "correlation") * x[:, :1]
    found = repsim.rdm(y, metric=metric)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, repsim.rdm(x, metric=metric))  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equal_rows_have_equal_distances(metric: str, dtype: str) -> None:
    # Large enough for single precision in the second case.
    rng = np.random.default_rng(2)
    n, units = (30, 11) if dtype == "float64" else (400, 500)
    kinds = np.concatenate([np.arange(n // 2), rng.integers(0, n // 2, n - n // 2)])
    x = rng.normal(size=(n // 2, units)).astype(dtype)[kinds]
    values, _ = condensed(torch.as_tensor(x), metric)
    i, j = np.triu_indices(n, 1)
    low, high = np.minimum(kinds[i], kinds[j]), np.maximum(kinds[i], kinds[j])
    assert (values[low == high] == 0).all()
    for pair in set(zip(low[:500].tolist(), high[:500].tolist(), strict=True)):
        assert len(np.unique(values[(low == pair[0]) & (high == pair[1])])) == 1


@pytest.mark.parametrize("metric", METRICS)
def test_equal_by_symmetry_only(metric: str) -> None:
    # Tuning curves around a circle: a pair's distance depends on its angle alone, but
    # neither rows nor numbers are equal. As many rows as are probed, and more.
    for n in (48, 96):
        angles = 2 * np.pi * np.arange(n) / n
        x = np.exp(np.cos(angles[:, None] - 2 * np.pi * np.arange(n) / n))
        values = repsim.rdm(x, metric=metric)  # type: ignore[arg-type]
        expected = np.unique(np.round(pdist(x, metric), 9))
        assert len(expected) <= n // 2
        assert len(np.unique(values)) == len(expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("turned", ["sign", "columns"])
def test_symmetric_rows_that_no_sample_meets(metric: str, turned: str) -> None:
    # A row and its mirror image are never among the same few evenly spaced ones.
    x = np.random.default_rng(5).normal(size=(150, 300)).astype(np.float32)
    other = -x if turned == "sign" else x[:, ::-1]
    both = torch.as_tensor(np.concatenate([x, other]))
    values = condensed(both, metric)[0]
    assert len(np.unique(values)) <= len(values) // 2 + len(x)
    exact = np.round(pdist(both.double().numpy(), metric), 9)  # type: ignore[call-overload]
    first = np.unique(exact, return_index=True)[1]
    np.testing.assert_allclose(values[first], exact[first], atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_few_plain_rows_among_many(metric: str, dtype: str) -> None:
    # Winners of two and three kinds in seven of a thousand rows, away from the sample.
    rng = np.random.default_rng(6)
    x = rng.normal(size=(1000, 80)).astype(dtype)
    some = np.array([5, 77, 401, 403, 404, 690, 999])
    x[some] = 0
    x[some, rng.permutation(80)[: len(some)]] = 2
    x[some[:3], 79] = 1
    values = condensed(torch.as_tensor(x), metric)[0]
    i, j = (some[index] for index in np.triu_indices(len(some), 1))
    found = values[i * 1000 - i * (i + 1) // 2 + j - i - 1]
    exact = condensed(torch.as_tensor(x[some].astype(float)), metric)[0]
    np.testing.assert_array_equal(rankdata(found), rankdata(exact))
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_continuous_distances_stay_apart() -> None:
    # Gathering would not be right here: the tolerance is far below the gaps.
    x = np.random.default_rng(3).normal(size=(300, 20))
    for metric in METRICS:
        values = repsim.rdm(x, metric=metric)  # type: ignore[arg-type]
        assert len(np.unique(values)) == len(values)
    narrow = condensed(torch.as_tensor(x, dtype=torch.float32), "correlation")[0]
    exact = rankdata(pdist(x.astype(np.float32).astype(float), "correlation"))
    assert spearmanr(narrow, exact).statistic > 1 - 1e-9


def test_a_crowd_is_no_tie() -> None:
    values = np.array([1.0, 1.0 + 1e-12, 1.0 + 2e-12, 1.0 + 3e-12, 5.0, 5.0 + 1e-12])
    found = values.copy()
    ties.settle(found, np.full(6, 1.5e-12))
    np.testing.assert_array_equal(found[:4], values[:4])
    assert found[4] == found[5]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), levels=st.integers(2, 5), units=st.integers(2, 9))
def test_order_of_examples_does_not_matter(seed: int, levels: int, units: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, levels, (12, units)) / 4
    x[:, 0] = np.arange(12) % 3
    order = rng.permutation(12)
    for metric in ("euclidean", "cosine", "correlation"):
        keep = (x != x[:, :1]).any(1) & x.any(1)
        a = repsim.squareform(repsim.rdm(x + 5, metric="euclidean"))
        b = repsim.squareform(repsim.rdm(x[order] + 5, metric="euclidean"))
        np.testing.assert_array_equal(a[np.ix_(order, order)], b)
        if keep.sum() > 2:
            found = repsim.rdm(x[keep], metric=metric)  # type: ignore[arg-type]
            exact = exact_ranks(4 * x[keep], metric)
            np.testing.assert_array_equal(rankdata(found), rankdata(exact))


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[:200], np.eye(10)[y[:200]]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("metric", ["correlation", "cosine", "euclidean"])
def test_rank_comparisons_of_one_hot_labels_are_scipys(dtype: str, metric: str) -> None:
    x, labels = digits()
    a, b = pdist(x, metric), np.rint(pdist(labels, "sqeuclidean"))
    pairs = len(a) * (len(a) - 1) / 2
    score = kendalltau(a, b).statistic * np.sqrt(
        (pairs - _tied(a)) * (pairs - _tied(b))
    )
    m = len(a)
    centred = [rankdata(v) - (m + 1) / 2 for v in (a, b)]
    expected = {
        "spearman": spearmanr(a, b).statistic,
        "kendall": kendalltau(a, b).statistic,
        "tau-a": score / pairs,
        "rho-a": 12 * (centred[0] @ centred[1]) / (m**3 - m),
    }
    run = xr.Dataset(
        {
            "x": (("example", "x_unit"), x.astype(dtype)),
            "label": (("example", "label_unit"), labels.astype(dtype)),
        }
    )
    stack = repsim.rdms(run, metric=metric)  # type: ignore[arg-type]
    assert stack.dtype == dtype
    for method, value in expected.items():
        options = {"metric": metric, "method": method}
        one = repsim.rsa(x, labels, **options)  # type: ignore[arg-type]
        table = repsim.compare(run, measure="rsa", **options)
        two = repsim.compare_rdms(stack[0].values, stack[1].values, method=method)  # type: ignore[arg-type]
        assert one == pytest.approx(value, abs=1e-9)
        assert float(table.sel(layer_a="x", layer_b="label")) == pytest.approx(
            value, abs=1e-5
        )
        assert two == pytest.approx(value, abs=1e-5)


def _tied(values: np.ndarray) -> float:
    _, times = np.unique(values, return_counts=True)
    return float((times * (times - 1) / 2).sum())


def test_the_issues_example() -> None:
    x, labels = digits()
    expected = spearmanr(pdist(x, "correlation"), pdist(labels, "correlation"))
    assert repsim.rsa(x, labels) == pytest.approx(expected.statistic, abs=1e-12)
    assert round(repsim.rsa(x, labels), 3) == 0.448


def test_the_probe_sees_ties_that_no_row_shows() -> None:
    # Half-saturated rows: one free value each, so nothing lies on a grid.
    rng = np.random.default_rng(4)
    x = np.sign(rng.normal(size=(200, 12)))
    x[:, 0] = rng.normal(size=20)[rng.integers(0, 20, 200)]
    values = repsim.rdm(x, metric="sqeuclidean")
    exact = np.round(pdist(x, "sqeuclidean"), 9)
    np.testing.assert_array_equal(rankdata(values), rankdata(exact))
    assert distances.condensed(torch.as_tensor(x), "cosine")[1] == 0


def test_one_tie_of_unrelated_pairs_is_no_matter(rng: np.random.Generator) -> None:
    # Rows 0 and 1 differ by a vector, rows 2 and 3 by the same in another order.
    x = rng.normal(size=(120, 40)).astype(np.float32)
    x[:4, 20:], x[1], x[3] = 0, x[0], x[2]
    x[1, 20:] = rng.normal(size=20)
    x[3, 20:] = np.roll(x[1, 20:], 3)
    exact = pdist(x.astype(np.float64))
    pairs = list(combinations(range(120), 2))
    one, other = pairs.index((0, 1)), pairs.index((2, 3))
    assert exact[one] == pytest.approx(exact[other], rel=1e-12)
    exact[other] = exact[one]
    model = exact + rng.normal(size=len(exact))
    run = xr.Dataset({"h": (("example", "h_unit"), x)})
    found = repsim.rdms(run, metric="euclidean")[0].values
    right = spearmanr(exact, model).statistic
    assert repsim.compare_rdms(found, model) == pytest.approx(right, abs=1e-6)
    # As far as a tie that is split moves it, were it the largest distance of all.
    split = rankdata(exact)
    split[[one, other]] += [0.5, -0.5]
    moved = abs(np.corrcoef(split, rankdata(model))[0, 1] - right)
    assert 0 < moved < 12 / len(exact) ** 2
