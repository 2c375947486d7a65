r"""RSA's influence of each pair of examples, and from it the spread of the estimate.

A correlation of two RDMs is a function of means over pairs of examples, so its
deviation is, to first order, the mean of one number per pair. For Pearson's
correlation of standardised entries :math:`a, b` that number is
:math:`ab - r(a^2 + b^2)/2`; for Spearman's, whose ranks are themselves means over
pairs, it is :math:`ab + A(a) + B(b)` with :math:`A(t) = E[b\,1(a > t)]` up to scale.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim.inference.jackknife import Estimates, pair_variance
from repsim.measures.dissimilarity import rdm
from repsim.measures.magnitudes import array_near_one

LEAST = 6
METRICS = ("correlation", "cosine", "euclidean", "sqeuclidean", "cityblock")
"""Distances of two examples that do not depend on the others."""


def leave_one_out(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    *,
    metric: Any = "correlation",
    method: str = "spearman",
    which: np.ndarray | None = None,
) -> Estimates:
    """Return RSA of every x with every y, whole and without each example.

    Pairs that an example without a direction leaves undefined do not count, as in
    `repsim.rsa`. With `which`, the group of each example, only pairs of different
    groups count, and each group is left out.
    """
    n = len(xs[0])
    if n < LEAST:
        msg = f"Expected at least {LEAST} examples for an interval, but got {n}."
        raise ValueError(msg)
    with warnings.catch_warnings():
        # `compare` has said which examples have no distance.
        warnings.simplefilter("ignore", UserWarning)
        left, right = (
            [rdm(array_near_one(x)[0], metric=metric) for x in side]
            for side in (xs, ys)
        )
    return influences(left, right, method=method, n=n, which=which)


def influences(
    left: Sequence[np.ndarray],
    right: Sequence[np.ndarray],
    *,
    method: str,
    n: int,
    which: np.ndarray | None = None,
) -> Estimates:
    """Return `leave_one_out` of condensed RDMs."""
    units = Units.of(n, which)
    prepare, influence = METHODS[method]
    cache: dict[tuple[str, int, bytes], Any] = {}

    def prepared(side: str, k: int, entries: np.ndarray, keep: np.ndarray) -> Any:
        key = side, k, b"" if keep.all() else np.packbits(keep).tobytes()
        if key not in cache:
            cache[key] = prepare(entries if keep.all() else entries[keep])
        return cache[key]

    shape = (len(left), len(right))
    value, pairs = np.empty(shape), np.empty(shape)
    without = np.empty((units.count, *shape))
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            keep = units.apart & np.isfinite(a) & np.isfinite(b)
            value[i, j], each = influence(
                prepared("a", i, a, keep), prepared("b", j, b, keep)
            )
            without[:, i, j], pairs[i, j] = units.left_out(value[i, j], each, keep)
    return Estimates(value, without, pairs, shares=units.shares)


@dataclass(frozen=True)
class Units:
    """What is left out in turn: examples, or groups of them, by their pairs."""

    first: np.ndarray
    second: np.ndarray
    count: int
    apart: np.ndarray
    shares: np.ndarray | None

    @classmethod
    def of(cls, n: int, which: np.ndarray | None) -> "Units":
        """Return the unit of both examples of every pair, in scipy's order."""
        first, second = np.triu_indices(n, 1)
        if which is None:
            return cls(first, second, n, np.ones(len(first), dtype=bool), None)
        kinds, unit = np.unique(which, return_inverse=True)
        first, second = unit[first], unit[second]
        shares = np.bincount(unit) / n
        return cls(first, second, len(kinds), first != second, shares)

    def left_out(
        self, value: float, each: np.ndarray, keep: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Return the value without each unit, and the variance due to pairs."""
        whole = bool(keep.all())
        first, second = (
            side if whole else side[keep] for side in (self.first, self.second)
        )
        sums, counts = (
            np.bincount(first, w, self.count) + np.bincount(second, w, self.count)
            for w in (each, None)
        )
        many = len(each)
        # The mean over pairs without unit i, of a mean that is zero.
        without = value - sums / np.maximum(many - counts, 1)
        if self.shares is not None:
            cells = first * self.count + second
            blocks = np.bincount(cells, each, self.count**2)
            blocks = blocks.reshape(self.count, self.count)
            blocks = blocks + blocks.T
            squares = float((blocks**2).sum())
        else:
            squares = 2 * float(each @ each)
        size = self.count * (self.count - 1) / 2 / max(many, 1)
        variance = pair_variance(
            np.asarray(float(sums @ sums) * size**2),
            np.asarray(squares * size**2),
            self.count,
        )
        return without, float(variance)


class Ranked:
    """An RDM's entries as centred ranks, with their groups of ties."""

    def __init__(self, entries: np.ndarray) -> None:
        size = len(entries)
        order = np.argsort(entries)
        ordered = entries[order]
        self.untied = bool(np.all(ordered[1:] > ordered[:-1]))
        self.order = order
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        ends = np.append(np.flatnonzero(new), size)
        group = np.cumsum(new) - 1
        middle = (ends[1:] + ends[:-1] - size) / (2 * size)
        self.group = np.empty(size, dtype=np.intp)
        self.group[order] = group
        self.values = middle[self.group]
        if np.isnan(ordered[-1]):
            self.values = np.full(size, np.nan)
        self.spread = float(self.values.std()) if size else 0.0

    def above(self, other: np.ndarray) -> np.ndarray:
        """Return, for each entry, the mean of `other` where entries are larger.

        Entries that tie count by half, as their mid-ranks do.
        """
        if self.untied:
            # One pass in their order, where counting groups takes two.
            along = other[self.order]
            means = np.empty(len(other))
            means[self.order] = (along[::-1].cumsum()[::-1] - along / 2) / len(other)
            return means
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
    entries, _ = array_near_one(entries)
    centred = entries - entries.mean()
    return _unit(centred)


def _unit(entries: np.ndarray) -> np.ndarray:
    entries, _ = array_near_one(entries)
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
