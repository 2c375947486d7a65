r"""Where two rules' networks stand, and how much they vary: two findings, two tests.

A similarity that is an inner product (CKA, RSA, mutual neighbours) sees each network
as a vector. Two rules can differ in the mean vector (place) or in how far networks
stray from it (spread), and the plain difference of within and between reacts to both:
noise shortens the mean of normalised vectors, so the mean of a looser rule is shorter
though it points the same way.
"""

from dataclasses import dataclass

import numpy as np

from repsim.inference.designs import Design
from repsim.inference.jackknife import Estimates, pairs_across, pairs_within

FLOOR = 0.01
"""Share of a network's similarity with itself below which a mean has no direction."""
SLACK = 1e-9
TINY = 1e-300


@dataclass(frozen=True)
class PlaceSpread:
    """One layer's numbers, and both statistics for every assignment of names."""

    numbers: dict[str, float]
    place: np.ndarray
    spread: np.ndarray


def place_spread(
    values: np.ndarray,
    plan: Design,
    assignments: np.ndarray,
    *,
    similarity: bool,
    inner: bool,
) -> PlaceSpread:
    """Return both contrasts of a symmetric (network, network) matrix, with p-values."""
    apart, is_b = plan.apart, plan.is_b
    inside = np.triu(apart, 1)
    sides = {
        "within": inside & (is_b[:, None] == is_b[None]),
        "within_a": inside & np.outer(~is_b, ~is_b),
        "within_b": inside & np.outer(is_b, is_b),
        "between": inside & (is_b[:, None] != is_b[None]),
    }
    numbers = {
        k: float(values[m].mean()) if m.any() else np.nan for k, m in sides.items()
    }
    sign = 1.0 if similarity else -1.0
    numbers["difference"] = sign * _difference(values, apart, is_b)
    numbers["deviation"] = _deviation(values, sides)
    numbers["effect"] = numbers["difference"] / (numbers["deviation"] or np.nan)
    # Distances are read as those of points: their squares are differences of vectors.
    vectors = values if similarity else -(values**2) / 2
    numbers["place"] = _between_directions(numbers) if similarity and inner else np.nan
    place = _place(vectors, apart, assignments, inner=similarity and inner)
    spread, numbers["spread_ratio"] = _spread(vectors, apart, assignments)
    numbers["p_value"], numbers["spread_p_value"] = _tail(place), _tail(spread)
    return PlaceSpread(numbers, place, spread)


def without_each(values: np.ndarray, plan: Design, *, similarity: bool) -> Estimates:
    """Return the difference, and without each network.

    The jackknife counts what pairs of networks add twice, and that is left so: taken
    off, low differences have narrow intervals, of which too few cover where networks
    differ in few directions (`weighing` in tests/benchmarks/populations.py). Where
    rules do not differ, intervals are up to 1.4 times too wide.
    """
    sign = 1.0 if similarity else -1.0
    a, b = np.flatnonzero(~plan.is_b), np.flatnonzero(plan.is_b)
    apart = plan.apart
    whole = np.array([sign * _difference(values, apart, plan.is_b)])
    if min(len(a), len(b)) < 3:
        nothing = np.full((len(a) + len(b), 1), np.nan)
        return Estimates(whole, nothing, None, (len(a), len(b)))
    without = []
    for i in [*a, *b]:
        rest = np.delete(np.arange(len(values)), i)
        part = np.ix_(rest, rest)
        without.append([sign * _difference(values[part], apart[part], plan.is_b[rest])])
    return Estimates(whole, np.array(without), None, (len(a), len(b)))


def noise_of_vectors(
    values: np.ndarray, plan: Design
) -> tuple[float, float, float] | None:
    """Return squared distance of the rules' means, variance, number of directions.

    Of vectors scaled as `place_spread` scales them; None where there is no number.
    """
    if not np.isfinite(values[plan.apart]).all():
        return None
    length = _lengths(values, plan.apart, plan.is_b, np.diag(values))
    vectors = values / np.outer(length, length)
    groups = np.flatnonzero(~plan.is_b), np.flatnonzero(plan.is_b)
    a, b, between = _means(vectors, plan.apart, plan.is_b[None])
    own = np.mean([np.diag(vectors)[k].mean() for k in groups])
    variance = float(own - (a[0] + b[0]) / 2)
    # Products of two networks' own noise: their mean square is the squared size of
    # the covariance, whatever its shape.
    within = sum(
        pairs_within(vectors[np.ix_(k, k)]) * len(k) * (len(k) - 1) / 2 for k in groups
    )
    across = pairs_across(vectors[np.ix_(*groups)]) * len(groups[0]) * len(groups[1])
    squared = float(within + 2 * across) / 4
    if not (variance > 0 and squared > 0):
        return None
    distance = float(a[0] + b[0] - 2 * between[0])
    return distance, variance, max(variance**2 / squared, 1.0)


def _difference(values: np.ndarray, apart: np.ndarray, is_b: np.ndarray) -> float:
    """Return (within a + within b) / 2 - between, over the pairs that count."""
    a, b, between = _means(values, apart, is_b[None])
    return float(_middle(a, b)[0] - between[0])


def _middle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the mean of both, or the one of them that there is."""
    a, b = np.where(np.isfinite(a), a, b), np.where(np.isfinite(b), b, a)
    return np.asarray((a + b) / 2)


def _means(
    values: np.ndarray, apart: np.ndarray, assignments: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the means over pairs within a, within b and between, per assignment."""
    b = assignments.astype(np.float64)
    a = 1 - b
    sums = []
    for matrix in (np.where(apart, values, 0.0), apart.astype(np.float64)):
        of_a, of_b = a @ matrix, b @ matrix
        sums.append([(x * y).sum(1) for x, y in ((of_a, a), (of_b, b), (of_b, a))])
    with np.errstate(invalid="ignore", divide="ignore"):
        within_a, within_b, between = (x / y for x, y in zip(*sums, strict=True))
    return within_a, within_b, between


def _between_directions(numbers: dict[str, float]) -> float:
    """Return one minus the similarity of the rules' means, the seeds' noise taken off.

    The correction for attenuation of Spearman 1904: NaN where seeds share nothing.
    """
    product = numbers["within_a"] * numbers["within_b"]
    if not (numbers["within_a"] > 0 and product > 0):
        return np.nan
    return 1 - numbers["between"] / float(np.sqrt(product))


def _place(
    vectors: np.ndarray, apart: np.ndarray, assignments: np.ndarray, *, inner: bool
) -> np.ndarray:
    """Return the squared distance of both means over what noise makes of it.

    The Welch form of Alekseyenko 2016: permuting names tests equal means also where
    spreads and numbers of networks differ. Each rule's vectors are first divided by
    the length of their mean, else a looser rule would have another mean for being
    looser.
    """
    own = np.diag(vectors).copy()
    if inner:
        length = _lengths(vectors, apart, assignments[0], own)
        vectors = vectors / np.outer(length, length)
        own = own / length**2
    a, b, between = _means(vectors, apart, assignments)
    b_of = assignments.astype(np.float64)
    count_b = b_of.sum(1)
    count_a = len(own) - count_b
    own_b = b_of @ own
    noise_a = (own.sum() - own_b) / count_a - a
    noise_b = own_b / count_b - b
    # A single network's own noise is unknown: the other rule's stands in.
    noise_a = np.where(np.isfinite(noise_a), noise_a, noise_b)
    noise_b = np.where(np.isfinite(noise_b), noise_b, noise_a)
    noise = noise_a / count_a + noise_b / count_b
    least = 1e-12 * max(float(np.abs(own).max()), float(np.abs(vectors).max()), TINY)
    return np.asarray((_middle(a, b) - between) / np.maximum(noise, least))


def _lengths(
    vectors: np.ndarray, apart: np.ndarray, is_b: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """Return for each network the length of its rule's mean vector."""
    a, b, _ = _means(vectors, apart, is_b[None])
    squares = np.where(is_b, b[0], a[0])
    squares = np.where(np.isfinite(squares), squares, _middle(a, b)[0])
    return np.asarray(
        np.sqrt(np.maximum(squares, max(FLOOR * float(own.mean()), TINY)))
    )


def _spread(
    vectors: np.ndarray, apart: np.ndarray, assignments: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return |log ratio of mean squared distances within|, and the observed ratio.

    PERMDISP (Anderson 2006) with distances that have the rules' means taken out, so
    that they are alike within and across rules; its own, from each network to its
    centroid, are too small by what the centroid follows them (rejecting 8 to 12 %).
    """
    is_b = assignments[0]
    if min(is_b.sum(), (~is_b).sum()) < 2:
        return np.full(len(assignments), np.nan), np.nan
    centred = np.eye(len(is_b))
    for group in (np.flatnonzero(~is_b), np.flatnonzero(is_b)):
        centred[np.ix_(group, group)] -= 1 / len(group)
        centred[group] *= np.sqrt(len(group) / (len(group) - 1))
    residual = centred @ vectors @ centred.T
    same = is_b[:, None] == is_b
    squares = np.where(same, _squares(vectors), _squares(residual))
    a, b, _ = _means(squares, apart, assignments)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(np.maximum(b, TINY)) - np.log(np.maximum(a, TINY))
    return np.abs(ratio), float(np.exp(ratio[0] / 2))


def _squares(vectors: np.ndarray) -> np.ndarray:
    """Return squared distances from inner products."""
    own = np.diag(vectors)
    return np.asarray(own[:, None] + own - 2 * vectors)


def _tail(statistic: np.ndarray) -> float:
    """Return the share of assignments that do as much as the first."""
    return float(tails(statistic[None, :])[0, 0]) if len(statistic) else np.nan


def tails(statistics: np.ndarray) -> np.ndarray:
    """Return for every assignment the share of all that do as much, row by row."""
    out = np.full(statistics.shape, np.nan)
    for row, shares in zip(statistics, out, strict=True):
        if np.isfinite(row).all():
            slack = SLACK * max(1.0, abs(float(row[0])))
            ordered = np.sort(row)
            below = np.searchsorted(ordered, row - slack, side="left")
            shares[:] = (len(row) - below) / len(row)
    return out


def combined(logs: np.ndarray) -> float:
    """Return the p of Fisher's combination, (assignment,) sums of -log p over tests.

    All tests share the assignments, so the combination's own permutation law holds
    whatever their dependence (Pesarin & Salmaso 2010).
    """
    return _tail(logs) if logs.size else np.nan


def _deviation(values: np.ndarray, sides: dict[str, np.ndarray]) -> float:
    """Return the standard deviation of pairs within a rule, pooled over the rules."""
    deviations = [
        values[mask] - values[mask].mean()
        for mask in (sides["within_a"], sides["within_b"])
        if mask.sum() > 1
    ]
    if not deviations:
        return np.nan
    free = sum(len(d) - 1 for d in deviations)
    return float(np.sqrt(sum(float(d @ d) for d in deviations) / free))
