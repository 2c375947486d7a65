"""How far the mean over pairs of networks would move with other seeds, or also more."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from repsim.comparison.all_pairs import compare
from repsim.core.bars import progress_bar
from repsim.inference.common_steps import Layers, as_list
from repsim.inference.jackknife import (
    Estimates,
    interval,
    pairs_across,
    pairs_within,
    scale,
)
from repsim.measures.catalogue import Measure

LEAST = 3
"""Networks of a rule below which nothing can be said of others."""


def over_networks(
    a: object,
    b: object,
    measure: Measure,
    layers: Layers,
    layers_b: Layers,
    options: dict[str, Any],
    progress: bool,
) -> tuple[tuple[Estimates, xr.DataArray], str]:
    """Return the mean over pairs of networks, whole and without each network."""
    left = _networks(a, "a")
    right = left if b is None else _networks(b, "b")
    listed = as_list(layers)
    cells = compare(
        xr.DataTree.from_dict({f"a/{k}": run for k, run in left.items()}),
        xr.DataTree.from_dict({f"b/{k}": run for k, run in right.items()}),
        measure,
        layers=listed,
        layers_b=listed if layers_b is None else layers_b,
        precision="float64",
        progress=progress,
        **options,
    )
    values = cells.transpose("network_a", "network_b", ...)
    apart = _apart(left, right, same=b is None)
    template = values.isel(network_a=0, network_b=0).reset_coords(drop=True)
    estimates = _without_each(values.values, apart, same=b is None)
    count = f"{len(left)}" if b is None else f"{len(left)} + {len(right)}"
    return (estimates, template), f"jackknife over {count} networks"


def _networks(tree: object, name: str) -> dict[str, xr.Dataset]:
    """Return the networks of one condition by seed."""
    if not isinstance(tree, xr.DataTree):
        msg = (
            f'Expected `{name}` to be the networks of a condition with over="seed", as '
            f'study["bp"], but got {type(tree).__name__}.'
        )
        raise TypeError(msg)
    runs = {str(k): node.to_dataset() for k, node in tree.children.items()}
    runs = {k: run for k, run in runs.items() if run.data_vars}
    if not runs and len(tree.children) == 1:
        return _networks(next(iter(tree.children.values())), name)
    if len(runs) < LEAST:
        inside = ", ".join(str(k) for k in tree.children) or "nothing"
        msg = (
            f"Expected `{name}` to hold at least {LEAST} networks of one condition, as "
            f'study["bp"], but got {len(runs)} (the tree holds {inside}); run more '
            "seeds, or name the condition."
        )
        raise ValueError(msg)
    return runs


def _apart(
    left: dict[str, xr.Dataset], right: dict[str, xr.Dataset], *, same: bool
) -> np.ndarray:
    """Return which pairs count: not a network with itself, nor a shared beginning."""
    inits_a, inits_b = (
        [run.attrs.get("init_seed") for run in side.values()] for side in (left, right)
    )
    mask = np.array([[x is None or x != y for y in inits_b] for x in inits_a])
    if same:
        np.fill_diagonal(mask, False)
    return mask


def _without_each(values: np.ndarray, apart: np.ndarray, *, same: bool) -> Estimates:
    """Return the mean over the pairs that count, and without each network."""

    def mean(keep_a: np.ndarray, keep_b: np.ndarray) -> np.ndarray:
        chosen = apart & np.outer(keep_a, keep_b)
        return np.asarray(values[chosen].mean(0))

    all_a, all_b = (np.ones(size, dtype=bool) for size in apart.shape)
    without = []
    for i in range(len(all_a)):
        others = np.arange(len(all_a)) != i
        without.append(mean(others, others if same else all_b))
    if not same:
        for j in range(len(all_b)):
            without.append(mean(all_a, np.arange(len(all_b)) != j))
    samples = () if same else apart.shape
    whole, pairs = mean(all_a, all_b), pairs_of_networks(values, apart, same=same)
    return Estimates(whole, np.stack(without), pairs, samples)


def pairs_of_networks(
    values: np.ndarray, apart: np.ndarray, *, same: bool
) -> np.ndarray:
    """Return the variance that pairs add, which the jackknife over networks doubles.

    Nothing where pairs with a shared beginning are left out of the table.
    """
    missing = ~apart & ~np.eye(len(apart), dtype=bool) if same else ~apart
    if missing.any():
        return np.zeros(values.shape[2:])
    return pairs_within(values) if same else pairs_across(values)


@dataclass(frozen=True)
class TwoFactors:
    """The result of two factors, in the measure's units."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    standard_error: np.ndarray
    measured: np.ndarray
    bias: np.ndarray


Over = Callable[[xr.Dataset, xr.Dataset], tuple[tuple[Estimates, xr.DataArray], str]]


def two_factors(
    a: object,
    b: object,
    layers: Layers,
    layers_b: Layers,
    over: Over,
    measure: Measure,
    level: float,
    progress: bool,
) -> tuple[TwoFactors, str, xr.DataArray]:
    r"""Return the mean over pairs of networks, drawn anew as examples are.

    .. math:: v = v_{examples} + v_{networks} - v_{both}

    Each jackknife holds the variance of the interaction, which would be counted
    twice; its own estimate, from values without both an example and a network, is
    taken off once. As rsatoolbox's dual bootstrap corrects three times one.
    """
    left = _networks(a, "a")
    right = left if b is None else _networks(b, "b")
    same = b is None
    apart = _apart(left, right, same=same)
    cells, how, template = {}, "", None
    rows, columns = list(left.values()), list(right.values())
    met = [(i, j) for i, j in np.argwhere(apart).tolist() if i <= j or not same]
    for i, j in progress_bar(met, desc="pairs of networks", progress=progress):
        (estimates, labels), how = over(rows[i], columns[j])
        template = labels if template is None else template
        cells[i, j] = estimates
    assert template is not None
    whole = _Means.of(cells, apart, same=same)
    keep = whole.mean()
    examples = keep.without
    networks = whole.without_each()
    forward = scale(measure.bounds)
    first = interval(keep, forward, level)
    count = len(networks)
    sizes = (count,) if same else apart.shape
    table = np.full((*apart.shape, *keep.value.shape), np.nan)
    for (i, j), one in cells.items():
        table[i, j] = one.value
        if same:
            table[j, i] = one.value
    without = np.stack([one.value for one in networks])
    pairs = pairs_of_networks(table, apart, same=same)
    second = interval(
        Estimates(keep.value, without, pairs, () if same else apart.shape),
        forward,
        level,
    )
    # What is left of a value without an example and a network once both have told.
    both = np.zeros(keep.value.shape)
    z = forward.forward
    start = 0
    for size in sizes:
        part = networks[start : start + size]
        inner = np.stack([z(one.without) - z(one.value) for one in part])
        inner = inner - inner.mean(0)
        inner = inner - inner.mean(1, keepdims=True)
        g = examples.shape[0]
        both += (size - 1) / size * (g - 1) / g * (inner**2).sum((0, 1))
        start += size
    slope = np.abs(forward.slope(keep.value))
    parts = [(one.standard_error * slope) ** 2 for one in (first, second)]
    variance = np.maximum(parts[0] + parts[1] - both, np.maximum(*parts))
    freedom = variance**2 / sum(
        v**2 / one.freedom for v, one in zip(parts, (first, second), strict=True)
    )
    freedom = np.where(np.isfinite(freedom), freedom, np.inf)
    reach = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)
    centre = z(keep.value)
    low, high = forward.inverse(centre - reach), forward.inverse(centre + reach)
    measured = keep.value
    label = f"{len(left)}" if same else f"{len(left)} + {len(right)}"
    result = TwoFactors(
        keep.value,
        np.fmin(low, high),
        np.fmax(low, high),
        np.sqrt(variance) / slope,
        measured,
        # Closed forms are of estimators that are debiased already.
        first.bias if keep.pairs is None else np.zeros_like(measured),
    )
    return result, f"{how} and jackknife over {label} networks", template


@dataclass(frozen=True)
class _Means:
    """Sums over pairs of networks, so that means without a network are differences."""

    total: Estimates
    by_network: list[Estimates]
    counts: list[int]
    pairs: int

    @classmethod
    def of(
        cls, cells: dict[tuple[int, int], Estimates], apart: np.ndarray, *, same: bool
    ) -> "_Means":
        """Return the sums of all pairs and of the pairs of each network."""
        rows, columns = apart.shape
        members: list[list[Estimates]] = [
            [] for _ in range(rows if same else rows + columns)
        ]
        for (i, j), estimates in cells.items():
            members[i].append(estimates)
            members[j if same else rows + j].append(estimates)
        return cls(
            _sum(list(cells.values())),
            [_sum(some) for some in members],
            [len(some) for some in members],
            len(cells),
        )

    def mean(self) -> Estimates:
        """Return the mean over pairs, and without each example."""
        pairs = self.total.pairs
        return Estimates(
            self.total.value / self.pairs,
            self.total.without / self.pairs,
            # Of the mean of related estimates at most the mean of their own.
            None if pairs is None else pairs / self.pairs / len(self.by_network),
            (),
            self.total.shares,
        )

    def without_each(self) -> list[Estimates]:
        """Return the mean without each network."""
        means = []
        for part, count in zip(self.by_network, self.counts, strict=True):
            rest = self.pairs - count
            means.append(
                Estimates(
                    (self.total.value - part.value) / rest,
                    (self.total.without - part.without) / rest,
                )
            )
        return means


def _sum(some: list[Estimates]) -> Estimates:
    """Return the sums of values, whole and without each example."""
    pairs = [one.pairs for one in some if one.pairs is not None]
    return Estimates(
        np.sum([one.value for one in some], axis=0),
        np.sum([one.without for one in some], axis=0),
        np.sum(pairs, axis=0) if pairs else None,
        (),
        some[0].shares,
    )
