"""Distances between all pairs of rows, condensed, one file for all metrics."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

import numpy as np
import torch
from scipy.spatial.distance import pdist, squareform

from repsim.core.threads import alone
from repsim.measures.dissimilarity.batched import (
    DIRECTIONS,
    EPS,
    PROBE,
    SMALL,
    is_small,
    small_rdms,
    upper,
)
from repsim.measures.dissimilarity.rounded import (
    blocks,
    moved,
    name_of,
    product,
    room_of,
)
from repsim.measures.dissimilarity.ties import (
    distinct,
    mirrored,
    plain,
    plain_rows,
    settle,
    some_columns,
    tied,
    whole,
)
from repsim.measures.dissimilarity.triangle import AT_ONCE, n_pairs, triangle

Metric = Literal[
    "correlation", "cosine", "euclidean", "sqeuclidean", "cityblock", "mahalanobis"
]
METRICS: tuple[str, ...] = (
    "correlation",
    "cosine",
    "euclidean",
    "sqeuclidean",
    "cityblock",
    "mahalanobis",
)


def condensed(
    x: torch.Tensor,
    metric: str,
    out: np.ndarray | None = None,
    *,
    scaled: bool = False,
    tried: bool = False,
    turn: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[np.ndarray, int]:
    """Return the distances of all pairs of rows, and how many rows have none.

    Parameters
    ----------
    x : Tensor, shape (example, unit)
        Finite, float32 or float64, on any device.
    metric : str
        One of `METRICS` but "mahalanobis", which is "euclidean" after whitening.
    out : ndarray, shape (pair,), optional
        Where to write; its dtype is the result's, by default that of `x`.
    scaled : bool
        Whether a common factor, a power of two, may be left out: of numbers whose
        squares no float holds.
    tried : bool
        Whether `small_rdms` was asked already, and left these rows to us.
    turn : callable, optional
        Applied to the distinct rows first: whitening.

    Returns
    -------
    ndarray, shape (pair,)
        In scipy's order; NaN for pairs with a row that has no direction.
    int
        How many rows have no direction.

    Raises
    ------
    OutOfRange
        If the result's dtype does not hold the distances.
    """
    # Sums of absolute differences are no product: torch's threads share their pairs.
    with nullcontext() if metric == "cityblock" else alone():
        return _condensed(x, metric, out, scaled, tried, turn)


def _condensed(
    x: torch.Tensor,
    metric: str,
    out: np.ndarray | None,
    scaled: bool,
    tried: bool,
    turn: Callable[[torch.Tensor], torch.Tensor] | None,
) -> tuple[np.ndarray, int]:
    n = len(x)
    if out is None:
        out = np.empty(n_pairs(n), name_of(x))
    small = turn is None and x.device.type == "cpu"
    small = small and is_small(n, x.shape[1], metric)
    if small and not tried:
        if small_rdms(x.double().numpy()[None], metric, out[None])[0]:
            return out, 0
    if metric == "cityblock" and n <= PROBE and _few_blocks(x, out):
        return out, 0
    few = some_columns(x)
    kinds = distinct(x, few)
    if kinds is not None:
        x, few = x[torch.from_numpy(kinds[0]).to(x.device)], few[:, kinds[0]]
    if turn is not None:
        x = turn(x)
        few = some_columns(x)
    away = np.zeros(len(x), dtype=bool)
    if metric in DIRECTIONS:
        before = x
        x, away = plain(x, few, metric)
        few = few if x is before else some_columns(x)
    grid = whole(x, few, metric) if len(x) > 1 else None
    if len(x) == 1:
        values, exponent = np.empty(0), 0
    elif grid is not None:
        values, exponent = _exact(grid[0], metric, away), grid[1]
    elif small and (part := _without(x, metric, away, kinds is not None)) is not None:
        values, exponent = part, 0
    else:
        values, exponent = _rounded(
            x, few, metric, away, out if kinds is None else None
        )
    if metric not in DIRECTIONS:
        move = 0 if scaled else exponent * (2 if metric == "sqeuclidean" else 1)
        if move or values.dtype != out.dtype:
            values = moved(values, move, out.dtype)
    if kinds is not None:
        _spread(values, kinds[1], away, out)
        return out, int(away[kinds[1]].sum())
    if values is not out:
        out[:] = values
    return out, int(away.sum())


def _without(
    x: torch.Tensor, metric: str, away: np.ndarray, fewer: bool
) -> np.ndarray | None:
    """Return the distances of a small layer that is plain but for dead or equal rows.

    None where it is not, or has none of them (`fewer`: equal ones were taken out).
    """
    n, left = len(x), np.flatnonzero(~away)
    if not (fewer or len(left) < n) or len(left) < 2:
        return None
    values = np.empty((1, n_pairs(len(left))))
    if not small_rdms(x.double().numpy()[None, left], metric, values)[0]:
        return None
    if len(left) == n:
        return np.asarray(values[0])
    square = np.full((n, n), np.nan)
    square[np.ix_(left, left)] = squareform(values[0], checks=False)
    return np.asarray(square.ravel().take(upper(n)))


def _exact(rows: torch.Tensor, metric: str, away: np.ndarray) -> np.ndarray:
    """Return the distances of whole numbers, in units of the grid."""
    if metric == "cityblock":
        return blocks(rows)
    none = torch.zeros(len(rows), dtype=rows.dtype, device=rows.device)
    squares = rows.square().sum(1)
    if metric not in DIRECTIONS:
        values = triangle(rows, -2, squares, squares)
        return np.asarray(np.sqrt(values)) if metric == "euclidean" else values
    if metric == "correlation":
        # d Σxy − Σx Σy and d Σx² − (Σx)²: no mean, which would not be whole.
        sums, units = rows.sum(1), rows.shape[1]
        squares = units * squares - sums.square()
        scale = rows.new_full((units + 1,), units)
        scale[-1] = -1
        values = triangle(torch.cat([rows, sums[:, None]], 1), scale, none)
    else:
        values = triangle(rows, 1.0, none)
    size = np.sqrt(squares.cpu().numpy())
    size[away] = np.nan
    at = 0
    for i in range(len(size) - 1):
        part = values[at : at + len(size) - i - 1]
        part /= size[i] * size[i + 1 :]
        at += len(part)
    values = np.asarray(np.clip(1 - values, 0, 2))
    settle(values, np.full_like(values, EPS))
    # Equal rows are at zero without any rounding, and so are proportional ones.
    values[values <= EPS] = 0
    return values


def _rounded(
    x: torch.Tensor,
    few: np.ndarray,
    metric: str,
    away: np.ndarray,
    out: np.ndarray | None,
) -> tuple[np.ndarray, int]:
    """Return the distances of any rows and the exponent of two they lack."""
    n = len(x)
    if x.device.type == "cpu" and n * n * x.shape[1] < SMALL:
        # Single precision repays nothing here.
        x = x.double()
    ties = n <= PROBE or _probe_ties(x, metric, away)
    if ties:
        x = x.double()
    if out is not None and out.dtype != name_of(x):
        out = None
    values, exponent, room, squares = product(x, metric, away, out)
    if not ties and squares is not None and mirrored(values, squares, name_of(x)):
        ties = True
        if x.dtype != torch.float64:
            values, exponent, room, _ = product(x.double(), metric, away, None)
    if ties:
        settle(values, room_of(values, metric, room))
        if metric in DIRECTIONS:
            values[values <= 2 * EPS**2] = 0
    elif squares is not None:
        _settle_few(values, x, few, metric)
    if metric == "euclidean":
        np.sqrt(values, out=values)
    return values, exponent


def _few_blocks(x: torch.Tensor, out: np.ndarray) -> bool:
    """Write sums of absolute differences of few rows, unless some may tie."""
    values = pdist(x.double().cpu().numpy(), "cityblock")
    ordered = np.sort(values)
    limits = np.finfo(out.dtype)
    if not limits.tiny < ordered[0] <= ordered[-1] < limits.max:
        return False
    gaps = ordered[1:] - ordered[:-1]
    apart = bool((gaps > room_of(ordered[1:], "cityblock", np.inf)).all())
    if apart:
        out[:] = values
    return apart


def _settle_few(
    values: np.ndarray, x: torch.Tensor, few: np.ndarray, metric: str
) -> None:
    """Write the exact distances of the few rows that lie on a grid, if any do."""
    some = plain_rows(x, few)
    if not 2 < len(some) < len(x):
        return
    rows, away = x[some], np.zeros(len(some), dtype=bool)
    if metric in DIRECTIONS:
        rows, away = plain(rows, some_columns(rows), metric)
        some, rows = some[~away], rows[torch.from_numpy(~away).to(x.device)]
    grid = whole(rows, some_columns(rows), metric) if len(some) > 2 else None
    if grid is None:
        return
    # Of "euclidean" the root is taken later.
    kind = "sqeuclidean" if metric == "euclidean" else metric
    exact = _exact(grid[0], kind, away[~away])
    if metric not in DIRECTIONS:
        exact = np.ldexp(exact, grid[1] * (1 if metric == "cityblock" else 2))
    i, j = (some[index] for index in np.triu_indices(len(some), 1))
    values[i * len(x) - i * (i + 1) // 2 + j - i - 1] = exact


def _probe_ties(x: torch.Tensor, metric: str, away: np.ndarray) -> bool:
    """Return whether some of the rows have ties among their distances."""
    some = slice(None, None, -(-len(x) // PROBE))
    rows = x[some].double()
    if metric != "cityblock" and not away[some].any():
        unused = np.empty((1, n_pairs(len(rows))))
        if small_rdms(rows.cpu().numpy()[None], metric, unused)[0]:
            return False
    values, _, room, _ = product(rows, metric, away[some], None)
    return tied(values, room_of(values, metric, room))


def _spread(
    values: np.ndarray, kind: np.ndarray, away: np.ndarray, out: np.ndarray
) -> None:
    """Write the distances of all rows, given those of the kinds of rows."""
    square = squareform(values.astype(out.dtype, copy=False), checks=False)
    square = square.reshape(len(away), len(away))  # SciPy takes no pairs for one pair.
    square[away, away] = np.nan
    n = len(kind)
    if n <= AT_ONCE:
        out[:] = square[np.ix_(kind, kind)].ravel().take(upper(n))
        return
    at = 0
    for k in range(n - 1):
        stop = at + n - k - 1
        out[at:stop] = square[kind[k]].take(kind[k + 1 :])
        at = stop
