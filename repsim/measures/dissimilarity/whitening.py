"""Whitened similarity of RDMs from row sums, without forming a square matrix."""

from math import isqrt

import numpy as np
import torch

from repsim.measures.dissimilarity.inner import RdmStack, exact_ones, inner


def whitened(
    a: RdmStack,
    b: RdmStack,
    keep: np.ndarray | None,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    r"""Return the cosines of RDMs after whitening by their covariance.

    For distances between independent, equally noisy patterns that is the cosine of
    the double-centred matrices (Diedrichsen et al. 2021), and with row sums r and
    condensed inner product g of two RDMs over n examples

    .. math:: k = 2 g - \tfrac{2}{n} r_a^T r_b + \tfrac{1}{n^2} s_a s_b,
        \qquad s = \sum r.

    Where pairs are missing, centring becomes a least-squares fit of one effect per
    example, as in rsatoolbox.
    """
    m = a.width if keep is None else len(keep)
    n = (1 + isqrt(1 + 8 * m)) // 2
    if n * (n - 1) // 2 != m:
        msg = (
            "Expected whitened comparisons to get all n (n - 1) / 2 pairs of n "
            f"examples, but got {m}; keep missing pairs as NaN."
        )
        raise ValueError(msg)
    sums_a = np.stack([_row_sums(a, k, n, keep) for k in range(len(a))])
    sums_b = (
        sums_a
        if b is a
        else np.stack([_row_sums(b, k, n, keep) for k in range(len(b))])
    )
    correct = _Centring(n, keep)
    products, squares_a, squares_b = inner(a, b, device)
    values = 2 * products + correct(sums_a, sums_b)
    values /= _norms(squares_a, sums_a, correct)[:, None]
    values /= _norms(squares_b, sums_b, correct)[None, :]
    return exact_ones(np.clip(values, -1, 1), a, b)


def _norms(squares: np.ndarray, sums: np.ndarray, correct: "_Centring") -> np.ndarray:
    more = np.array([correct(row[None], row[None])[0, 0] for row in sums])
    return np.asarray(np.sqrt(np.maximum(2 * squares + more, 0)))


class _Centring:
    """What centring adds to twice the inner product of two condensed RDMs."""

    def __init__(self, n: int, keep: np.ndarray | None) -> None:
        self.n = n
        self.seen: np.ndarray | None = None
        if keep is not None and not keep.all():
            seen = np.zeros((n, n))
            i, j = np.triu_indices(n, 1)
            seen[i[keep], j[keep]] = seen[j[keep], i[keep]] = 1
            self.seen = seen + np.diag(seen.sum(0))
            # Normal equations of one effect per example; the diagonal, a distance of
            # zero, is seen too.
            self.fit = np.linalg.inv(self.seen / 2 + np.eye(n))

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the correction for row sums (k_a, n) and (k_b, n)."""
        if self.seen is None:
            total = np.outer(a.sum(1), b.sum(1)) / self.n**2
            return np.asarray(total - 2 / self.n * (a @ b.T))
        # w = -(d + u_i + u_j) / 2 on pairs and -u on the diagonal, u = -fit r / 2;
        # 4 (2 w_a w_b + diagonal) without its first term, which is 2 d_a d_b.
        u, v = -a @ self.fit / 2, -b @ self.fit / 2
        return np.asarray(2 * (a @ v.T + u @ b.T + u @ self.seen @ v.T) + 4 * (u @ v.T))


def _row_sums(side: RdmStack, k: int, n: int, keep: np.ndarray | None) -> np.ndarray:
    """Return the row sums of one RDM's square matrix, read a row at a time."""
    values = side.rows[k].astype(np.float64) - side.offsets[k]
    if keep is not None:
        full = np.zeros(len(keep))
        full[keep] = values
        values = full
    starts = np.concatenate([[0], np.cumsum(np.arange(n - 1, 1, -1))])
    sums = np.zeros(n)
    sums[:-1] = np.add.reduceat(values, starts)
    at = 0
    for i in range(n - 1):
        sums[i + 1 :] += values[at : at + n - i - 1]
        at += n - i - 1
    return sums
