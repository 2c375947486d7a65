"""Do two rules differ more than two seeds of one rule do? A test over networks."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import matrix
from repsim.inference.common_steps import (
    Layers,
    Runs,
    Steps,
    at,
    common_layers,
    directed,
    moments,
)
from repsim.inference.designs import (
    LIMIT,
    Design,
    check_enough,
    design,
    false_discovery,
    too_few,
    two_rules,
)
from repsim.inference.difference_intervals import Factors
from repsim.inference.place_spread import combined, place_spread, tails
from repsim.measures.catalogue import Choice, Measure

INNER = ("cka", "hsic", "rsa", "mutual_knn")
"""Measures that are inner products of something that each network has by itself."""

NOTE = (
    "Place: the rules' networks stand at different places, whatever their spread; "
    "spread: networks of one rule vary more among themselves than those of the other."
)
"""What the two findings mean."""


def seed_test(
    study: xr.DataTree,
    rule_a: str,
    rule_b: str,
    measure: Choice = "cka",
    *,
    step: Steps = None,
    layers: Layers = None,
    level: float = 0.05,
    over: str | Sequence[str] = "seed",
    permutations: int = LIMIT,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    r"""Test whether two rules differ by more than two seeds of one rule do.

    .. math:: \mathrm{difference} = \pm\Bigl(\frac{w_a + w_b}{2} - b\Bigr)

    :math:`w_a, w_b` are the means of the measure over pairs of networks of one rule,
    b over pairs of two rules, whatever the numbers of networks (minus for distances).
    Pairs that share an initialisation are left out, since networks that began alike
    look alike for that reason alone.

    Two things can make it positive, and each has its own p-value, the share of all
    assignments of the rules' names to whole networks whose statistic is at least the
    observed one; networks that share an initialisation exchange names among
    themselves only.

    - *Place* (`p_value`): for CKA, HSIC, RSA and mutual neighbours every network is a
      vector; the statistic is the squared distance of the rules' mean vectors, each
      rule scaled to mean length one, over its expectation from noise alone. It does
      not react to spread, nor to unequal numbers. Other measures have no such
      vectors: there a small `p_value` may come from spread, and `describe` speaks of
      place only where rules are less alike than the looser rule's own networks.
    - *Spread* (`spread_p_value`): whether networks of one rule vary more than those
      of the other, with the rules' places taken out (PERMDISP).

    Parameters
    ----------
    study : DataTree
        /<condition>/<seed>, all networks with the same examples.
    rule_a, rule_b : str
        Two of its conditions.
    measure : str, Measure or callable
        A name of `repsim.measures.names()`, or a registered function; of a measure
        that is not symmetric the mean of both directions is taken.
    step : int, sequence of int, "all" or None
        Number of updates; None is the last recorded, which must be the same in all
        networks. Several give a dim `step`, and q-values over all of them.
    layers : str, iterable of str or None
        Layers, by name or pattern; None is all. All networks must have them.
    level : float
        Level that the number of networks should be able to reach.
    over : str, or a pair of them
        What the interval of the difference is about: other networks ("seed"), or
        other networks and other examples, ("example", "seed"), or groups of them,
        (the name of a coordinate, "seed"); with groups it is an interval of the
        difference between examples of different groups.
    permutations : int
        Assignments up to which all are enumerated; beyond, that many are drawn.
    seed : int
        Of the draw.
    **options
        The measure's own.

    Returns
    -------
    Dataset, dims ([step,] layer)
        `within`, `within_a`, `within_b`, `between` (means over pairs, in the measure's
        units), `difference` (positive where rules differ) with `low` and `high` (its
        jackknife interval over `over`, coverage 1 - level), `effect` (in standard
        deviations of the pairs within a rule, `deviation`), `p_value`, `q_value`
        (Benjamini–Hochberg over all layers and steps), `place` (one minus the
        similarity of the rules' mean vectors, which the seeds' noise does not lower),
        `spread_ratio` (standard deviation of b's networks over a's),
        `spread_p_value` and `spread_q_value`; and one p over all layers, dims
        ([step]): `omnibus_p` of both findings, `omnibus_place_p`, `omnibus_spread_p`.
        The attrs say how many networks and pairs there were, `smallest_p`, and, in
        `sentence`, why a number is missing or cannot be small.

    Raises
    ------
    TypeError
        If `study` is not a DataTree, `measure` is not registered, so that its
        direction is unknown, or it has no such option.
    ValueError
        If a condition, layer, measure, step or factor does not exist, layers or
        examples differ, or neither rule has two networks.

    Warns
    -----
    UserWarning
        If there are too few networks to reach the level, or a layer has no number.

    See Also
    --------
    profile_test : The same for a number per layer, such as probe accuracy.
    equivalence_test : Whether rules are alike within a bound.
    seeds_needed : How many networks would find such a difference.

    References
    ----------
    Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses,
    https://doi.org/10.1007/b138696;
    Alekseyenko 2016, https://doi.org/10.1093/bioinformatics/btw524 (Welch's statistic
    of distances); Anderson 2006, https://doi.org/10.1111/j.1541-0420.2005.00440.x
    (PERMDISP); Schütt et al. 2023, https://doi.org/10.7554/eLife.82566 (two factors);
    Pesarin & Salmaso 2010, https://doi.org/10.1002/9780470689516 (one p
    over many tests)

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> z, w = rng.normal(size=(2, 40, 5))
    >>> runs = {
    ...     f"{rule}/{i}": xr.Dataset(
    ...         {"h": (("example", "h_unit"), base + 0.5 * rng.normal(size=(40, 5)))}
    ...     )
    ...     for rule, base in (("bp", z), ("sg", w)) for i in range(4)
    ... }
    >>> found = seed_test(xr.DataTree.from_dict(runs), "bp", "sg")
    >>> round(float(found["p_value"].sel(layer="h")), 4)
    0.0286
    """
    chosen = directed(measure)
    chosen.check_options(options)
    networks = Networks.of(study, rule_a, rule_b, layers, step)
    plan = networks.plan
    assignments = plan.assignments(permutations, seed)
    factors = Factors.of(over, next(iter(networks.runs.values())))
    rows, notes = [], []
    for moment in networks.moments:
        cells, logs = [], np.zeros((2, len(assignments)))
        for layer in networks.layers:
            xs = networks.matrices(moment, layer)
            values, note = networks.between(layer, xs, chosen, options)
            notes += [note] if note else []
            numbers, each = _cell(values, plan, assignments, chosen)
            ends = factors.ends(values, xs, plan, chosen, options, 1 - level)
            cells.append(numbers | {"low": ends.low, "high": ends.high})
            logs += np.where(np.isfinite(each), each, 0.0)
        rows.append((cells, _omnibus(logs)))
    result = _labelled(rows, networks, step)
    few = too_few(smallest := plan.smallest_p(len(assignments)), level, *plan.sizes)
    result.attrs = networks.attrs(rule_a, rule_b, chosen, options) | {
        "test": "seed_test",
        "place_statistic": "vectors" if chosen.name in INNER else "difference",
        "permutations": len(assignments),
        "exact": int(len(assignments) == plan.count()),
        "smallest_p": smallest,
        "level": level,
        "over": factors.over,
        "sentence": " ".join(part for part in (few, missing(notes)) if part),
        "note": NOTE,
        "seed": seed,
    }
    return result


@dataclass(frozen=True)
class Networks:
    """The networks of two rules, and what of them is compared."""

    runs: Runs
    plan: Design
    layers: list[str]
    moments: list[int | None]

    @classmethod
    def of(
        cls, study: xr.DataTree, rule_a: str, rule_b: str, layers: Layers, step: Steps
    ) -> "Networks":
        """Return them, or say what they do not share."""
        runs = two_rules(study, rule_a, rule_b)
        names = list(runs)
        check_enough(names, rule_a, rule_b)
        listed = common_layers(runs, layers)
        inits = [run.attrs.get("init_seed") for run in runs.values()]
        return cls(runs, design(names, inits, rule_b), listed, moments(runs, step))

    def pairs(
        self, moment: int | None, layer: str, measure: Measure, options: dict[str, Any]
    ) -> tuple[np.ndarray, str]:
        """Return one layer's measure between all networks, and why there is none."""
        return self.between(layer, self.matrices(moment, layer), measure, options)

    def matrices(self, moment: int | None, layer: str) -> list[np.ndarray]:
        """Return one layer of all networks."""
        return [
            matrix(at(run, moment), layer).astype(np.float64)
            for run in self.runs.values()
        ]

    def between(
        self,
        layer: str,
        xs: list[np.ndarray],
        measure: Measure,
        options: dict[str, Any],
    ) -> tuple[np.ndarray, str]:
        """Return a measure between all of some matrices, and why there is none."""
        names = ["/".join(key) for key in self.runs]
        finite = [np.isfinite(x).all() for x in xs]
        if not all(finite):
            broken = [name for name, ok in zip(names, finite, strict=True) if not ok]
            empty = np.full((len(xs), len(xs)), np.nan)
            return empty, f"{layer} (not finite in {', '.join(broken)})"
        values = measure.all_pairs(xs, precision="float64", **options)
        both = (values + values.T) / 2
        off = both[~np.eye(len(xs), dtype=bool)]
        if np.isfinite(off).all():
            return both, ""
        silent = np.isnan(values).sum(1) >= len(xs) - 1
        which = [name for name, flag in zip(names, silent, strict=True) if flag]
        return both, f"{layer} (no number for {', '.join(which) or 'some pairs'})"

    def attrs(
        self, rule_a: str, rule_b: str, measure: Measure, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Return what was compared, in words and counts."""
        plan = self.plan
        alone = sum(plan.inits.count(init) == 1 for init in plan.inits)
        return {
            "rule_a": rule_a,
            "rule_b": rule_b,
            "measure": measure.name,
            "larger_is_more_similar": int(measure.larger_is_more_similar),
            "options": json.dumps(options, default=str, sort_keys=True),
            "networks_a": plan.sizes[0],
            "networks_b": plan.sizes[1],
            "pairs_between": int(plan.apart[~plan.is_b][:, plan.is_b].sum()),
            "shared_initialisations": len(plan.inits) - alone,
            "repsim_version": repsim_version(),
        }


def _cell(
    values: np.ndarray,
    plan: Design,
    assignments: np.ndarray,
    measure: Measure,
) -> tuple[dict[str, float], np.ndarray]:
    """Return one layer's numbers, and -log p of both tests for every assignment."""
    test = place_spread(
        values,
        plan,
        assignments,
        similarity=measure.larger_is_more_similar,
        inner=measure.name in INNER,
    )
    return test.numbers, -np.log(tails(np.stack([test.place, test.spread])))


def _omnibus(logs: np.ndarray) -> dict[str, float]:
    """Return one p over all layers: of both findings, and of each."""
    place, spread = logs
    given = [one for one in (place, spread) if one.any()]
    return {
        "omnibus_p": combined(logs.sum(0)) if given else np.nan,
        "omnibus_place_p": combined(place) if place.any() else np.nan,
        "omnibus_spread_p": combined(spread) if spread.any() else np.nan,
    }


def missing(notes: list[str]) -> str:
    """Return the sentence for layers without a number, and warn with it."""
    if not notes:
        return ""
    sentence = (
        f"No test for {'; '.join(dict.fromkeys(notes))}: a constant or broken layer "
        "has no similarity."
    )
    warnings.warn(sentence, UserWarning, stacklevel=3)
    return sentence


VARIABLES = (
    "within", "between", "difference", "effect", "p_value", "q_value", "low", "high",
    "within_a", "within_b", "deviation", "place", "spread_ratio", "spread_p_value",
    "spread_q_value",
)  # fmt: skip


def _labelled(
    rows: list[tuple[list[dict[str, float]], dict[str, float]]],
    networks: Networks,
    step: Steps,
) -> xr.Dataset:
    """Return the statistics with their names, and q-values over all of them."""
    arrays = {
        name: np.array([[cell[name] for cell in cells] for cells, _ in rows])
        for name in rows[0][0][0]
    }
    for kind in ("", "spread_"):
        arrays[f"{kind}q_value"] = false_discovery(arrays[f"{kind}p_value"])
    result = xr.Dataset(
        {name: (("step", "layer"), arrays[name]) for name in VARIABLES}
        | {name: ("step", [over[name] for _, over in rows]) for name in rows[0][1]},
        coords={"layer": networks.layers},
    )
    return stepped(result, networks.moments, step)


def stepped(result: xr.Dataset, moments: list[int | None], step: Steps) -> xr.Dataset:
    """Return a result with its steps, or without the dim where one was asked for."""
    several = step is not None and not isinstance(step, int | np.integer)
    if moments[0] is not None:
        result = result.assign_coords(step=np.array(moments, dtype=np.int64))
    return result if several else result.isel(step=0)
