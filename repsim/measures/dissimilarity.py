"""Representational dissimilarity: how far apart a layer puts each pair of examples."""

import warnings

import numpy as np
import torch
from numpy.typing import ArrayLike

from repsim.datasets.messages import unknown
from repsim.measures.pairs import METRICS, Metric, condensed, undefined_rows

MINIMUM = 3
"""Fewer examples than this have no geometry to compare."""


def rdm(
    x: ArrayLike | torch.Tensor,
    *,
    metric: Metric = "correlation",
    noise: ArrayLike | None = None,
) -> np.ndarray:
    r"""Return the dissimilarities of all pairs of examples, condensed.

    With rows :math:`x_i`, and :math:`\tilde x_i` a row without its mean:

    - ``correlation``:
      :math:`1 - \tilde x_i^T \tilde x_j / (\|\tilde x_i\| \|\tilde x_j\|)`
    - ``cosine``: :math:`1 - x_i^T x_j / (\|x_i\| \|x_j\|)`
    - ``euclidean``: :math:`\|x_i - x_j\|`, ``sqeuclidean`` its square
    - ``cityblock``: :math:`\sum_k |x_{ik} - x_{jk}|`
    - ``mahalanobis``: :math:`\sqrt{(x_i - x_j)^T \Sigma^{-1} (x_i - x_j)}`

    Parameters
    ----------
    x : array_like or Tensor, shape (example, unit)
        Activations; at least three examples. Computed in float64.
    metric : str
        The distance; names and values are those of `scipy.spatial.distance.pdist`.
    noise : array_like, shape (unit, unit), optional
        Σ for ``mahalanobis``; by default the covariance of `x` over its examples,
        which needs more examples than units. See `repsim.noise_covariance`.

    Returns
    -------
    ndarray, shape (n (n - 1) / 2,)
        float64, pairs in scipy's order (0, 1), (0, 2), …. Pairs with a constant row
        (``correlation``) or a zero row (``cosine``) are NaN, with one warning.

    Raises
    ------
    ValueError
        If `x` is not a finite matrix of at least three rows, the metric is unknown,
        or the covariance cannot be inverted.

    References
    ----------
    Kriegeskorte, Mur & Bandettini (2008). Representational similarity analysis:
    connecting the branches of systems neuroscience. Front. Syst. Neurosci. 2, 4.
    https://doi.org/10.3389/neuro.06.004.2008

    Examples
    --------
    >>> rdm([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]], metric="euclidean")
    array([5., 4., 3.])
    """
    data = _matrix(x)
    values, empty = dissimilarities(data.to(torch.float64), metric, noise)
    if empty:
        warnings.warn(_empty_rows(empty, len(data), metric), stacklevel=2)
    return values


def dissimilarities(
    x: torch.Tensor, metric: str, noise: ArrayLike | None = None
) -> tuple[np.ndarray, int]:
    """Return condensed distances in `x`'s dtype, and how many rows are undefined.

    Parameters
    ----------
    x : Tensor, shape (example, unit)
        Finite activations, on any device.
    metric : str
        One of `METRICS`.
    noise : array_like, shape (unit, unit), optional
        Covariance for ``mahalanobis``.

    Returns
    -------
    ndarray, shape (pair,)
        Distances.
    int
        Rows without a direction, whose pairs are NaN.

    Raises
    ------
    ValueError
        If the metric is unknown or the covariance cannot be inverted.
    """
    if metric not in METRICS:
        raise ValueError(unknown("metric", metric, METRICS))
    if metric == "mahalanobis":
        x, metric = _whitened(x, noise), "euclidean"
    elif noise is not None:
        msg = (
            f"Expected `noise` only with metric='mahalanobis', but got it with "
            f"metric={metric!r}; drop one of them."
        )
        raise ValueError(msg)
    return condensed(x, metric), int(undefined_rows(x, metric).sum())


def _matrix(x: ArrayLike | torch.Tensor) -> torch.Tensor:
    """Check activations and return them as a tensor that shares memory."""
    data = x.detach() if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x))
    if data.ndim != 2:
        msg = (
            "Expected `x` to have dims (example, unit), but got shape "
            f"{tuple(data.shape)}."
        )
        raise ValueError(msg)
    if len(data) < MINIMUM:
        msg = (
            f"Expected `x` to hold at least {MINIMUM} examples, but got {len(data)}: "
            "a single distance has nothing to be compared with."
        )
        raise ValueError(msg)
    if data.shape[1] < 1:
        msg = f"Expected `x` to have units, but got shape {tuple(data.shape)}."
        raise ValueError(msg)
    if not bool(torch.isfinite(data).all()):
        bad = int((~torch.isfinite(data)).any(1).sum())
        msg = (
            f"Expected `x` to be finite, but got NaN or infinite values in {bad} of "
            f"{len(data)} examples."
        )
        raise ValueError(msg)
    return data


def _empty_rows(count: int, n: int, metric: str) -> str:
    kind = "zero" if metric == "cosine" else "constant"
    return (
        f"{count} of {n} examples are {kind} and have no {metric} with any other: "
        "their pairs are NaN."
    )


def _whitened(x: torch.Tensor, noise: ArrayLike | None) -> torch.Tensor:
    """Return x L with L Lᵀ = Σ⁻¹, so that Euclidean means Mahalanobis."""
    n, d = x.shape
    if noise is None:
        if n <= d:
            msg = (
                "Expected more examples than units to invert their covariance, but "
                f"got {n} examples of {d} units; pass `noise`, as from "
                "repsim.noise_covariance."
            )
            raise ValueError(msg)
        sigma = torch.cov(x.T.to(torch.float64)).reshape(d, d)
    else:
        sigma = covariance(noise, d).to(x.device)
    return whiten(x - x.mean(0, keepdim=True), sigma)


def covariance(noise: ArrayLike, d: int) -> torch.Tensor:
    """Check a covariance over units and return it in float64."""
    sigma = torch.as_tensor(np.asarray(noise, dtype=np.float64))
    if sigma.shape != (d, d):
        msg = (
            f"Expected `noise` to be a covariance of shape ({d}, {d}), but got "
            f"{tuple(sigma.shape)}."
        )
        raise ValueError(msg)
    if not bool(torch.isfinite(sigma).all()) or not torch.allclose(sigma, sigma.T):
        msg = "Expected `noise` to be finite and symmetric, but got one that is not."
        raise ValueError(msg)
    return sigma


def whiten(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return activations whose unit covariance `sigma` has become the identity."""
    factor, failed = torch.linalg.cholesky_ex(sigma)
    if int(failed) or float(torch.linalg.cond(factor)) > 1e7:
        msg = (
            "Expected a covariance that can be inverted, but got a singular one; "
            "shrink it, as repsim.noise_covariance does, or leave out dead units."
        )
        raise ValueError(msg)
    flat = x.reshape(-1, x.shape[-1]).to(sigma.dtype)
    white = torch.linalg.solve_triangular(factor, flat.T, upper=False).T
    return white.reshape(x.shape).to(x.dtype)
