"""Distances as one product gives them, their errors, and their range."""

import numpy as np
import torch
from scipy.spatial.distance import pdist

from repsim.measures.dissimilarity.batched import CLOSE, DIRECTIONS, EPS
from repsim.measures.dissimilarity.triangle import lengths, triangle
from repsim.measures.magnitudes import shifted

RANGE = {"float64": 500, "float32": 50}
"""Exponents of two within which lengths can be squared and compared."""


WIDE = 256
"""Units from which torch adds up absolute differences faster than SciPy."""


class OutOfRange(ValueError):
    """Distances that the dtype does not hold."""


def product(
    x: torch.Tensor, metric: str, away: np.ndarray, out: np.ndarray | None
) -> tuple[np.ndarray, int, float, np.ndarray | None]:
    """Return distances by one product, squared ones for ``euclidean``.

    With them the exponent of two that they lack, the largest squared length, and the
    squared lengths of centred rows (halves of them for directions), where known.
    """
    if metric == "cityblock":
        x, exponent = _in_range(x)
        around = lengths(x - x.mean(0)).square().cpu().numpy()
        values = blocks(x, None if exponent else out)
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
    high, limit = float(size.max()), 2.0 ** RANGE[name_of(x)]
    # NaN, of numbers beyond the range, compares as false.
    if not 1 / limit < high < limit or high > 8 * float(size.median()):
        return (*_uneven(x), None)
    squares = size.square().to(x.dtype)
    values = triangle(rows, -2, squares, squares, out=out)
    _mend(values, x, squares, 1.0)
    return values, 0, high**2, squares.cpu().numpy()


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


def _mend(
    out: np.ndarray, rows: torch.Tensor, squares: torch.Tensor, share: float
) -> None:
    """Compute squared distances of rows that nearly coincide by their difference.

    Elsewhere in `out` they are differences of large numbers, here mostly rounding and
    perhaps negative: these pairs, usually none, are subtracted first and squared
    afterwards.
    """
    limit = CLOSE[name_of(rows)]
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


def blocks(x: torch.Tensor, out: np.ndarray | None = None) -> np.ndarray:
    """Return sums of absolute differences, narrow rows' by SciPy, which loops best."""
    if x.device.type == "cpu" and x.shape[1] < WIDE:
        whole = out is not None and out.dtype == np.float64
        return np.asarray(pdist(x.numpy(), "cityblock", out=out if whole else None))
    return torch.nn.functional.pdist(x, p=1.0).cpu().numpy()


def _directions(x: torch.Tensor, metric: str, away: torch.Tensor) -> torch.Tensor:
    """Return rows of length one, less their means for correlation."""
    limit = 2.0 ** RANGE[name_of(x)]
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
        x = shifted(x, -exponents)
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
    far = exponents > exponent + RANGE[name_of(x)]
    near = shifted(x.masked_fill(far[:, None], 0), -exponent)
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
        scaled = shifted(x.double(), -own)
        gaps = lengths(scaled - scaled[k]).square().cpu().numpy()
        with np.errstate(over="ignore"):
            gaps = np.ldexp(gaps, 2 * (own - exponent))
        before = np.arange(k)
        at = before * n - before * (before + 1) // 2 + k - before - 1
        values[at] = gaps[:k]
        start = k * n - k * (k + 1) // 2
        values[start : start + n - k - 1] = gaps[k + 1 :]
    return values, exponent, np.inf


def _in_range(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return rows whose sums of absolute values are in range, and what they lack."""
    exponent = int(torch.frexp(x.abs().max())[1])
    if abs(exponent) < RANGE[name_of(x)]:
        return x, 0
    return shifted(x, -exponent), exponent


def moved(
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


def name_of(x: torch.Tensor) -> str:
    """Return the dtype as NumPy calls it."""
    return str(x.dtype).removeprefix("torch.")
