"""How far a measure would move with other examples, classes, units or seeds."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from repsim.comparison.rows_of_pairs import pairs_on_workers
from repsim.core import cluster
from repsim.core.messages import whole
from repsim.core.provenance import repsim_version
from repsim.inference.common_steps import Layers
from repsim.inference.jackknife import Estimates, grouped_interval, interval, scale
from repsim.inference.layer_pairs import layer_names, layer_pair
from repsim.inference.left_out import (
    closed_form,
    label_groups,
    labels_of,
    leave_groups_out,
    random_groups,
)
from repsim.inference.seed_intervals import over_networks, two_factors
from repsim.inference.unit_intervals import over_units
from repsim.inference.unusual_examples import warn_of_copies, warn_of_one_example
from repsim.measures.catalogue import Choice, Measure, named

NEVER = {
    "mutual_knn": (
        "has no value in the population, since its neighbourhoods shrink as examples "
        "come"
    ),
    "svcca": (
        "jumps where an example more or less changes how many directions it keeps, so "
        "that leaving some out does not tell its spread"
    ),
}
"""Measures that have no interval over examples, and why."""

CROSS_VALIDATED = ("linear_predictivity",)
"""Measures of held-out examples: leaving some out deals other folds, whose noise the
jackknife takes for bias."""


def confidence(
    a: xr.Dataset | xr.DataTree,
    b: xr.Dataset | xr.DataTree | None = None,
    measure: Choice = "cka",
    *,
    level: float = 0.95,
    over: str | Sequence[str] = "example",
    parts: int = 40,
    layers: Layers = None,
    layers_b: Layers = None,
    seed: int = 0,
    progress: bool = False,
    scheduler: Any = None,
    **options: Any,
) -> xr.Dataset:
    r"""Return a measure between all layers, with an interval for each cell.

    The interval is for the measure's value in the population that the examples (or
    groups, units, networks) were drawn from. Debiased CKA and RSA have their jackknife
    in closed form, corrected for what pairs of examples add; every other measure is
    computed again without each of `parts` random parts of the examples. The plain
    bootstrap is not offered: it repeats examples, and a repeated example is at
    distance zero from itself.

    Parameters
    ----------
    a, b : Dataset or DataTree
        Two recordings of the same examples, `b=None` being `a` again. With "seed" in
        `over`, the networks of two conditions: `study["bp"], study["sg"]`.
    measure : str, Measure or callable
        A name of `repsim.measures.names()`, or any function f(x, y) -> float.
    level : float
        Coverage of the intervals, between 0 and 1.
    over : str, or a pair of them
        What was drawn from a population:

        - "example": examples, each by itself.
        - the name of a coordinate on `example`, such as "label" or "sequence": whole
          groups of examples. CKA and RSA then count only pairs of different groups;
          of other measures the bias that the jackknife sees is taken off.
        - "seed": networks. "unit": the units of both layers (debiased linear CKA),
          for what all units would show where few of many were recorded.
        - ("example", "seed") or (a coordinate, "seed"): both at once, the variance
          that both see counted once.
    parts : int
        Parts of the examples left out in turn, where there is no closed form.
    layers, layers_b : str, iterable of str or None
        Layers of each side, by name or pattern; None is all, for `layers_b` those
        of `layers`.
    seed : int
        Of the random parts.
    progress : bool
        Whether to show a bar over the parts left out, steps or networks.
    scheduler : distributed.Client, str or None
        Where what lies in a store is read and computed: a client, the address of a
        dask scheduler, or "threads" or "synchronous" for this process. None is the
        client in scope, if there is one.
    **options
        The measure's own.

    Returns
    -------
    Dataset, dims ([step,] layer_a, layer_b)
        `estimate` of the population's value, `low`, `high`, `standard_error`,
        `measured` (the measure as it is on these examples) and `bias`, in the
        measure's units: with groups and units `estimate` is `measured - bias`; over
        examples `bias` is the jackknife's guess and `estimate` is `measured`. NaN
        where a layer is constant. `low` and `high` are NaN, with a warning, where
        the measure is a plug-in estimate farther from its population's value than
        half its standard error (over groups: than a whole one, before `bias` is off).
        The attrs say how the interval was made.

    Raises
    ------
    TypeError
        If a side is not what `over` needs.
    ValueError
        If `level` is not between 0 and 1, there are too few examples, groups, units
        or networks, or whatever `repsim.compare` refuses.

    Warns
    -----
    UserWarning
        If an interval is refused for its bias; if examples are exact copies of each
        other or tokens of one sequence and `over` does not say so; if one example
        makes up most of the variance, as of a unit with rare large values.

    References
    ----------
    Efron & Stein 1981, https://doi.org/10.1214/aos/1176345462;
    Schütt et al. 2023, https://doi.org/10.7554/eLife.82566 (over which factors);
    Chun et al. 2025, https://arxiv.org/abs/2502.15104 (few of many units);
    Murphy et al. 2024, https://arxiv.org/abs/2405.01012 (biased CKA)

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 5))
    >>> a = xr.Dataset({"h": (("example", "h_unit"), x)})
    >>> b = xr.Dataset({"h": (("example", "h_unit"), x + rng.normal(size=(100, 5)))})
    >>> found = confidence(a, b).squeeze()
    >>> [round(float(found[name]), 2) for name in ("low", "estimate", "high")]
    [0.48, 0.54, 0.6]
    """
    with cluster.using(scheduler):
        if not 0 < level < 1:
            msg = f"Expected `level` between 0 and 1, but got {level}."
            raise ValueError(msg)
        parts = whole(parts, "parts", 2)
        chosen = named(measure)
        factors = (over,) if isinstance(over, str) else tuple(over)
        if len(factors) == 1 and factors[0] not in ("seed", "unit"):
            same = {"level": level, "over": factors[0], "parts": parts, "seed": seed}
            if isinstance(a, xr.Dataset) and isinstance(b, xr.Dataset | None):
                other = a if b is None else b
                names = layer_names(a, other, layers, layers_b)
                apart = pairs_on_workers(
                    _pair_alone, a, other, *names, chosen, same | options
                )
                if apart is not None:
                    return apart
        plan = _Plan(chosen, options, layers, layers_b, parts, seed, progress)
        if factors == ("seed",):
            labelled, how = over_networks(
                a, b, chosen, layers, layers_b, options, progress
            )
        elif factors == ("unit",):
            labelled, how = over_units(
                layer_pair(a, b, "unit", layers, layers_b), chosen, options
            )
        elif len(factors) == 2 and factors[1] == "seed" and factors[0] != "seed":
            each = replace(plan, progress=False)
            result, how, template = two_factors(
                a, b, layers, layers_b, lambda x, y: each.over(x, y, factors[0]),
                chosen, level, progress,
            )  # fmt: skip
            values = _Numbers(**vars(result)).refused(chosen, 0.5)
            return _result(values, template, how, over=factors, level=level, seed=seed)
        elif len(factors) == 1:
            labelled, how = plan.over(a, b, factors[0])
        else:
            msg = (
                "Expected `over` to be one factor, or a pair such as "
                f'("example", "seed") with the networks last, but got {factors!r}.'
            )
            raise ValueError(msg)
        estimates, template = labelled
        measured = np.asarray(template.values)
        given = estimates
        if estimates.shares is not None and estimates.pairs is None:
            given = estimates.corrected(chosen.bounds)
        make = interval if given.shares is None else grouped_interval
        ends = make(given, scale(chosen.bounds), level)
        bias = ends.bias
        if estimates.shares is not None or factors == ("unit",):
            bias = measured - given.value
        values = _Numbers(
            given.value, ends.low, ends.high, ends.standard_error, measured, bias
        )
        if factors not in (("seed",), ("unit",)) and estimates.pairs is None:
            # Closed forms are of estimators that are debiased already. Over groups the
            # bias is taken off, to first order: no more of it than what chance moves.
            values = values.refused(chosen, 0.5 if factors == ("example",) else 1.0)
        return _result(values, template, how, over=factors, level=level, seed=seed)


@dataclass(frozen=True)
class _Numbers:
    """The variables of the result, as arrays."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    standard_error: np.ndarray
    measured: np.ndarray
    bias: np.ndarray

    def refused(self, measure: Measure, most: float) -> "_Numbers":
        """Return them without ends where the bias is more standard errors than that."""
        bias = np.abs(self.bias)
        # Round-off is no bias.
        worse = (bias > self.standard_error * most) & (bias > 1e-9)
        if measure.name in NEVER:
            worse, reason = np.isfinite(self.measured), NEVER[measure.name]
        else:
            reason = (
                "is a plug-in estimate here: the estimated bias of "
                f"{measure.name!r} exceeds {'half ' * (most < 1)}its standard error"
            )
        if measure.name in CROSS_VALIDATED or not bool(worse.any()):
            return self
        warnings.warn(
            f"No interval for {int(worse.sum())} of {worse.size} cells: "
            f"{measure.name!r} {reason}, so that no interval around it would cover; "
            "take more examples, or debiased CKA.",
            UserWarning,
            stacklevel=3,
        )
        low, high = (np.where(worse, np.nan, end) for end in (self.low, self.high))
        return replace(self, low=low, high=high)


def _result(
    values: _Numbers, template: xr.DataArray, how: str, **attrs: Any
) -> xr.Dataset:
    """Return the numbers with the labels of the measure's cells."""
    names = ("estimate", "low", "high", "standard_error", "measured", "bias")
    result = xr.Dataset(
        {name: template.copy(data=getattr(values, name)) for name in names}
    ).drop_attrs()
    over = attrs.pop("over")
    result.attrs = template.attrs | {
        "interval": how,
        "over": over[0] if len(over) == 1 else list(over),
        **attrs,
        "repsim_version": repsim_version(),
    }
    return result


Found = tuple[tuple[Estimates, xr.DataArray], str]


@dataclass(frozen=True)
class _Plan:
    """What is computed of each pair of recordings."""

    measure: Measure
    options: dict[str, Any]
    layers: Layers
    layers_b: Layers
    parts: int
    seed: int
    progress: bool

    def over(self, a: object, b: object, factor: str) -> Found:
        """Return values whole and without examples, their labels, and how."""
        pair = layer_pair(a, b, factor, self.layers, self.layers_b)
        template = pair.cells(slice(None), self.measure, self.options)
        n = pair.a.sizes["example"]
        which = None
        if factor == "example":
            warn_of_copies(pair)
            warn_of_one_example(pair)
            parts = random_groups(n, min(self.parts, n), self.seed)
        else:
            labels = labels_of(pair.a, factor)
            parts = label_groups(labels, factor)
            which = np.unique(labels, return_inverse=True)[1]
        exact = closed_form(self.measure, self.options, which)
        if exact is not None:
            how = "closed-form jackknife"
            if which is not None:
                how += f" over {len(parts)} groups of examples, pairs between groups"
            return (pair.exact(exact, self.progress), template), how
        estimates = leave_groups_out(
            lambda k: pair.cells(k, self.measure, self.options).values,
            template.values,
            n,
            parts,
            self.progress,
        )
        if which is not None:
            estimates = replace(estimates, shares=np.bincount(which) / n)
        return (estimates, template), f"jackknife over {len(parts)} groups of examples"


def _pair_alone(
    pair: tuple[str, str],
    a: xr.Dataset,
    b: xr.Dataset,
    measure: Measure,
    given: dict[str, Any],
) -> xr.Dataset:
    """Return the interval of one pair of layers, as a worker reads and computes it."""
    return confidence(a, b, measure, layers=[pair[0]], layers_b=[pair[1]], **given)
