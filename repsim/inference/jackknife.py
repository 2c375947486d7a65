r"""From leave-one-out values to a standard error, degrees of freedom and an interval.

An estimate made of pairs of examples is, to second order, a sum over examples plus a
sum over pairs. The jackknife counts the variance of the second sum twice, which
matters where units outnumber examples or representations are unrelated: there that
sum is all there is. So its own estimate is taken off once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

EDGE = 1e-12
"""How near to a bound, as a share of the range, an estimate may come."""

NARROWEST = 1e-9
WIDTH = 3.5
"""Standard errors of an unrelated pair within which a grouped scale is straight."""


@dataclass(frozen=True)
class Transform:
    """An increasing map of a measure's range onto the real line, and back."""

    forward: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]


def scale(bounds: tuple[float, float] | None) -> Transform:
    r"""Return the map for a measure with these bounds.

    With two bounds :math:`z = \tfrac12\log\frac{x - lo}{hi - x}`, which is Fisher's
    z = artanh x for (−1, 1); with one, the logarithm of the distance to it; with
    none, the identity. Intervals made there never leave the bounds.
    """
    low, high = bounds or (-np.inf, np.inf)
    if np.isfinite(low) and np.isfinite(high):
        return _between(low, high)
    if np.isfinite(low):
        return _above(low, 1.0)
    if np.isfinite(high):
        return _above(high, -1.0)
    return Transform(lambda x: x, lambda z: z, np.ones_like)


def _between(low: float, high: float) -> Transform:
    width = high - low

    def inside(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(x, low + EDGE * width, high - EDGE * width))

    def forward(x: np.ndarray) -> np.ndarray:
        x = inside(x)
        return np.asarray(0.5 * (np.log(x - low) - np.log(high - x)))

    def inverse(z: np.ndarray) -> np.ndarray:
        return np.asarray(low + width * 0.5 * (1 + np.tanh(z)))

    def slope(x: np.ndarray) -> np.ndarray:
        x = inside(x)
        return np.asarray(0.5 * width / ((x - low) * (high - x)))

    return Transform(forward, inverse, slope)


def _above(bound: float, sign: float) -> Transform:
    def distance(x: np.ndarray) -> np.ndarray:
        return np.maximum(sign * (x - bound), EDGE)

    return Transform(
        lambda x: sign * np.log(distance(x)),
        lambda z: bound + sign * np.exp(sign * z),
        lambda x: 1 / distance(x),
    )


def stretched(inner: Transform, width: np.ndarray) -> Transform:
    """Return a scale that is `inner` near 0 and its logarithm beyond `width`, a cell.

    The arcsinh: a value whose variance is a + b value² has a constant variance there.
    """
    width = np.maximum(width, NARROWEST)

    def slope(x: np.ndarray) -> np.ndarray:
        return np.asarray(inner.slope(x) / np.hypot(inner.forward(x), width))

    return Transform(
        lambda x: np.arcsinh(inner.forward(x) / width),
        lambda z: inner.inverse(width * np.sinh(z)),
        slope,
    )


@dataclass(frozen=True)
class Estimates:
    """Values of many cells, and what they would be without each example or group."""

    value: np.ndarray
    without: np.ndarray
    pairs: np.ndarray | None = None
    samples: tuple[int, ...] = ()
    shares: np.ndarray | None = None
    """Share of the examples that each group holds; None where they are alike."""

    def corrected(self, bounds: tuple[float, float] | None) -> "Estimates":
        """Return the values with the jackknife's estimate of their bias taken off."""
        bias = _jackknife(self, scale(None))[2]
        low, high = bounds or (-np.inf, np.inf)
        return replace(
            self,
            value=np.clip(self.value - bias, low, high),
            without=self.without - bias,
        )


@dataclass(frozen=True)
class Interval:
    """An interval and what it is made of, in the measure's units."""

    low: np.ndarray
    high: np.ndarray
    standard_error: np.ndarray
    bias: np.ndarray
    freedom: np.ndarray


def interval(found: Estimates, scale: Transform, level: float) -> Interval:
    r"""Return the jackknife interval on a scale.

    .. math:: v = \frac{g-1}{g} \sum_i (z_{-i} - \bar z)^2 - v_{pairs},
              \qquad v \ge v_{jackknife} / 2

    with t quantiles whose degrees of freedom follow from the kurtosis of the
    :math:`z_{-i}` (a variance estimated from heavy-tailed values is itself uncertain).
    """
    center = scale.forward(found.value)
    slope = scale.slope(found.value)
    jackknife, freedom, bias = _jackknife(found, scale)
    variance = jackknife
    if found.pairs is not None:
        variance = np.maximum(jackknife - found.pairs * slope**2, jackknife / 2)
    reach = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)
    missing = np.isnan(found.value) | np.isnan(reach)
    ends = [
        np.where(missing, np.nan, side(end, found.value))
        for side, end in (
            (np.fmin, scale.inverse(center - reach)),
            (np.fmax, scale.inverse(center + reach)),
        )
    ]
    return Interval(ends[0], ends[1], np.sqrt(variance) / np.abs(slope), bias, freedom)


def grouped_interval(found: Estimates, scale: Transform, level: float) -> Interval:
    """Return the interval of a value from pairs of examples of different groups.

    Twenty groups are few, and where many examples a group make the norms certain, the
    value is a product whose spread grows with it: on Fisher's scale low estimates have
    narrow intervals, and 86 to 93 % cover. So the scale is stretched by the value's
    own noise; and half of what pairs add is kept, since its estimate is as uncertain.
    `tests/benchmarks/calibration.py data` is where both were chosen and are judged.
    """
    if found.pairs is None:
        return interval(found, scale, level)
    noise = np.sqrt(np.maximum(found.pairs, 0.0)) * scale.slope(found.value)
    half = replace(found, pairs=found.pairs / 2)
    return interval(half, stretched(scale, WIDTH * noise), level)


def _jackknife(
    found: Estimates, scale: Transform
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return variance and degrees of freedom on the scale, and bias off it."""
    ends = np.cumsum(found.samples or (len(found.without),))
    variances, freedoms, bias = [], [], np.zeros(found.value.shape)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        part = found.without[start:end]
        count = len(part)
        z = scale.forward(part)
        if found.shares is None:
            # Of a single network nothing is known about its spread.
            deviation = z - z.mean(0) if count > 1 else np.full_like(z, np.nan)
            variances.append((count - 1) / count * (deviation**2).sum(0))
            bias += (count - 1) * (part.mean(0) - found.value)
        else:
            # Groups of unlike sizes: Busing et al. 1999, the delete-m jackknife.
            share = found.shares.reshape(-1, *[1] * found.value.ndim)
            pseudo = (scale.forward(found.value) - (1 - share) * z) / share
            middle = pseudo - (share * pseudo).sum(0)
            deviation = middle * np.sqrt(share / (1 - share) / count)
            variances.append((deviation**2).sum(0))
            bias += ((1 - share) * (part - found.value)).sum(0)
        freedoms.append(_freedom(deviation))
    total = np.asarray(sum(variances))
    if len(variances) == 1:
        return total, freedoms[0], bias
    each = sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = total**2 / each
    return total, np.where(np.isfinite(joint), joint, np.min(freedoms, axis=0)), bias


def _freedom(deviation: np.ndarray) -> np.ndarray:
    """Return Satterthwaite degrees of freedom of the variance of some values."""
    count = len(deviation)
    if count < 2:
        return np.full(deviation.shape[1:], np.nan)
    second = (deviation**2).mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = (deviation**4).mean(0) / second**2 - 3
    excess = np.where(np.isfinite(excess), np.maximum(excess, 0.0), 0.0)
    return np.asarray(2 / (excess / count + 2 / (count - 1)))


def pair_variance(row_squares: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    r"""Return the variance that pairs add to that of single examples.

    For the mean of a symmetric kernel g over pairs, with mean zero,

    .. math:: \frac{2(\zeta_2 - 2\zeta_1)}{n(n-1)}, \quad
              \zeta_1 = E[g_{12} g_{13}], \quad \zeta_2 = E[g_{12}^2]
    """
    first = np.maximum((row_squares - squares) / (n * (n - 1) * (n - 2)), 0.0)
    second = squares / (n * (n - 1))
    return np.asarray(2 * np.maximum(second - 2 * first, 0.0) / (n * (n - 1)))


def pairs_across(values: np.ndarray) -> np.ndarray:
    """Return the variance that pairs add to the mean of values, (a, b, …) a pair.

    What is left of a table once its rows and columns have told, over its freedom.
    """
    p, q = values.shape[:2]
    if min(p, q) < 2:
        return np.zeros(values.shape[2:])
    rows, columns = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    rest = values - rows - columns + rows.mean(0, keepdims=True)
    return np.asarray((rest**2).sum((0, 1)) / ((p - 1) * (q - 1) * p * q))


def pairs_within(values: np.ndarray) -> np.ndarray:
    """Return the same of the mean over pairs of one kind, (a, a, …), none with itself.

    The table is U-centred: off its diagonal rows and columns add up to zero.
    """
    n = len(values)
    if n < 4:
        return np.zeros(values.shape[2:])
    same = np.eye(n, dtype=bool).reshape(n, n, *[1] * (values.ndim - 2))
    off = np.where(same, 0.0, values)
    sums = off.sum(0)
    total = sums.sum(0) / ((n - 1) * (n - 2))
    rest = np.where(same, 0.0, off - (sums[:, None] + sums) / (n - 2) + total)
    return np.asarray((rest**2).sum((0, 1)) / (n * (n - 3)) * 2 / (n * (n - 1)))
