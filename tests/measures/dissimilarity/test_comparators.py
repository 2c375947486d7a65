"""Comparing RDMs: each method against rsatoolbox, ranks and tau by definition."""

import sys
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, rankdata

import repsim
from repsim.measures.dissimilarity.comparators import METHODS
from repsim.measures.dissimilarity.ranks import (
    ascending,
    doubled,
    excess,
    inversions,
    ranked,
)

VECTORS = METHODS[:8]
"""Methods for which an RDM is a vector of any numbers."""

PEER = {
    "bures": "bures",
    "riemannian": "neg_riem_dist",
    "pearson": "corr",
    "whitened_cosine": "cosine_cov",
    "whitened_pearson": "corr_cov",
}


def toolbox(a: np.ndarray, b: np.ndarray, method: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import rsatoolbox.rdm

        peer = sys.modules["rsatoolbox.rdm.compare"]
        rdms = [rsatoolbox.rdm.RDMs(part) for part in (a, b)]
        return np.asarray(peer.compare(*rdms, method=PEER.get(method, method)))


def stacks(rng: np.random.Generator, n: int, ties: bool) -> list[np.ndarray]:
    m = n * (n - 1) // 2
    a, b = rng.random((3, m)) + 0.1, rng.random((4, m))
    if ties:
        # A further step in each row keeps it from being constant at n = 3.
        step = np.tile(np.eye(min(m, 4)), (2, m))[:4, :m]
        a, b = np.round(a * 5) + 9 * step[:3], np.round(b * 3) / 7 + 9 * step
    return [a, b]


@pytest.mark.parametrize("method", VECTORS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [3, 4, 9, 40])
def test_equal_to_rsatoolbox(
    rng: np.random.Generator, method: str, ties: bool, n: int
) -> None:
    a, b = stacks(rng, n, ties)
    found = repsim.compare_rdms(a, b, method=method)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, toolbox(a, b, method), atol=1e-10)
    both = repsim.compare_rdms(a, a, method=method)  # type: ignore[arg-type]
    apart = repsim.compare_rdms(a, a.copy(), method=method)  # type: ignore[arg-type]
    np.testing.assert_allclose(both, apart, atol=1e-12)


@pytest.mark.parametrize("method", VECTORS)
def test_missing_pairs_are_left_out_as_in_rsatoolbox(
    rng: np.random.Generator, method: str
) -> None:
    a, b = stacks(rng, 12, ties=False)
    gone = rng.choice(66, 6, replace=False)
    a[:, gone] = np.nan
    b[:, gone] = np.nan
    with pytest.warns(UserWarning, match="6 of 66 pairs are NaN"):
        found = repsim.compare_rdms(a, b, method=method)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, toolbox(a, b, method), atol=1e-10)


def test_each_comparison_leaves_out_only_its_own_missing_pairs(
    rng: np.random.Generator,
) -> None:
    a, b = stacks(rng, 8, ties=False)
    a[0, 3] = b[1, 5] = b[2, 7] = np.nan
    for method in ("spearman", "pearson", "tau-a", "whitened_cosine"):
        with pytest.warns(UserWarning, match="2 of 28 pairs"):
            found = repsim.compare_rdms(a, b, method=method)  # type: ignore[arg-type]
        for i in range(3):
            for j in range(4):
                keep = ~(np.isnan(a[i]) | np.isnan(b[j]))
                x, y = np.where(keep, a[i], np.nan), np.where(keep, b[j], np.nan)
                expected = toolbox(x[None], y[None], method)[0, 0]
                assert np.asarray(found)[i, j] == pytest.approx(expected, abs=1e-10)


def test_vectors_give_a_float_and_stacks_a_matrix(rng: np.random.Generator) -> None:
    a, b = stacks(rng, 5, ties=False)
    assert isinstance(repsim.compare_rdms(a[0], b[0]), float)
    assert np.shape(repsim.compare_rdms(a[0], b)) == (1, 4)
    assert np.shape(repsim.compare_rdms(a[:1], b[:1])) == (1, 1)


def test_whitened_cosine_of_euclidean_rdms_is_linear_cka(
    rng: np.random.Generator,
) -> None:
    x, y = rng.normal(size=(15, 4)), rng.normal(size=(15, 6))
    a, b = (repsim.rdm(v, metric="sqeuclidean") for v in (x, y))
    found = repsim.compare_rdms(a, b, method="whitened_cosine")
    assert found == pytest.approx(repsim.cka(x, y, debiased=False), abs=1e-10)


@pytest.mark.parametrize("method", VECTORS)
def test_float32_and_long_vectors_agree_with_float64(
    rng: np.random.Generator, method: str
) -> None:
    # Long enough for several blocks of columns.
    n = 200
    a = rng.random((2, n * (n - 1) // 2)).astype(np.float32)
    found = repsim.compare_rdms(a, a[::-1], method=method)  # type: ignore[arg-type]
    wide = a.astype(np.float64)
    expected = repsim.compare_rdms(
        wide,
        wide[::-1],
        method=method,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "value"),
    [("pearson", 2.0), ("spearman", 2.0), ("kendall", 2.0), ("cosine", 0.0)],
)
def test_an_rdm_without_structure_is_nan_with_a_warning(
    rng: np.random.Generator, method: str, value: float
) -> None:
    flat = np.full(10, value)
    with pytest.warns(UserWarning, match="so that it has no"):
        found = repsim.compare_rdms(flat, rng.random(10), method=method)  # type: ignore[arg-type]
    assert np.isnan(found)


@pytest.mark.parametrize(
    ("a", "b", "options", "match"),
    [
        ([1.0, 2, 3], [1.0, 2, 3], {"method": "tau"}, "Did you mean 'tau-a'"),
        ([1.0, 2, 3], np.arange(6.0), {}, "got 3 and 6 pairs"),
        ([1.0], [1.0], {}, "at least three examples, but got 1 pairs"),
        ([1.0, np.inf, 2], [1.0, 2, 3], {}, "infinite distances"),
        (np.ones((2, 2, 3)), [1.0, 2, 3], {}, r"\(pair,\) or \(k, pair\)"),
        (
            np.eye(4) + 0.5,
            np.eye(4),
            {},
            r"got 1.5, as a matrix of simil.*pass .* 1 - a",
        ),
        (np.diag([9.0, 0, 0, 0]), np.eye(4), {}, "got 9, where .* set it to 0 or NaN"),
        (np.triu(np.ones((5, 5)), 1), np.eye(4), {}, "whose halves differ; average"),
        (
            np.arange(4.0),
            np.arange(4.0),
            {"method": "whitened_cosine"},
            "all n .n - 1. / 2 pairs",
        ),
    ],
)
def test_bad_rdms_are_one_sentence(
    a: object, b: object, options: dict[str, str], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        repsim.compare_rdms(a, b, **options)  # type: ignore[arg-type]


def test_rdms_come_in_any_container(rng: np.random.Generator) -> None:
    a, b = stacks(rng, 6, ties=True)
    expected = repsim.compare_rdms(a, b)
    sideways = xr.DataArray(b.T, dims=("pair", "layer"))
    np.testing.assert_array_equal(repsim.compare_rdms(a, sideways), expected)
    half = torch.as_tensor(np.round(a)).to(torch.bfloat16)
    found = repsim.compare_rdms(half, half.double().numpy())
    np.testing.assert_array_equal(np.diag(found), 1)


def slow_excess(x: np.ndarray, y: np.ndarray) -> int:
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    return int(signs.sum()) // 2


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(2, 200),
    levels=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    seed=st.integers(0, 9999),
)
def test_tau_counts_pairs_exactly(m: int, levels: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, k, m).astype(float) for k in levels)
    assert excess(ranked(x), ranked(y)) == slow_excess(x, y)
    spread = x + rng.random(m) / 2
    assert excess(ranked(spread), ranked(y)) == slow_excess(spread, y)
    assert excess(ranked(y), ranked(spread)) == slow_excess(spread, y)


def test_tau_b_is_scipys_at_length(rng: np.random.Generator) -> None:
    x = np.round(rng.random(4950), 3)
    y = x + np.round(rng.random(4950), 2)
    expected = kendalltau(x, y).statistic
    assert repsim.compare_rdms(x, y, method="kendall") == pytest.approx(expected, 1e-12)


@pytest.mark.parametrize("m", [0, 1, 2, 63, 64, 65, 129, 1000])
def test_inversions(rng: np.random.Generator, m: int) -> None:
    places = rng.permutation(m)
    expected = sum(int((places[i] > places[i + 1 :]).sum()) for i in range(m))
    assert inversions(places) == expected
    assert inversions(np.arange(m)[::-1]) == m * (m - 1) // 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(-1e300, 1e300, allow_nan=False), st.sampled_from([0.0, -0.0, 1.0])
        ),
        min_size=2,
        max_size=80,
    )
)
def test_ranks_are_scipys(values: list[float]) -> None:
    x = np.array(values)
    np.testing.assert_array_equal(doubled(x), 2 * rankdata(x))
    np.testing.assert_array_equal(ascending(x).order, np.argsort(x, kind="stable"))


def test_values_that_agree_in_their_leading_bits_are_still_sorted(
    rng: np.random.Generator,
) -> None:
    # 1,000 neighbours in float64: the bits that the position displaces decide.
    x = 1 + rng.permutation(1000) * np.finfo(float).eps
    x = np.concatenate([x, x[:100], rng.random(50)])
    np.testing.assert_array_equal(ascending(x).order, np.argsort(x, kind="stable"))
    np.testing.assert_array_equal(doubled(x), 2 * rankdata(x))


@pytest.mark.parametrize("n", [3, 6, 12])
def test_second_moments_against_rsatoolbox(rng: np.random.Generator, n: int) -> None:
    a, b = (
        np.stack([pdist(rng.normal(size=(n, n + 3)), "sqeuclidean") for _ in range(k)])
        for k in (2, 3)
    )
    found = np.asarray(repsim.compare_rdms(a, b, method="bures"))
    np.testing.assert_allclose(found, toolbox(a, b, "bures"), atol=1e-10)
    found = np.asarray(repsim.compare_rdms(a, b, method="riemannian"))
    peer = toolbox(a, b, "riemannian")
    # Theirs stops at a tolerance of 1e-4: ours is never farther.
    np.testing.assert_allclose(found, peer, atol=2e-3)
    assert (found >= peer - 1e-9).all()


def test_bures_is_the_cosine_of_the_procrustes_angle(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(9, 4)), rng.normal(size=(9, 6))
    a, b = (repsim.rdm(v, metric="sqeuclidean") for v in (x, y))
    found = repsim.compare_rdms(a, b, method="bures")
    assert found == pytest.approx(np.cos(repsim.procrustes_distance(x, y)), abs=1e-10)
    assert repsim.compare_rdms(a, 7 * a, method="bures") == pytest.approx(1)


def test_riemannian_ignores_scale_and_noise(rng: np.random.Generator) -> None:
    a = pdist(rng.normal(size=(7, 12)), "sqeuclidean")
    b = 3 * a + 2  # Independent noise of each pattern adds to all distances alike.
    assert repsim.compare_rdms(a, b, method="riemannian") == pytest.approx(0, abs=1e-4)
    assert repsim.compare_rdms(a, a, method="riemannian") == 0
    flat = pdist(rng.normal(size=(7, 3)), "sqeuclidean")
    with pytest.warns(UserWarning, match="fewer than n - 1 dimensions"):
        assert np.isnan(repsim.compare_rdms(a, flat, method="riemannian"))
    assert repsim.compare_rdms(flat, a, method="riemannian") < 0
    a[3] = np.nan
    with pytest.raises(ValueError, match="for 'bures', but got 20; leave out the exam"):
        repsim.compare_rdms(a, a.copy(), method="bures")
