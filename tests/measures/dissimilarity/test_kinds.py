"""RDMs, their comparison and crossnobis on the kinds of data that people have.

Each kind is held to references that are slow and plain: loops in extended precision,
SciPy's ranks and tau, square matrices where we have condensed ones.
"""

import warnings
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.linalg import sqrtm
from scipy.spatial.distance import squareform
from scipy.stats import kendalltau, rankdata

import repsim
from repsim.measures.dissimilarity.comparators import METHODS

N, UNITS = 12, 6
METRICS = ("correlation", "cosine", "euclidean", "sqeuclidean", "cityblock")
Maker = Callable[[np.random.Generator], Any]


def normal(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(N, UNITS))


def sparse(rng: np.random.Generator) -> np.ndarray:
    x = np.maximum(rng.normal(size=(N, UNITS)) - 0.3, 0)
    x[:, 2] = 0
    x[[1, 7]] = 0
    return x


def duplicated(rng: np.random.Generator) -> np.ndarray:
    return normal(rng)[rng.integers(0, N // 2, N)]


def huge_unit(rng: np.random.Generator) -> np.ndarray:
    return normal(rng) * np.where(np.arange(UNITS) == 3, 1e5, 1)


def read_only(rng: np.random.Generator) -> np.ndarray:
    x = normal(rng)
    x.flags.writeable = False
    return x


KINDS: dict[str, Maker] = {
    "continuous": normal,
    "tied": lambda rng: np.round(normal(rng) * 2) / 2,
    "one-hot": lambda rng: np.eye(UNITS)[rng.integers(0, UNITS, N)],
    "binary": lambda rng: rng.integers(0, 2, (N, UNITS)).astype(bool),
    "integer": lambda rng: rng.poisson(3, (N, UNITS)),
    "sparse, dead units and rows": sparse,
    "duplicated rows": duplicated,
    "low rank": lambda rng: rng.normal(size=(N, 2)) @ rng.normal(size=(2, UNITS)),
    "one huge unit": huge_unit,
    "offset": lambda rng: normal(rng) + 1e6,
    "1e-30": lambda rng: normal(rng) * 1e-30,
    "1e30": lambda rng: normal(rng) * 1e30,
    "float16": lambda rng: normal(rng).astype(np.float16),
    "bfloat16": lambda rng: torch.as_tensor(normal(rng)).to(torch.bfloat16),
    "float32": lambda rng: normal(rng).astype(np.float32),
    "read-only": read_only,
    "non-contiguous": lambda rng: rng.normal(size=(2 * UNITS, 2 * N))[::2, ::-2].T,
    "big-endian": lambda rng: normal(rng).astype(">f8"),
}


def plain(x: Any) -> np.ndarray:
    """Return numbers of any kind in extended precision."""
    if isinstance(x, torch.Tensor):
        x = x.double().numpy()
    return np.asarray(x).astype(np.longdouble)


def slow_rdm(x: np.ndarray, metric: str) -> np.ndarray:
    """Return distances by the definition, a pair at a time."""
    out = []
    for a, b in combinations(x, 2):
        if metric in ("correlation", "cosine"):
            flat = np.ptp if metric == "correlation" else np.max
            if not all(flat(np.abs(v) if metric == "cosine" else v) for v in (a, b)):
                out.append(np.nan)
                continue
            if metric == "correlation":
                a, b = a - a.mean(), b - b.mean()
            a, b = a / np.abs(a).max(), b / np.abs(b).max()
            out.append(1 - a @ b / np.sqrt((a @ a) * (b @ b)))
        elif metric == "cityblock":
            out.append(np.abs(a - b).sum())
        else:
            square = ((a - b) ** 2).sum()
            out.append(np.sqrt(square) if metric == "euclidean" else square)
    return np.array(out)


@pytest.mark.filterwarnings("ignore:.*examples are (constant|zero)")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_rdm(kind: str, metric: str) -> None:
    x = KINDS[kind](np.random.default_rng(0))
    exact = slow_rdm(plain(x), metric)
    found = repsim.rdm(x, metric=metric)  # type: ignore[arg-type]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    there = ~np.isnan(exact)
    found, exact = found[there], exact[there]
    # An offset of 1e6 leaves cosines 1e-12 apart, of which rounding keeps a few digits.
    near = 1e-15 if metric in ("correlation", "cosine") else 0
    np.testing.assert_allclose(found, exact.astype(float), rtol=1e-9, atol=near)
    # What is equal in extended precision is equal to the last bit.
    order = np.argsort(exact)
    same = np.diff(exact[order]) <= 1e-18 * exact[order][1:]
    assert (np.diff(found[order])[same] == 0).all()


def slow_comparison(a: np.ndarray, b: np.ndarray, method: str) -> float:
    """Return the similarity of two RDMs by its definition."""
    keep = ~(np.isnan(a) | np.isnan(b))
    if method in ("whitened_cosine", "whitened_pearson", "bures"):
        assert keep.all()
        if method == "whitened_pearson":
            a, b = a - a.mean(), b - b.mean()
        n = int((1 + np.sqrt(1 + 8 * len(a))) / 2)
        c = np.eye(n) - 1 / n
        g, h = (-c @ squareform(v / np.abs(v).max()) @ c / 2 for v in (a, b))
        if method == "bures":
            one, two = (
                (u * np.sqrt(np.maximum(w, 0))) @ u.T
                for w, u in map(np.linalg.eigh, (g, h))
            )
            size = np.sqrt(np.trace(one @ one) * np.trace(two @ two))
            return float(np.trace(sqrtm((one @ two) @ (one @ two).T).real) / size)
        return float((g * h).sum() / np.sqrt((g * g).sum() * (h * h).sum()))
    a, b = a[keep] / np.abs(a[keep]).max(), b[keep] / np.abs(b[keep]).max()
    m = len(a)
    if method == "kendall":
        return float(kendalltau(a, b).statistic)
    if method == "tau-a":
        signs = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
        return float(signs.sum() / (m * (m - 1)))
    if method in ("spearman", "rho-a"):
        a, b = rankdata(a), rankdata(b)
    if method != "cosine":
        a, b = a - a.mean(), b - b.mean()
    if method == "rho-a":
        return float(12 * (a @ b) / (m**3 - m))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.filterwarnings("ignore:.*examples are (constant|zero)")
@pytest.mark.filterwarnings("ignore:.*pairs are NaN")
@pytest.mark.filterwarnings("ignore:.*have no (correlation|euclidean) distance")
@pytest.mark.parametrize("method", METHODS[:9])
@pytest.mark.parametrize("kind", KINDS)
def test_compare_rdms_and_rsa(kind: str, method: str) -> None:
    rng = np.random.default_rng(1)
    x, y = KINDS[kind](rng), rng.normal(size=(N, UNITS))
    # All pairs are there for Euclidean distances, which Bures and whitening ask for.
    every = method.startswith("whitened") or method == "bures"
    metric = "sqeuclidean" if every else "correlation"
    a, b = (repsim.rdm(v, metric=metric) for v in (x, y))
    expected = slow_comparison(a, b, method)
    found = repsim.compare_rdms(a, b, method=method)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=1e-7 if method == "bures" else 1e-10)
    one = repsim.rsa(x, y, metric=metric, method=method)  # type: ignore[arg-type]
    assert one == pytest.approx(expected, abs=1e-7 if method == "bures" else 1e-10)
    if isinstance(x, torch.Tensor):
        return
    # Ids permuted: the same number.
    ids, order = np.arange(N), rng.permutation(N)
    left = xr.DataArray(x, dims=("example", "u"), coords={"example": ids})
    right = xr.DataArray(y, dims=("example", "v"), coords={"example": ids})[order]
    moved = repsim.rsa(left, right, metric=metric, method=method)  # type: ignore[arg-type]
    assert moved == pytest.approx(one, abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_crossnobis(kind: str) -> None:
    rng = np.random.default_rng(2)
    folds = [KINDS[kind](rng) for _ in range(3)]
    exact = np.stack([plain(fold) for fold in folds])
    expected = []
    for i, j in combinations(range(N), 2):
        gaps = exact[:, i] - exact[:, j]
        products = gaps @ gaps.T
        expected.append((products.sum() - np.trace(products)) / 6)
    given = torch.stack(folds) if isinstance(folds[0], torch.Tensor) else folds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = repsim.crossnobis(given, precision="float64")  # type: ignore[arg-type]
    size = float(np.abs(expected).max())
    np.testing.assert_allclose(
        np.asarray(found) / size, (np.array(expected) / size).astype(float), atol=1e-12
    )
    if isinstance(given, torch.Tensor):
        return
    order = rng.permutation(N)
    named = [
        xr.DataArray(fold, dims=("example", "u"), coords={"example": np.arange(N)})
        for fold in folds
    ]
    moved = repsim.crossnobis(
        [named[0], named[1][order], named[2]], precision="float64"
    )
    np.testing.assert_allclose(np.asarray(moved) / size, found / size, atol=1e-12)
