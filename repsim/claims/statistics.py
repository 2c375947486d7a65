"""Spread over seeds, for claims that compare conditions."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student


def lower_bound(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> float:
    r"""Return the lower end of Welch's interval of mean(a) − mean(b).

    One-sided: the difference lies above it with the given confidence. Networks are
    the units, and two conditions have different ones, so values are not paired.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(first) < 2 or len(second) < 2:
        return float("nan")
    parts = [v.var(ddof=1) / len(v) for v in (first, second)]
    difference = float(first.mean() - second.mean())
    error = sum(parts)
    if not error > 0:
        return difference if error == 0 else float("nan")
    freedom = error**2 / sum(
        part**2 / (len(v) - 1) for part, v in zip(parts, (first, second), strict=True)
    )
    return float(difference - student.ppf(level, freedom) * error**0.5)
