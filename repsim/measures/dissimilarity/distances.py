"""Distances between all pairs of rows, condensed, one file for all metrics."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from scipy.spatial.distance import pdist

from repsim.measures.dissimilarity.batched import (
    CLOSE,
    DIRECTIONS,
    EPS,
    PROBE,
    SMALL,
    is_small,
    small_rdms,
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
from repsim.measures.dissimilarity.triangle import lengths, n_pairs, triangle

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
RANGE = {"float64": 500, "float32": 50}
"""Exponents of two within which lengths can be squared and compared."""


WIDE = 256
"""Units from which torch adds up absolute differences faster than SciPy."""


class OutOfRange(ValueError):
    """Distances that the dtype does not hold."""


def condensed(
    x: torch.Tensor,
    metric: str,
    out: np.ndarray | None = None,
    *,
    scaled: bool = False,
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
    n = len(x)
    if out is None:
        out = np.empty(n_pairs(n), _name(x))
    alone = turn is None and x.device.type == "cpu" and is_small(n, x.shape[1], metric)
    if alone and small_rdms(x.double().numpy()[None], metric, out[None])[0]:
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
    else:
        values, exponent = _rounded(
            x, few, metric, away, out if kinds is None else None
        )
    if metric not in DIRECTIONS:
        move = 0 if scaled else exponent * (2 if metric == "sqeuclidean" else 1)
        if move or values.dtype != out.dtype:
            values = _moved(values, move, out.dtype)
    if kinds is not None:
        _spread(values, kinds[1], away, out)
        return out, int(away[kinds[1]].sum())
    if values is not out:
        out[:] = values
    return out, int(away.sum())


def _name(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def narrowed(
    x: torch.Tensor, dtype: torch.dtype, device: str | torch.device
) -> torch.Tensor:
    """Return numbers in a dtype, refused where it does not hold their size."""
    out = x.to(device, dtype)
    if dtype.itemsize < x.dtype.itemsize:
        peaks = [float(part.abs().max()) for part in (x, out)]
        if peaks[0] and not 0 < peaks[1] < float("inf"):
            msg = (
                f"Expected activations that {str(dtype)[6:]} holds, but got some near "
                f"{peaks[0]:.0e}; take precision='float64'."
            )
            raise OutOfRange(msg)
    return out


def _exact(rows: torch.Tensor, metric: str, away: np.ndarray) -> np.ndarray:
    """Return the distances of whole numbers, in units of the grid."""
    if metric == "cityblock":
        return _cityblock(rows)
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
    if out is not None and out.dtype != _name(x):
        out = None
    values, exponent, room, squares = _product(x, metric, away, out)
    if not ties and squares is not None and mirrored(values, squares, _name(x)):
        ties = True
        if x.dtype != torch.float64:
            values, exponent, room, _ = _product(x.double(), metric, away, None)
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
    values, _, room, _ = _product(rows, metric, away[some], None)
    return tied(values, room_of(values, metric, room))


def room_of(values: np.ndarray, metric: str, most: float | np.ndarray) -> np.ndarray:
    """Return the errors of float64 distances, squared ones for ``euclidean``.

    That of a product is relative to the rows' squared lengths (halves of them for
    directions), `most`; distances that are small beside these were subtracted, and
    have a relative one.
    """
    relative = EPS / (1 / 16 if metric == "cityblock" else CLOSE["float64"])
    room = np.minimum(relative * values, 2 * EPS * most)
    # Rows of length one are rounded themselves.
    return room + EPS**2 if metric in DIRECTIONS else room


def _product(
    x: torch.Tensor, metric: str, away: np.ndarray, out: np.ndarray | None
) -> tuple[np.ndarray, int, float, np.ndarray | None]:
    """Return distances by one product, squared ones for ``euclidean``.

    With them the exponent of two that they lack, the largest squared length, and the
    squared lengths of centred rows (halves of them for directions), where known.
    """
    if metric == "cityblock":
        x, exponent = _in_range(x)
        around = lengths(x - x.mean(0)).square().cpu().numpy()
        values = _cityblock(x, None if exponent else out)
        return values, exponent, np.inf, around if not exponent else None
    if metric in DIRECTIONS:
        # Half the squared distance of rows of length one.
        gone = torch.from_numpy(away).to(x.device)
        rows = _directions(x, metric, gone)
        # Distances do not see a common offset, but rounding does.
        rows -= rows.mean(0)
        halves = (lengths(rows).square() / 2).to(x.dtype)
        most = float(halves.max())
        halves = halves.masked_fill(gone, torch.nan)
        values = triangle(rows, -1, halves, halves, out=out)
        _mend(values, rows, halves, 0.5)
        if values.max(initial=0) > 2:
            np.minimum(values, 2, out=values)
        return values, 0, most, halves.cpu().numpy()
    rows = x - x.mean(0)
    size = lengths(rows)
    high, limit = float(size.max()), 2.0 ** RANGE[_name(x)]
    # NaN, of numbers beyond the range, compares as false.
    if not 1 / limit < high < limit or high > 8 * float(size.median()):
        return (*_uneven(x), None)
    squares = size.square().to(x.dtype)
    values = triangle(rows, -2, squares, squares, out=out)
    _mend(values, x, squares, 1.0)
    return values, 0, high**2, squares.cpu().numpy()


def _cityblock(x: torch.Tensor, out: np.ndarray | None = None) -> np.ndarray:
    """Return sums of absolute differences, narrow rows' by SciPy, which loops best."""
    if x.device.type == "cpu" and x.shape[1] < WIDE:
        whole = out is not None and out.dtype == np.float64
        return np.asarray(pdist(x.numpy(), "cityblock", out=out if whole else None))
    return torch.nn.functional.pdist(x, p=1.0).cpu().numpy()


def _directions(x: torch.Tensor, metric: str, away: torch.Tensor) -> torch.Tensor:
    """Return rows of length one, less their means for correlation."""
    limit = 2.0 ** RANGE[_name(x)]
    rows, mean = x, x.new_zeros(len(x), 1)
    if metric == "correlation":
        # In one pass, where its way of subtracting the mean costs no digits.
        one = x.new_full(x.shape[1:], x.shape[1] ** -0.5)
        rows, mean, inverse = torch.native_layer_norm(x, one.shape, one, None, 0.0)
        spread = inverse.double() / x.shape[1] ** 0.5
        usual = (spread > 1 / limit) & (spread < limit) & (mean.abs() * inverse < 2)
        if bool(usual.all()):
            return rows
        mean = x.mean(1, keepdim=True)
        rows = x - mean
    size = lengths(rows)
    # NaN compares as false.
    if not bool(((size > 1 / limit) & (size < limit) | away).all()):
        _, exponents = torch.frexp(x.abs().amax(1, keepdim=True))
        x = shift(x, -exponents)
        mean = x.mean(1, keepdim=True) if metric == "correlation" else mean
        rows = x - mean if metric == "correlation" else x
        size = lengths(rows)
    if bool((mean[:, 0].abs() * x.shape[1] ** 0.5 > 16 * size).any()):
        # The mean of large numbers is rounded; what it left has another, small one.
        rows = rows - rows.mean(1, keepdim=True)
        size = lengths(rows)
    size = size.masked_fill(away, torch.inf).to(rows.dtype)[:, None]
    return rows / size if rows is x else rows.div_(size)


def _uneven(x: torch.Tensor) -> tuple[np.ndarray, int, float]:
    """Return squared distances where some rows are of another size than most.

    Most rows are brought near one and centred by their own mean, so that one diverged
    row costs the others no digits; rows too large to be squared are subtracted.
    """
    peaks = x.abs().amax(1)
    _, exponents = torch.frexp(peaks)
    exponent = int(exponents[peaks > 0].median()) if bool(peaks.any()) else 0
    far = exponents > exponent + RANGE[_name(x)]
    near = shift(x.masked_fill(far[:, None], 0), -exponent)
    size = lengths(near - near[~far].mean(0))
    most = ~far & (size <= 8 * size[~far].median())
    rows = (near - near[most].mean(0)).masked_fill(far[:, None], 0)
    squares = lengths(rows).square().to(x.dtype)
    values = triangle(rows, -2, squares, squares)
    _mend(values, near, squares, 1.0)
    n = len(x)
    for k in torch.nonzero(far)[:, 0].tolist():
        values = values.astype(np.float64, copy=False)
        own = int(exponents[k])
        scaled = shift(x.double(), -own)
        gaps = lengths(scaled - scaled[k]).square().cpu().numpy()
        with np.errstate(over="ignore"):
            gaps = np.ldexp(gaps, 2 * (own - exponent))
        before = np.arange(k)
        at = before * n - before * (before + 1) // 2 + k - before - 1
        values[at] = gaps[:k]
        start = k * n - k * (k + 1) // 2
        values[start : start + n - k - 1] = gaps[k + 1 :]
    return values, exponent, np.inf


def shift(x: torch.Tensor, exponent: int | torch.Tensor) -> torch.Tensor:
    """Return x 2ᵉ; in two steps, since 2ᵉ alone may be out of range."""
    if isinstance(exponent, int) and exponent == 0:
        return x
    half = torch.as_tensor(exponent, device=x.device) // 2
    return torch.ldexp(torch.ldexp(x, half), exponent - half)


def _in_range(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return rows whose sums of absolute values are in range, and what they lack."""
    exponent = int(torch.frexp(x.abs().max())[1])
    if abs(exponent) < RANGE[_name(x)]:
        return x, 0
    return shift(x, -exponent), exponent


def _moved(
    values: np.ndarray, exponent: int, dtype: np.dtype[np.floating]
) -> np.ndarray:
    """Return values 2ᵉ if the dtype holds all of them."""
    wide = np.asarray(values, dtype=np.float64)
    if exponent:
        with np.errstate(over="ignore", under="ignore"):
            wide = np.ldexp(wide, exponent)
    limits = np.finfo(dtype)
    high, low = wide.max(initial=0.0), wide.min(initial=np.inf)
    if low < limits.tiny:
        # Zero is a distance too, unless it was none before.
        low = wide[values > 0].min(initial=np.inf)
    if high > limits.max or low < limits.tiny:
        wider = "take precision='float64', or " if limits.bits < 64 else ""
        msg = (
            f"Expected distances that {dtype} holds, but got some from {low:.0e} to "
            f"{high:.0e}; {wider}multiply the activations by a power of two first."
        )
        raise OutOfRange(msg)
    return wide


def _spread(
    values: np.ndarray, kind: np.ndarray, away: np.ndarray, out: np.ndarray
) -> None:
    """Write the distances of all rows, given those of the kinds of rows."""
    square = np.zeros((len(away), len(away)), out.dtype)
    i, j = np.triu_indices(len(away), 1)
    square[i, j] = square[j, i] = values
    square[away, away] = np.nan
    at = 0
    for k in range(len(kind) - 1):
        stop = at + len(kind) - k - 1
        out[at:stop] = square[kind[k]].take(kind[k + 1 :])
        at = stop


def _mend(
    out: np.ndarray, rows: torch.Tensor, squares: torch.Tensor, share: float
) -> None:
    """Compute squared distances of rows that nearly coincide by their difference.

    Elsewhere in `out` they are differences of large numbers, here mostly rounding and
    perhaps negative: these pairs, usually none, are subtracted first and squared
    afterwards.
    """
    limit = CLOSE[_name(rows)]
    size = squares.cpu().numpy()
    most = 2 * limit * float(np.nanmax(size, initial=0.0))
    if float(out.min(initial=np.inf)) > most:
        return
    n = len(rows)
    ends = np.cumsum(np.arange(n - 1, 0, -1))
    step = max(1, (1 << 22) // rows.shape[1])
    for start in range(0, len(out), step):
        near = start + np.flatnonzero(out[start : start + step] <= most)
        i = np.searchsorted(ends, near, side="right")
        j = near - ends[i] + n
        keep = out[near] <= limit * (size[i] + size[j])
        near, i, j = near[keep], i[keep], j[keep]
        gaps = (rows[i] - rows[j]).square().sum(1)
        out[near] = share * gaps.cpu().numpy()
