"""Distances between all pairs of rows, condensed, one file for all metrics."""

from typing import Literal

import numpy as np
import torch

from repsim.measures.dissimilarity.triangle import lengths, triangle

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

_CLOSE = {torch.float64: 1e-4, torch.float32: 1e-3}


def undefined_rows(x: torch.Tensor, metric: str) -> torch.Tensor:
    """Return which rows have no direction: constant (correlation) or zero (cosine)."""
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if metric not in ("correlation", "cosine"):
        return found
    value = x[:, :1] if metric == "correlation" else x.new_zeros(len(x), 1)
    # A few units tell for most rows, also of ReLU layers; only the others are read.
    few = x[:, :: max(1, x.shape[1] // 8)]
    maybe = torch.nonzero((few == value).all(1))[:, 0]
    found[maybe] = (x[maybe] == value[maybe]).all(1)
    return found


def condensed(
    x: torch.Tensor,
    metric: str,
    undefined: torch.Tensor | None = None,
    out: np.ndarray | None = None,
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
    out : ndarray, shape (pair,), optional
        Where to write.

    Returns
    -------
    ndarray, shape (pair,)
        NaN for pairs with a row that has no direction (see `undefined_rows`).
    """
    if metric == "cityblock":
        found = torch.nn.functional.pdist(x, p=1.0).cpu().numpy()
        if out is None:
            return found
        out[:] = found
        return out
    # Distances do not see a common offset, but rounding does.
    if metric in ("correlation", "cosine"):
        # Half the squared distance of rows of length one.
        rows = x - x.mean(1, keepdim=True) if metric == "correlation" else x.clone()
        away = undefined_rows(x, metric) if undefined is None else undefined
        rows /= lengths(rows).masked_fill(away, torch.inf).to(x.dtype)[:, None]
        rows -= rows.mean(0)
        halves = (lengths(rows).square() / 2).masked_fill(away, torch.nan).to(x.dtype)
        return triangle(rows, -1, halves, halves, limits=(0, 2), out=out)
    rows = x - x.mean(0)
    squares = lengths(rows).square().to(x.dtype)
    out = triangle(rows, -2, squares, squares, limits=(0, None), out=out)
    _mend(out, rows, squares)
    return np.sqrt(out, out=out) if metric == "euclidean" else out


def _mend(out: np.ndarray, rows: torch.Tensor, squares: torch.Tensor) -> None:
    """Compute squared distances of rows that nearly coincide by their difference.

    Elsewhere in `out` they are differences of large numbers, here mostly rounding:
    these pairs, usually none, are subtracted first and squared afterwards.
    """
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
