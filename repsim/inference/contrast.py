"""Pairs of networks of one rule against pairs of two rules, with a p-value."""

import numpy as np

from repsim.inference.designs import Design


def contrast(
    values: np.ndarray, plan: Design, assignments: np.ndarray, sign: float
) -> dict[str, float]:
    """Return within against between, and how often chance does as much."""
    apart, is_b = plan.apart, plan.is_b
    inside = np.triu(apart, 1)
    sides = {
        "within": inside & (is_b[:, None] == is_b[None]),
        "within_a": inside & np.outer(~is_b, ~is_b),
        "within_b": inside & np.outer(is_b, is_b),
        "between": inside & (is_b[:, None] != is_b[None]),
    }
    found = {
        k: float(values[m].mean()) if m.any() else np.nan for k, m in sides.items()
    }
    found["difference"] = sign * (found["within"] - found["between"])
    found["spread"] = _spread(values, sides)
    found["effect"] = found["difference"] / (found["spread"] or np.nan)
    found["p_value"] = _p_value(sign * values, apart, assignments)
    return found


def _spread(values: np.ndarray, sides: dict[str, np.ndarray]) -> float:
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


def _p_value(
    similarity: np.ndarray, apart: np.ndarray, assignments: np.ndarray
) -> float:
    """Return the share of assignments with at least the first one's statistic."""
    counted = np.where(apart, similarity, 0.0)
    if not np.isfinite(counted).all():
        return np.nan
    b = assignments.astype(np.float64)
    weights = apart.astype(np.float64)

    def across(matrix: np.ndarray) -> np.ndarray:
        return np.asarray(((b @ matrix) * (1 - b)).sum(1))

    between_sum, between_count = across(counted), across(weights)
    within_sum = counted.sum() / 2 - between_sum
    within_count = weights.sum() / 2 - between_count
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = within_sum / within_count - between_sum / between_count
    if not np.isfinite(statistic[0]):
        return np.nan
    slack = 1e-12 * max(1.0, float(np.abs(counted).max()))
    return float(np.mean(~(statistic < statistic[0] - slack)))
