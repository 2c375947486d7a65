r"""RSA's influence of each pair of examples, and from it the spread of the estimate.

A correlation of two RDMs is a function of means over pairs of examples, so its
deviation is, to first order, the mean of one number per pair. For Pearson's
correlation of standardised entries :math:`a, b` that number is
:math:`ab - r(a^2 + b^2)/2`; for Spearman's, whose ranks are themselves means over
pairs, it is :math:`ab + A(a) + B(b)` with :math:`A(t) = E[b\,1(a > t)]` up to scale.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repsim.inference.jackknife import Estimates, pair_variance
from repsim.measures.dissimilarity import rdm

LEAST = 6
METRICS = ("correlation", "cosine", "euclidean", "sqeuclidean", "cityblock")
"""Distances of two examples that do not depend on the others."""


def leave_one_out(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    *,
    metric: Any = "correlation",
    method: str = "spearman",
) -> Estimates:
    """Return RSA of every x with every y, whole and without each example."""
    n = len(xs[0])
    if n < LEAST:
        msg = f"Expected at least {LEAST} examples for an interval, but got {n}."
        raise ValueError(msg)
    rows, columns = np.triu_indices(n, 1)
    prepare, influence = METHODS[method]
    left = [prepare(rdm(x, metric=metric)) for x in xs]
    right = [prepare(rdm(y, metric=metric)) for y in ys]
    shape = (len(left), len(right))
    value, pairs = np.empty(shape), np.empty(shape)
    without = np.empty((n, *shape))
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            value[i, j], each = influence(a, b)
            sums = np.bincount(rows, each, n) + np.bincount(columns, each, n)
            pairs[i, j] = pair_variance((sums**2).sum(), 2 * (each**2).sum(), n)
            # The mean over pairs without example i, of a mean that is zero.
            without[:, i, j] = value[i, j] - sums / ((n - 1) * (n - 2) / 2)
    return Estimates(value, without, pairs)


class Ranked:
    """An RDM's entries as centred ranks, with their groups of ties."""

    def __init__(self, entries: np.ndarray) -> None:
        size = len(entries)
        order = np.argsort(entries)
        ordered = entries[order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        ends = np.append(np.flatnonzero(new), size)
        group = np.cumsum(new) - 1
        middle = (ends[1:] + ends[:-1] - size) / (2 * size)
        self.group = np.empty(size, dtype=np.intp)
        self.group[order] = group
        self.values = middle[self.group]
        if np.isnan(ordered[-1]):
            self.values = np.full(size, np.nan)
        self.spread = self.values.std()

    def above(self, other: np.ndarray) -> np.ndarray:
        """Return, for each entry, the mean of `other` where entries are larger.

        Entries that tie count by half, as their mid-ranks do.
        """
        sums = np.bincount(self.group, other)
        after = sums[::-1].cumsum()[::-1] - sums / 2
        return np.asarray(after[self.group] / len(other))


def _ranked(a: Ranked, b: Ranked) -> tuple[float, np.ndarray]:
    scale = a.spread * b.spread
    return _by_rank(a, b, scale)


def _ranked_without_ties(a: Ranked, b: Ranked) -> tuple[float, np.ndarray]:
    size = len(a.values)
    return _by_rank(a, b, (size**2 - 1) / (12 * size**2))


def _by_rank(a: Ranked, b: Ranked, scale: float) -> tuple[float, np.ndarray]:
    if not (a.spread > 0 and b.spread > 0):
        return np.nan, np.full(len(a.values), np.nan)
    product = a.values * b.values
    each = (product + a.above(b.values) + b.above(a.values)) / scale
    return float(product.mean() / scale), each - each.mean()


def _standard(entries: np.ndarray) -> np.ndarray:
    centred = entries - entries.mean()
    return _unit(centred)


def _unit(entries: np.ndarray) -> np.ndarray:
    size = np.sqrt((entries**2).mean())
    return entries / size if size > 0 else np.full_like(entries, np.nan)


def _product(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    value = float((a * b).mean())
    return value, a * b - value / 2 * (a**2 + b**2)


METHODS: dict[
    str,
    tuple[Callable[[np.ndarray], Any], Callable[[Any, Any], tuple[float, np.ndarray]]],
] = {
    "pearson": (_standard, _product),
    "cosine": (_unit, _product),
    "spearman": (Ranked, _ranked),
    "rho-a": (Ranked, _ranked_without_ties),
}
"""Comparators whose influence has a closed form."""
