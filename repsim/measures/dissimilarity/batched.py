"""Distances within many small layers at once: a call for all costs what one would."""

from functools import lru_cache

import numpy as np
from scipy.spatial.distance import squareform

from repsim.measures.dissimilarity.distances import (
    CLOSE,
    DIRECTIONS,
    PROBE,
    RANGE,
    SMALL,
    room_of,
)
from repsim.measures.dissimilarity.ties import grid_bits, some_columns_step

_MEMORY = 1 << 17
"""Entries of the square matrices of a batch: they should stay in the cache."""


def is_small(n: int, units: int, metric: str) -> bool:
    """Return whether layers of this shape are worth computing together."""
    known = metric in (*DIRECTIONS, "euclidean", "sqeuclidean")
    return known and n * n * units < SMALL and n <= 400


def small_rdms(x: np.ndarray, metric: str, out: np.ndarray) -> np.ndarray:
    """Write the RDMs of plain layers (layer, example, unit), and say which are plain.

    The others, with equal rows, numbers on a grid, ties, or of unusual size, are left
    to `condensed`, which would give these here the same values up to rounding.
    """
    step = max(1, _MEMORY // x.shape[1] ** 2)
    plain = [
        _small(x[k : k + step], metric, out[k : k + step])
        for k in range(0, len(x), step)
    ]
    return np.concatenate(plain)


def _small(x: np.ndarray, metric: str, out: np.ndarray) -> np.ndarray:
    plain = ~_structured(x, metric)
    limit = 2.0 ** RANGE["float64"]
    means = np.zeros(x.shape[:2])
    rows = x
    with np.errstate(all="ignore"):
        if metric in DIRECTIONS:
            if metric == "correlation":
                means = x.mean(2)
                rows = x - means[..., None]
            size = np.sqrt(np.einsum("lij,lij->li", rows, rows))
            plain &= ((size > 1 / limit) & (size < limit)).all(1)
            plain &= (np.abs(means) * x.shape[2] ** 0.5 <= 16 * size).all(1)
            rows = rows / size[..., None]
        rows = rows - rows.mean(1, keepdims=True)
        squares = np.einsum("lij,lij->li", rows, rows)
        scale, most = -2.0, squares.max(1)
        if metric in DIRECTIONS:
            scale, squares, most = -1.0, squares / 2, most / 2
        else:
            size = np.sqrt(squares)
            plain &= (size.max(1) > 1 / limit) & (size.max(1) < limit)
            middle = np.sort(size, axis=1)[:, x.shape[1] // 2]
            plain &= size.max(1) <= 8 * middle
        ones = np.ones_like(squares)
        left = np.concatenate([scale * rows, ones[..., None], squares[..., None]], 2)
        right = np.concatenate([rows, squares[..., None], ones[..., None]], 2)
        matrices = left @ right.swapaxes(1, 2)
    values = np.empty((len(x), out.shape[1]))
    for k, square in enumerate(matrices):
        values[k] = squareform(square, force="tovector", checks=False)
    # Rows that nearly coincide are subtracted, elsewhere.
    plain &= values.min(1) > 2 * CLOSE["float64"] * most
    plain &= ~_tied(values, metric, most)
    if metric == "euclidean":
        np.sqrt(values, out=values, where=values > 0)
    elif metric in DIRECTIONS:
        np.clip(values, 0, 2, out=values)
    high = np.finfo(out.dtype)
    with np.errstate(invalid="ignore"):
        plain &= (values.max(1) < high.max) & (values.min(1) > high.tiny)
    out[plain] = values[plain]
    return plain


def _structured(x: np.ndarray, metric: str) -> np.ndarray:
    """Return which layers may have equal rows, rows of two values or lie on a grid."""
    step = some_columns_step(x.shape[2])
    few = np.add(x[:, :, ::step].swapaxes(1, 2), 0.0, order="C")
    kinds = few.view(np.uint64)
    odd = np.arange(kinds.shape[1], dtype=np.uint64) * 0x9E3779B1 | 1
    keys = np.sort((kinds * odd[:, None]).sum(1), axis=1)
    structured = (keys[:, 1:] == keys[:, :-1]).any(1)
    if metric in DIRECTIONS:
        low, high = few.min(1, keepdims=True), few.max(1, keepdims=True)
        structured |= ((few == low) | (few == high)).all(1).any(1)
    if metric != "cosine":
        few = few - (few[:, :1] if metric == "correlation" else few[:, :, :1])
    top = np.frexp(np.abs(few).max((1, 2)))[1]
    moved = np.ldexp(few, (grid_bits(x.shape[2], metric) - top)[:, None, None])
    return np.asarray(structured | (moved == np.rint(moved)).all((1, 2)))


@lru_cache(maxsize=8)
def _probed(n: int) -> np.ndarray:
    """Return the places, among all pairs of n rows, of those of some of them."""
    some = np.arange(0, n, -(-n // PROBE))
    i, j = (some[index] for index in np.triu_indices(len(some), 1))
    return np.asarray(i * n - i * (i + 1) // 2 + j - i - 1)


def _tied(values: np.ndarray, metric: str, most: np.ndarray) -> np.ndarray:
    """Return which layers have ties among the distances of some of their rows."""
    n = (1 + int((1 + 8 * values.shape[1]) ** 0.5)) // 2
    if n > PROBE:
        values = values[:, _probed(n)]
    ordered = np.sort(values, axis=1)
    room = room_of(ordered, metric, most[:, None])
    return np.asarray((np.diff(ordered, axis=1) <= room[:, 1:]).any(1))
