"""Distances between all pairs of rows, condensed, by matrix products in tiles.

Everything that is a function of inner products (correlation, cosine, Euclidean) is
one product of the upper triangle, a band of rows at a time: a square matrix never
exists, so n = 5,000 examples need the 12.5 million pairs themselves and one band.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

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

_BAND = 128
_CLOSE = {torch.float64: 1e-4, torch.float32: 1e-3}


def n_pairs(n: int) -> int:
    """Return the number of pairs among n things."""
    return n * (n - 1) // 2


def undefined_rows(x: torch.Tensor, metric: str) -> torch.Tensor:
    """Return which rows have no direction: constant (correlation) or zero (cosine)."""
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if metric not in ("correlation", "cosine"):
        return found
    value = x[:, :1] if metric == "correlation" else x.new_zeros(len(x), 1)
    # The ends tell for most rows; only the others are read.
    maybe = torch.nonzero((x[:, [0, -1]] == value).all(1))[:, 0]
    found[maybe] = (x[maybe] == value[maybe]).all(1)
    return found


def condensed(
    x: torch.Tensor, metric: str, undefined: torch.Tensor | None = None
) -> np.ndarray:
    """Return the distances of all pairs of rows, in scipy's order and `x`'s dtype.

    Parameters
    ----------
    x : Tensor, shape (example, unit)
        Finite, float32 or float64, on any device.
    metric : str
        One of `METRICS` but "mahalanobis", which is "euclidean" after whitening.
    undefined : Tensor of bool, shape (example,), optional
        From `undefined_rows`, where it is known.

    Returns
    -------
    ndarray, shape (pair,)
        NaN for pairs with a row that has no direction (see `undefined_rows`).
    """
    if metric == "cityblock":
        return torch.nn.functional.pdist(x, p=1.0).cpu().numpy()
    if metric in ("correlation", "cosine"):
        rows = x - x.mean(1, keepdim=True) if metric == "correlation" else x
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        norms[undefined_rows(x, metric) if undefined is None else undefined] = torch.nan
        rows = rows / norms
        out = collect(torch.ones_like(norms[:, 0]), lambda i, j: _minus(rows, i, j))
        return np.clip(out, 0, 2, out=out)
    # Distances do not see a common offset, but rounding does.
    rows = x - x.mean(0, keepdim=True)
    squares = torch.einsum("ij,ij->i", rows, rows)
    out = collect(
        squares,
        lambda i, j: torch.addmm(squares[i:], rows[i:j], rows[i:].T, alpha=-2),
    )
    _mend(out, rows, squares)
    return np.sqrt(out, out=out) if metric == "euclidean" else out


def collect(
    offsets: torch.Tensor, band: Callable[[int, int], torch.Tensor]
) -> np.ndarray:
    """Return the condensed upper triangle of a matrix that exists band by band.

    Parameters
    ----------
    offsets : Tensor, shape (n,)
        Added to each row of the square matrix; float32 or float64.
    band : callable
        (start, stop) -> rows start:stop, columns start to n.

    Returns
    -------
    ndarray, shape (n (n - 1) / 2,)
        In scipy's pair order and the offsets' dtype.
    """
    n = len(offsets)
    added = offsets.cpu().numpy()
    out = np.empty(n_pairs(n), added.dtype)
    at = 0
    for start in range(0, n, _BAND):
        stop = min(start + _BAND, n)
        rows = band(start, stop).cpu().numpy()
        for i in range(stop - start):
            width = n - start - i - 1
            np.add(rows[i, i + 1 :], added[start + i], out=out[at : at + width])
            at += width
    return out


def _minus(rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    unread = torch.empty(1, dtype=rows.dtype, device=rows.device)
    return torch.addmm(unread, rows[start:stop], rows[start:].T, beta=0, alpha=-1)


def _mend(out: np.ndarray, rows: torch.Tensor, squares: torch.Tensor) -> None:
    """Compute squared distances of rows that nearly coincide by their difference.

    Elsewhere in `out` they are differences of large numbers, here mostly rounding:
    these pairs, usually none, are subtracted first and squared afterwards.
    """
    np.maximum(out, 0, out=out)
    limit = _CLOSE[rows.dtype]
    most = 2 * limit * float(squares.max())
    if float(out.min()) > most:
        return
    n = len(rows)
    ends = np.cumsum(np.arange(n - 1, 0, -1))
    size = squares.cpu().numpy()
    step = max(1, (1 << 22) // rows.shape[1])
    for start in range(0, len(out), step):
        near = start + np.flatnonzero(out[start : start + step] <= most)
        i = np.searchsorted(ends, near, side="right")
        j = near - ends[i] + n
        keep = out[near] <= limit * (size[i] + size[j])
        near, i, j = near[keep], i[keep], j[keep]
        gaps = (rows[i] - rows[j]).square().sum(1)
        out[near] = gaps.cpu().numpy()
