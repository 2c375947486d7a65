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
    if metric == "correlation":
        return x.amax(1) == x.amin(1)
    if metric == "cosine":
        return (x == 0).all(1)
    return torch.zeros(len(x), dtype=torch.bool, device=x.device)


def condensed(x: torch.Tensor, metric: str) -> np.ndarray:
    """Return the distances of all pairs of rows, in scipy's order and `x`'s dtype.

    Parameters
    ----------
    x : Tensor, shape (example, unit)
        Finite, float32 or float64, on any device.
    metric : str
        One of `METRICS` but "mahalanobis", which is "euclidean" after whitening.

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
        empty = undefined_rows(x, metric)
        norms[empty] = torch.nan
        rows = rows / norms
        return collect(len(rows), rows.dtype, lambda i, j: _one_minus(rows, i, j))
    # Distances do not see a common offset, but rounding does.
    rows = x - x.mean(0, keepdim=True)
    squares = torch.einsum("ij,ij->i", rows, rows)
    largest = float(squares.max())
    out = collect(
        len(rows), rows.dtype, lambda i, j: _squared(rows, squares, largest, i, j)
    )
    return np.sqrt(out, out=out) if metric == "euclidean" else out


def collect(
    n: int, dtype: torch.dtype, band: Callable[[int, int], torch.Tensor]
) -> np.ndarray:
    """Return the condensed upper triangle of a matrix that exists band by band.

    Parameters
    ----------
    n : int
        Rows of the square matrix.
    dtype : torch.dtype
        The result's type, float32 or float64.
    band : callable
        (start, stop) -> rows start:stop, columns start to n.

    Returns
    -------
    ndarray, shape (n (n - 1) / 2,)
        In scipy's pair order.
    """
    kind = np.float32 if dtype == torch.float32 else np.float64
    out = np.empty(n_pairs(n), kind)
    at = 0
    for start in range(0, n, _BAND):
        stop = min(start + _BAND, n)
        rows = band(start, stop).cpu().numpy()
        for i in range(stop - start):
            width = n - start - i - 1
            out[at : at + width] = rows[i, i + 1 :]
            at += width
    return out


def _one_minus(rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    one = torch.ones(1, dtype=rows.dtype, device=rows.device)
    out = torch.addmm(one, rows[start:stop], rows[start:].T, alpha=-1)
    return out.clamp_(0, 2)


def _squared(
    rows: torch.Tensor, squares: torch.Tensor, largest: float, start: int, stop: int
) -> torch.Tensor:
    out = torch.addmm(squares[start:], rows[start:stop], rows[start:].T, alpha=-2)
    out.add_(squares[start:stop, None]).clamp_(min=0).fill_diagonal_(torch.inf)
    # Where two rows nearly coincide the difference above is mostly rounding: those
    # pairs, usually none, are subtracted first and squared afterwards.
    limit = _CLOSE[rows.dtype]
    if float(out.min()) > 2 * limit * largest:
        return out
    scale = squares[start:stop, None] + squares[None, start:]
    close = torch.nonzero(out <= limit * scale)
    close = close[close[:, 1] > close[:, 0]]
    step = max(1, (1 << 22) // max(1, rows.shape[1]))
    for part in torch.split(close, step):
        i, j = part[:, 0], part[:, 1]
        out[i, j] = (rows[start + i] - rows[start + j]).square().sum(1)
    return out
