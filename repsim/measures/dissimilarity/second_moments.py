"""RDMs compared as the second moments of patterns that they stand for."""

import numpy as np
from scipy.linalg import eigh, eigvalsh
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import squareform

_REACH = 20.0
"""Noise is sought from e⁻²⁰ to e²⁰ times the patterns' own second moment."""


def bures(a: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """Return ‖√G_a √G_b‖_* / √(tr G_a tr G_b) of all RDMs, G = −C D C / 2."""
    left = [_root(row) for row in a]
    right = left if b is None else [_root(row) for row in b]
    out = np.full((len(left), len(right)), np.nan)
    for i, x in enumerate(left):
        for j, y in enumerate(right):
            if b is None and j < i:
                out[i, j] = out[j, i]
            elif x.any() and y.any():
                size = np.linalg.norm(x) * np.linalg.norm(y)
                out[i, j] = np.linalg.svd(x.T @ y, compute_uv=False).sum() / size
                if np.array_equal(x, y):
                    out[i, j] = 1
    return np.asarray(np.minimum(out, 1))


def _root(rdm: np.ndarray) -> np.ndarray:
    """Return patterns (example, dimension) with these squared distances."""
    square = squareform(rdm.astype(np.float64) / (rdm.max() or 1))
    square -= square.mean(0)
    square -= square.mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(-square / 2)
    # The root of rounding is no small number.
    values[values < len(values) * np.finfo(np.float64).eps * values[-1]] = 0
    return np.asarray(vectors * np.sqrt(values))


def riemannian(a: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """Return minus the Riemannian distance of all RDMs, free of scale and of noise.

    min over s, t of ‖log eig(e^s G_a + e^t S, G_b)‖, G relative to the first pattern
    and S = 1 + 11ᵀ the noise of such differences; NaN where G_b is singular.
    """
    left = [_relative(row) for row in a]
    right = left if b is None else [_relative(row) for row in b]
    out = np.full((len(left), len(right)), np.nan)
    for j, y in enumerate(right):
        values = eigvalsh(y)
        if values[0] <= len(y) * np.finfo(np.float64).eps * values[-1]:
            continue
        for i, x in enumerate(left):
            out[i, j] = 0.0 if np.array_equal(x, y) else -_distance(x, y)
    return out


def _relative(rdm: np.ndarray) -> np.ndarray:
    """Return (d_0i + d_0j − d_ij) / 2: inner products relative to the first pattern."""
    square = squareform(rdm.astype(np.float64) / (rdm.max() or 1))
    own = square[0, 1:]
    return np.asarray((own + own[:, None] - square[1:, 1:]) / 2)


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the smallest spread of log eigenvalues; their mean is a common scale."""
    values, vectors = eigh(y)
    white = vectors / np.sqrt(values)
    one, noise = (white.T @ m @ white for m in (x, np.eye(len(x)) + 1))

    def spread(log_noise: float) -> float:
        eigenvalues = np.linalg.eigvalsh(one + np.exp(log_noise) * noise)
        if eigenvalues[0] <= 0:
            return 1e300
        logs = np.log(eigenvalues)
        return float(np.linalg.norm(logs - logs.mean()))

    grid = np.linspace(-_REACH, _REACH, 41)
    nearest = grid[np.argmin([spread(step) for step in grid])]
    best = minimize_scalar(spread, bounds=(nearest - 1, nearest + 1), method="bounded")
    # Without noise too: where the patterns' own moment is enough.
    return min(float(best.fun), spread(-np.inf))
