"""Comparing RDMs: one vector with another, or all of a stack with all of another."""

import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from repsim.core.messages import unknown
from repsim.core.provenance import made_by
from repsim.measures import alignment
from repsim.measures.dissimilarity.given import (
    aligned,
    as_pairs,
    as_rdms,
    crossed,
    in_order,
    n_examples,
)
from repsim.measures.dissimilarity.inner import RdmStack, exact_ones, inner
from repsim.measures.dissimilarity.ranks import doubled, excess, ranked
from repsim.measures.dissimilarity.second_moments import bures, riemannian
from repsim.measures.dissimilarity.whitening import whitened

Method = Literal[
    "pearson",
    "spearman",
    "kendall",
    "tau-a",
    "rho-a",
    "cosine",
    "whitened_cosine",
    "whitened_pearson",
    "bures",
    "riemannian",
]
METHODS: tuple[str, ...] = (
    "pearson",
    "spearman",
    "kendall",
    "tau-a",
    "rho-a",
    "cosine",
    "whitened_cosine",
    "whitened_pearson",
    "bures",
    "riemannian",
)
_BY_PLACE = ("whitened_cosine", "whitened_pearson", "bures", "riemannian")
"""Methods that ask which examples a pair joins."""

LEAST = 3
"""The pairs of three examples: with fewer there is nothing to correlate."""


def compare_rdms(
    a: ArrayLike | torch.Tensor | xr.DataArray,
    b: ArrayLike | torch.Tensor | xr.DataArray,
    *,
    method: Method = "spearman",
) -> float | np.ndarray | xr.DataArray:
    r"""Return how similar RDMs are: two vectors, or every pair of two stacks.

    With condensed RDMs a, b of m pairs, r their average ranks, and S the concordant
    minus the discordant pairs of pairs:

    - ``pearson``, ``cosine``: of a and b, with and without their means taken out
    - ``spearman``: the Pearson correlation of r
    - ``rho-a``: :math:`12 \sum (r_a - \bar r)(r_b - \bar r) / (m^3 - m)`, its
      expectation when ties are broken at random
    - ``kendall`` (tau-b): :math:`S / \sqrt{(p - t_a)(p - t_b)}`,
      :math:`p = m (m - 1) / 2`, t the tied pairs; ``tau-a``: :math:`S / p`
    - ``whitened_cosine``, ``whitened_pearson``: the cosine after dividing by the
      covariance that distances have because pairs share examples; equal to the
      cosine of the double-centred matrices (for Euclidean RDMs: linear CKA)
    - ``bures``: :math:`\|\sqrt{G_a} \sqrt{G_b}\|_* / \sqrt{\operatorname{tr} G_a
      \operatorname{tr} G_b}` of the double-centred :math:`G = -C D C / 2` of squared
      distances D, negative directions left out; for squared Euclidean RDMs the cosine
      of the Procrustes angle
    - ``riemannian``: minus the distance of the second moments as positive definite
      matrices, over the best scale and additive noise (Shahbazi et al. 2021); not
      symmetric, and NaN where the second RDM spans fewer than n − 1 dimensions

    Parameters
    ----------
    a, b : array_like, Tensor or DataArray, shape (pair,) or (k, pair)
        RDMs over the same examples: condensed, or square (n, n) or (k, n, n), which
        are condensed. Those with `example_a` and `example_b` on both sides are matched
        by these ids, in any order; others must have the same order.
    method : str
        One of the above.

    Returns
    -------
    float, ndarray of float64, shape (k_a, k_b), or DataArray
        A float for two vectors; a DataArray, with the other dims of both, where one
        is a DataArray of several. NaN where an RDM is constant (pearson, spearman,
        kendall, whitened_pearson) or zero (cosine, whitened_cosine), with a warning.

    Raises
    ------
    ValueError
        If the method is unknown, ids or numbers of pairs differ or are below three, a
        value is infinite, or a square is not symmetric or not zero on its diagonal
        (similarities are not: pass 1 − s).

    Notes
    -----
    Pairs that are NaN on either side are left out, with a warning. Each RDM is ranked
    once and all are compared by one matrix product; tau takes O(m log m) a cell.

    References
    ----------
    Nili et al. (2014). A toolbox for representational similarity analysis. PLOS
    Comput. Biol. 10, e1003553. https://doi.org/10.1371/journal.pcbi.1003553

    Diedrichsen et al. (2021). Comparing representational geometries using whitened
    unbiased-distance-matrix similarity. Neurons, Behavior, Data analysis, and Theory.
    https://doi.org/10.51628/001c.27664

    Shahbazi et al. (2021). Using distance on the Riemannian manifold to compare
    representations in brain and in models. NeuroImage 239, 118271.
    https://doi.org/10.1016/j.neuroimage.2021.118271

    Examples
    --------
    >>> round(compare_rdms([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], method="spearman"), 6)
    0.5
    >>> compare_rdms([[1.0, 2.0, 3.0]], [[1.0, 3.0, 2.0], [3.0, 2.0, 1.0]],
    ...              method="tau-a").round(3)
    array([[ 0.333, -1.   ]])
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    left = as_pairs(a, "a")
    # The same object on both sides is one stack: half the work.
    right = left if b is a else as_pairs(b, "b")
    if method in _BY_PLACE:
        left, right = _placed(left, right)
    elif right is not left:
        right = aligned(left, right, ("`a`", "`b`"))
    one = _stack(left, "a")
    other = None if right is left else _stack(right, "b")
    m = one.shape[1]
    if other is not None and other.shape[1] != m:
        msg = (
            "Expected `a` and `b` to have the same pairs of examples, but got "
            f"{m} and {other.shape[1]} pairs."
        )
        raise ValueError(msg)
    values, dropped = similarities(one, other, method)
    if dropped:
        warnings.warn(_dropped(dropped, m), stacklevel=2)
    if np.isnan(values).any():
        warnings.warn(_flat(method), stacklevel=2)
    if left.ndim == right.ndim == 1:
        return float(values[0, 0])
    if not any(
        isinstance(part, xr.DataArray) and part.ndim > 1 for part in (left, right)
    ):
        return values
    table = crossed(values, as_rdms(left), as_rdms(right), "compare_rdms")
    return table.assign_attrs(made_by(measure="compare_rdms", method=method))


def _placed(
    left: xr.DataArray | np.ndarray, right: xr.DataArray | np.ndarray
) -> tuple[xr.DataArray | np.ndarray, xr.DataArray | np.ndarray]:
    """Return both sides with their pairs in scipy's order."""
    first, second = (
        in_order(part, name) if isinstance(part, xr.DataArray) else part
        for part, name in ((left, "a"), (right, "b"))
    )
    if right is left:
        return first, first
    known = [alignment.ids(part, "pair") is not None for part in (left, right)]
    if all(known):
        return first, aligned(first, right, ("`a`", "`b`"))
    if first is not left or second is not right:
        msg = (
            "Expected pairs in scipy's order or ids on both sides for this method, but "
            "got another order on one and no ids on the other; bring them to one order "
            "first."
        )
        raise ValueError(msg)
    return left, right


def similarities(
    a: np.ndarray,
    b: np.ndarray | None,
    method: str,
    device: str | torch.device = "cpu",
) -> tuple[np.ndarray, int]:
    """Return all similarities of two stacks, and the most pairs left out of one.

    Parameters
    ----------
    a, b : ndarray, shape (k, pair)
        Condensed RDMs without infinities; `b=None` compares `a` with itself.
    method : str
        One of `METHODS`.
    device : str or torch.device
        Where the products are computed.

    Returns
    -------
    ndarray of float64, shape (k_a, k_b)
        Similarities.
    int
        The largest number of NaN pairs left out of a comparison.
    """
    groups_a, groups_b = list(_groups(a)), None if b is None else list(_groups(b))
    if len(groups_a) == 1 and groups_b is None and groups_a[0][1] is None:
        return _complete(a, None, method, None, device), 0
    out = np.empty((len(a), len(a if b is None else b)))
    dropped = 0
    for rows_a, gone_a in groups_a:
        for rows_b, gone_b in groups_a if groups_b is None else groups_b:
            gone = [g for g in (gone_a, gone_b) if g is not None]
            keep = ~np.logical_or.reduce(gone) if gone else None
            if keep is not None:
                dropped = max(dropped, int(np.count_nonzero(~keep)))
            left = _part(a, rows_a, keep)
            right = _part(a if b is None else b, rows_b, keep)
            same = b is None and rows_a is rows_b
            out[np.ix_(rows_a, rows_b)] = _complete(
                left, None if same else right, method, keep, device
            )
    return out, dropped


def _part(stack: np.ndarray, rows: np.ndarray, keep: np.ndarray | None) -> np.ndarray:
    chosen = stack if len(rows) == len(stack) else stack[rows]
    return chosen if keep is None else chosen[:, keep]


def _groups(
    stack: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield rows that miss the same pairs, and which pairs these are."""
    groups: dict[bytes, tuple[list[int], np.ndarray | None]] = {}
    for k, row in enumerate(stack):
        gone = np.isnan(row) if np.isnan(row.min()) else None
        key = b"" if gone is None else np.packbits(gone).tobytes()
        groups.setdefault(key, ([], gone))[0].append(k)
    for rows, gone in groups.values():
        yield np.array(rows), gone


def _complete(
    a: np.ndarray,
    b: np.ndarray | None,
    method: str,
    keep: np.ndarray | None,
    device: str | torch.device,
) -> np.ndarray:
    """Compare stacks without NaN; `keep` says which pairs of the RDMs these are."""
    if a.shape[1] < LEAST:
        return np.full((len(a), len(a if b is None else b)), np.nan)
    if method in ("kendall", "tau-a"):
        return _kendall(a, b, method)
    if method in ("spearman", "rho-a"):
        return _ranks(a, b, method, device)
    if method in ("bures", "riemannian"):
        if keep is not None or n_examples(a.shape[1]) is None:
            msg = (
                f"Expected all n (n - 1) / 2 pairs of n examples for {method!r}, but "
                f"got {a.shape[1]}; leave out the examples that miss some."
            )
            raise ValueError(msg)
        return (bures if method == "bures" else riemannian)(a, b)
    centred = method.endswith("pearson")
    left = RdmStack.of(a, centred)
    right = left if b is None else RdmStack.of(b, centred)
    if method.startswith("whitened"):
        return whitened(left, right, keep, device)
    return _normalised(left, right, device)


def _normalised(
    left: RdmStack, right: RdmStack, device: str | torch.device
) -> np.ndarray:
    values, squares_a, squares_b = inner(left, right, device)
    values /= np.sqrt(squares_a)[:, None]
    values /= np.sqrt(squares_b)[None, :]
    return exact_ones(np.clip(values, -1, 1), left, right)


def _ranks(
    a: np.ndarray, b: np.ndarray | None, method: str, device: str | torch.device
) -> np.ndarray:
    m = a.shape[1]
    left = RdmStack.ranked([doubled(row) for row in a])
    right = left if b is None else RdmStack.ranked([doubled(row) for row in b])
    if method == "rho-a":
        # Doubled ranks: a factor of four.
        values = inner(left, right, device)[0] * (3 / (float(m) ** 3 - m))
        return exact_ones(values, left, right)
    return _normalised(left, right, device)


def _kendall(a: np.ndarray, b: np.ndarray | None, method: str) -> np.ndarray:
    left = [ranked(row) for row in a]
    right = left if b is None else [ranked(row) for row in b]
    pairs = a.shape[1] * (a.shape[1] - 1) // 2
    out = np.empty((len(left), len(right)))
    for i, x in enumerate(left):
        for j, y in enumerate(right):
            if b is None and j < i:
                out[i, j] = out[j, i]
                continue
            score = pairs - x.ties if x is y else excess(x, y)
            out[i, j] = _tau(score, pairs, x.ties, y.ties, method)
    return out


def _tau(score: int, pairs: int, ties_x: int, ties_y: int, method: str) -> float:
    if method == "tau-a":
        return score / pairs
    untied = (pairs - ties_x, pairs - ties_y)
    if 0 in untied:
        return float("nan")
    if untied[0] == untied[1]:
        return score / untied[0]
    # As scipy divides: one root after the other, for numbers beyond 2^53.
    return float(score / np.sqrt(untied[0]) / np.sqrt(untied[1]))


def _stack(rdms: xr.DataArray | np.ndarray, name: str) -> np.ndarray:
    """Return RDMs as a stack of floats, (k, pair)."""
    if isinstance(rdms, xr.DataArray):
        rdms = rdms.values.reshape(-1, rdms.shape[-1])
    if rdms.ndim not in (1, 2):
        msg = (
            f"Expected `{name}` to have shape (pair,) or (k, pair), but got "
            f"{rdms.shape}; stack further dims first."
        )
        raise ValueError(msg)
    if rdms.shape[-1] < LEAST:
        msg = (
            f"Expected `{name}` to hold the pairs of at least three examples, but got "
            f"{rdms.shape[-1]} pairs."
        )
        raise ValueError(msg)
    if np.isinf(rdms).any():
        msg = f"Expected `{name}` to be finite or NaN, but got infinite distances."
        raise ValueError(msg)
    if rdms.dtype not in (np.float32, np.float64):
        rdms = rdms.astype(np.float64)
    return np.atleast_2d(rdms)


def _dropped(count: int, m: int) -> str:
    return (
        f"{count} of {m} pairs are NaN in one of the RDMs and were left out of their "
        "comparison."
    )


def _flat(method: str) -> str:
    if method == "riemannian":
        return (
            "An RDM of n examples spans fewer than n - 1 dimensions, so that it has no "
            "riemannian similarity with any other: its values are NaN."
        )
    zero = method.endswith("cosine") or method == "bures"
    kind = "zero" if zero else "constant"
    return (
        f"An RDM is {kind} or has fewer than three pairs left, so that it has no "
        f"{method} similarity with any other: its values are NaN."
    )
