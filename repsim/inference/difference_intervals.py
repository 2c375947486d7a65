"""How far a difference of two rules would move with other networks and examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from repsim.inference.designs import Design
from repsim.inference.jackknife import Estimates, interval, scale
from repsim.inference.left_out import (
    closed_form,
    label_groups,
    labels_of,
    leave_groups_out,
    random_groups,
)
from repsim.inference.place_spread import without_each
from repsim.measures.catalogue import Measure

PARTS = 40
"""Parts of the examples left out in turn, where there is no closed form."""


@dataclass(frozen=True)
class Ends:
    """An interval of the difference."""

    low: float
    high: float


@dataclass(frozen=True)
class Factors:
    """What is drawn anew besides networks: nothing, examples, or groups of them."""

    over: str | list[str]
    labels: np.ndarray | None = None

    @classmethod
    def of(cls, over: str | Sequence[str], run: xr.Dataset) -> "Factors":
        """Return them, or say what `over` should have been."""
        given = (over,) if isinstance(over, str) else tuple(over)
        if given == ("seed",):
            return cls("seed")
        if len(given) != 2 or given[1] != "seed" or given[0] == "seed":
            msg = (
                'Expected `over` to be "seed", or a pair such as ("example", "seed") '
                f"with the networks last, but got {over!r}."
            )
            raise ValueError(msg)
        labels = None if given[0] == "example" else labels_of(run, given[0])
        return cls(list(given), labels)

    def ends(
        self,
        values: np.ndarray,
        xs: list[np.ndarray],
        plan: Design,
        measure: Measure,
        options: dict[str, Any],
        level: float,
    ) -> Ends:
        """Return the interval of one layer's difference."""
        similarity = measure.larger_is_more_similar
        networks = interval(
            without_each(values, plan, similarity=similarity), scale(None), level
        )
        if self.over == "seed" or not np.isfinite(networks.standard_error).all():
            return Ends(float(networks.low[0]), float(networks.high[0]))
        found = self._without_examples(values, xs, measure, options)
        weights = _weights(plan, np.ones(len(plan.is_b), dtype=bool))
        weights = weights if similarity else -weights
        left_out = Estimates(
            _weighted(found.value[None], weights),
            _weighted(found.without, weights)[:, None],
            None,
            (),
            found.shares,
        )
        examples = interval(left_out, scale(None), level)
        both = _interaction(found.without - found.value, plan)
        parts = [float(one.standard_error[0]) ** 2 for one in (examples, networks)]
        # Each jackknife holds the interaction, which would be counted twice.
        variance = max(sum(parts) - both, *parts)
        freedom = variance**2 / sum(
            part**2 / float(one.freedom[0])
            for part, one in zip(parts, (examples, networks), strict=True)
        )
        reach = float(stats.t.ppf((1 + level) / 2, freedom)) * variance**0.5
        middle = float(left_out.value[0])
        return Ends(middle - reach, middle + reach)

    def _without_examples(
        self,
        values: np.ndarray,
        xs: list[np.ndarray],
        measure: Measure,
        options: dict[str, Any],
    ) -> Estimates:
        """Return the measure between all networks, without each example or group."""
        which, n = None, len(xs[0])
        if self.labels is None:
            groups = random_groups(n, PARTS, 0)
        else:
            groups = label_groups(self.labels, str(self.over[0]))
            which = np.unique(self.labels, return_inverse=True)[1]
        form = closed_form(measure, options, which)
        if form is not None:
            return form(xs, xs)

        def between(keep: np.ndarray) -> np.ndarray:
            return np.asarray(
                measure.all_pairs([x[keep] for x in xs], precision="float64", **options)
            )

        return leave_groups_out(between, values, n, groups)


def _weights(plan: Design, keep: np.ndarray) -> np.ndarray:
    """Return by how much each pair of networks counts in (a + b) / 2 - between."""
    b = plan.is_b
    counted = plan.apart & np.outer(keep, keep)
    within = [counted & np.outer(side, side) for side in (~b, b)]
    across = counted & (b[:, None] != b)
    means = [mask / mask.sum() for mask in within if mask.any()]
    return np.asarray(sum(means) / len(means) - across / across.sum())


def _weighted(cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return sums over pairs of networks; those that do not count may be NaN."""
    counted = weights != 0
    return np.asarray(cells[:, counted] @ weights[counted])


def _interaction(changes: np.ndarray, plan: Design) -> float:
    """Return the variance of the interaction of examples and networks."""
    total, g = 0.0, len(changes)
    for side in (~plan.is_b, plan.is_b):
        count = int(side.sum())
        inner = np.empty((g, count))
        for k, i in enumerate(np.flatnonzero(side)):
            weights = _weights(plan, np.arange(len(side)) != i)
            inner[:, k] = _weighted(changes, weights)
        inner = inner - inner.mean(0) - inner.mean(1, keepdims=True) + inner.mean()
        total += (count - 1) / count * (g - 1) / g * float((inner**2).sum())
    return total
