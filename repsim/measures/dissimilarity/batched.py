"""Distances within many small layers at once: a call for all costs what one would."""

from functools import lru_cache

import numpy as np

from repsim.measures.dissimilarity.ties import grid_bits, some_columns_step

SMALL = 1 << 22
"""Multiplications below which all is computed in float64."""

DIRECTIONS = ("correlation", "cosine")
"""Metrics that see a row's direction only."""

PROBE = 64
"""Rows whose distances tell whether a representation has ties."""

EPS = 16 * float(np.finfo(np.float64).eps)
"""Error of a float64 product of rows of length one, whatever their width."""

CLOSE = {"float64": 1e-4, "float32": 1e-3}
"""Share of the squared lengths below which a difference of them is mostly rounding."""

_RANGE = 2.0**1000
"""Squared lengths up to which, and down to its inverse, rows are of usual size."""

_MEMORY = 1 << 17
"""Entries of the square matrices of a batch: they should stay in the cache."""


def is_small(n: int, units: int, metric: str) -> bool:
    """Return whether layers of this shape are worth computing together."""
    known = metric in (*DIRECTIONS, "euclidean", "sqeuclidean")
    return known and n * n * units < 4 * SMALL and n <= 400


def small_rdms(x: np.ndarray, metric: str, out: np.ndarray) -> np.ndarray:
    """Write the RDMs of plain layers (layer, example, unit), and say which are plain.

    The others, with equal rows, numbers on a grid, ties, or of unusual size, are left
    to `condensed`, which would give these here the same values up to rounding; what
    is written for them means nothing.
    """
    step = max(1, _MEMORY // x.shape[1] ** 2)
    if step >= len(x):
        return _small(x, metric, out)
    plain = [
        _small(x[k : k + step], metric, out[k : k + step])
        for k in range(0, len(x), step)
    ]
    return np.concatenate(plain)


def _small(x: np.ndarray, metric: str, out: np.ndarray) -> np.ndarray:
    layers, n, units = x.shape
    directions = metric in DIRECTIONS
    plain: np.ndarray = ~_structured(x, metric) if n > PROBE else np.ones(layers, bool)
    rows = x
    with np.errstate(all="ignore"):
        if directions:
            # NaN, of numbers beyond the range, compares as false throughout.
            means = np.zeros((layers, n))
            if metric == "correlation":
                means = x.sum(2) / units
                rows = x - means[..., None]
            squares = np.einsum("lij,lij->li", rows, rows)
            if not (means * means * units <= 256 * squares).all():
                # The mean of large numbers is rounded, and left another, small one.
                rows = rows - rows.sum(2, keepdims=True) / units
                squares = np.einsum("lij,lij->li", rows, rows)
            plain &= (squares.min(1) > 1 / _RANGE) & (squares.max(1) < _RANGE)
            rows = rows / np.sqrt(squares)[..., None]
        rows = rows - rows.sum(1, keepdims=True) / n
        squares = np.einsum("lij,lij->li", rows, rows)
        scale = -2.0
        if directions:
            scale, squares = -1.0, squares / 2
        ordered = np.sort(squares, axis=1)
        most = ordered[:, -1]
        room = (2 * EPS * most)[:, None]
        if not directions:
            plain &= (most > 1 / _RANGE) & (most < _RANGE)
            plain &= most <= 64 * ordered[:, n // 2]
        if n > PROBE:
            # Equal rows, or rows that a symmetry of the layer exchanges.
            plain &= ~(ordered[:, 1:] - ordered[:, :-1] <= room).any(1)
        # The squares in two further columns cost less than two passes over n² numbers.
        left = np.ones((layers, n, units + 2))
        np.multiply(rows, scale, out=left[..., :-2])
        left[..., -1] = squares
        right = np.ones((layers, n, units + 2))
        right[..., :-2] = rows
        right[..., -2] = squares
        matrices = left @ right.swapaxes(1, 2)
        # Clipping looks at no index; of the bounds nobody is in doubt.
        same = out if out.dtype == matrices.dtype else None
        flat = matrices.reshape(layers, -1)
        values = flat.take(upper(n), axis=1, out=same, mode="clip")
        ordered = np.sort(values[:, _probed(n)] if n > PROBE else values, axis=1)
        plain &= ~(ordered[:, 1:] - ordered[:, :-1] <= room).any(1)
        # Rows that nearly coincide are subtracted, elsewhere.
        lowest = values.min(1) if n > PROBE else ordered[:, 0]
        plain &= lowest > 2 * CLOSE["float64"] * most
        if metric == "euclidean":
            np.sqrt(values, out=values)
        elif directions:
            np.minimum(values, 2, out=values)
        if out.dtype != values.dtype:
            high = np.finfo(out.dtype)
            plain &= (values.max(1) < high.max) & (values.min(1) > high.tiny)
    if values is not out:  # narrower: others may be beyond its range
        out[plain] = values[plain]
    return plain


def _structured(x: np.ndarray, metric: str) -> np.ndarray:
    """Return which layers may have rows of two values or lie on a grid."""
    step = some_columns_step(x.shape[2])
    few = np.ascontiguousarray(x[:, :, ::step].swapaxes(1, 2))
    structured = np.zeros(len(x), bool)
    if metric in DIRECTIONS:
        # Rectified units may be zero in all these places: the others are looked at.
        maybe = _two_values(few, 1)
        for k in np.flatnonzero(maybe.any(1)):
            structured[k] = _two_values(x[k, maybe[k]], 1).any()
    if metric != "cosine":
        few = few - (few[:, :1] if metric == "correlation" else few[:, :, :1])
    top = np.frexp(np.abs(few).max((1, 2)))[1]
    moved = np.ldexp(few, (grid_bits(x.shape[2], metric) - top)[:, None, None])
    return np.asarray(structured | (moved == np.rint(moved)).all((1, 2)))


def _two_values(x: np.ndarray, axis: int) -> np.ndarray:
    """Return where there are but two values along an axis."""
    low, high = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    return np.asarray(((x == low) | (x == high)).all(axis))


@lru_cache(maxsize=8)
def upper(n: int) -> np.ndarray:
    """Return the places of all pairs, in scipy's order, in a flat square."""
    i, j = np.triu_indices(n, 1)
    return np.asarray(i * n + j)


@lru_cache(maxsize=8)
def _probed(n: int) -> np.ndarray:
    """Return the places, among all pairs of n rows, of those of some of them."""
    some = np.arange(0, n, -(-n // PROBE))
    i, j = (some[index] for index in np.triu_indices(len(some), 1))
    return np.asarray(i * n - i * (i + 1) // 2 + j - i - 1)
