"""Do two rules differ more than two seeds of one rule do? A test over networks."""

import json
import warnings
from typing import Any

import numpy as np
import xarray as xr

from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import matrix
from repsim.inference.choices import Choice, directed
from repsim.inference.common_steps import (
    Layers,
    Runs,
    Steps,
    at,
    common_layers,
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
from repsim.measures.catalogue import Measure

SPREAD = (
    "The test asks whether networks of different rules are less alike than networks "
    "of one rule; it also reacts when the rules differ in spread alone, so compare "
    "the similarity within the one rule (`within_a`) with that within the other "
    "(`within_b`) before reading a difference as a different place."
)
"""What a small p does not say by itself."""


def seed_test(
    study: xr.DataTree,
    rule_a: str,
    rule_b: str,
    measure: Choice = "cka",
    *,
    step: Steps = None,
    layers: Layers = None,
    level: float = 0.05,
    permutations: int = LIMIT,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    r"""Test whether two rules differ by more than two seeds of one rule do.

    .. math:: T = \pm\Bigl(\frac{1}{|W|}\sum_{(i,j) \in W} s_{ij}
              - \frac{1}{|B|}\sum_{(i,j) \in B} s_{ij}\Bigr)

    W are the pairs of networks of one rule, B those of two rules, s the measure of
    the same layer in both networks. Pairs that share an initialisation are left out,
    since networks that began alike look alike for that reason alone. The sign makes
    T positive where rules differ (minus for distances). The p-value is the share of
    all assignments of the rules' names to whole networks whose T is at least the
    observed one; networks that share an initialisation exchange names among
    themselves only. The null hypothesis is that the rules make the same distribution
    of networks, so the test also reacts to a difference in spread alone.

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
        Layers; None is all, which all networks must then have.
    level : float
        Level that the number of networks should be able to reach.
    permutations : int
        Assignments up to which all are enumerated; beyond, that many are drawn.
    seed : int
        Of the draw.
    **options
        The measure's own.

    Returns
    -------
    Dataset, dims ([step,] layer)
        `within`, `between` (means over pairs, in the measure's units), `difference`
        (positive where rules differ), `effect` (that difference in standard
        deviations of the pairs within a rule), `p_value`, `q_value`
        (Benjamini–Hochberg over all layers and steps), `within_a`, `within_b`, and
        `spread` (that standard deviation, pooled over both rules). The attrs say how
        many networks and pairs there were, `smallest_p`, and, in `sentence`, why a
        number is missing or cannot be small.

    Raises
    ------
    TypeError
        If `study` is not a DataTree, `measure` is not registered, so that its
        direction is unknown, or it has no such option.
    ValueError
        If a condition, layer, measure or step does not exist, layers or examples
        differ, or neither rule has two networks.

    Warns
    -----
    UserWarning
        If there are too few networks to reach the level, or a layer has no number.

    See Also
    --------
    profile_test : the same for a number per layer, such as probe accuracy.

    References
    ----------
    Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses,
    https://doi.org/10.1007/b138696;
    Anderson 2001, https://doi.org/10.1111/j.1442-9993.2001.01070.pp.x (why spread
    matters)

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
    runs = two_rules(study, rule_a, rule_b)
    names = list(runs)
    check_enough(names, rule_a, rule_b)
    listed = common_layers(runs, layers)
    when = moments(runs, step)
    plan = design(names, [run.attrs.get("init_seed") for run in runs.values()], rule_b)
    assignments = plan.assignments(permutations, seed)
    sign = 1.0 if chosen.larger_is_more_similar else -1.0
    cells, notes = [], []
    for moment in when:
        there = {key: at(run, moment) for key, run in runs.items()}
        for layer in listed:
            pairs, note = _pairs(there, layer, chosen, options)
            cells.append(contrast(pairs, plan, assignments, sign))
            notes += [note] if note else []
    result = _labelled(cells, listed, when, step)
    sizes = int((~plan.is_b).sum()), int(plan.is_b.sum())
    smallest = plan.smallest_p(len(assignments))
    few = too_few(smallest, level, *sizes)
    missing = _missing(notes)
    result.attrs = {
        "test": "seed_test",
        "rule_a": rule_a,
        "rule_b": rule_b,
        "measure": chosen.name,
        "options": json.dumps(options, default=str, sort_keys=True),
        "networks_a": sizes[0],
        "networks_b": sizes[1],
        "pairs_between": int(plan.apart[~plan.is_b][:, plan.is_b].sum()),
        "shared_initialisations": int(sum(len(b) for b in plan.blocks) - _alone(plan)),
        "permutations": len(assignments),
        "exact": int(len(assignments) == plan.count()),
        "smallest_p": smallest,
        "level": level,
        "sentence": " ".join(part for part in (few, missing) if part),
        "note": SPREAD,
        "seed": seed,
        "repsim_version": repsim_version(),
    }
    return result


def _pairs(
    runs: Runs,
    layer: str,
    measure: Measure,
    options: dict[str, Any],
) -> tuple[np.ndarray, str]:
    """Return one layer's measure between all networks, or why there is none."""
    xs = {key: matrix(run, layer).astype(np.float64) for key, run in runs.items()}
    broken = ["/".join(key) for key, x in xs.items() if not np.isfinite(x).all()]
    if broken:
        empty = np.full((len(xs), len(xs)), np.nan)
        return empty, f"{layer} (not finite in {', '.join(broken)})"
    values = measure.all_pairs(list(xs.values()), precision="float64", **options)
    both = (values + values.T) / 2
    off = both[~np.eye(len(xs), dtype=bool)]
    if np.isfinite(off).all():
        return both, ""
    silent = np.isnan(values).sum(1) >= len(xs) - 1
    which = ["/".join(key) for key, flag in zip(xs, silent, strict=True) if flag]
    return both, f"{layer} (no number for {', '.join(which) or 'some pairs'})"


def _missing(notes: list[str]) -> str:
    """Return the sentence for layers without a number, and warn with it."""
    if not notes:
        return ""
    sentence = (
        f"No test for {'; '.join(dict.fromkeys(notes))}: a constant or broken layer "
        "has no similarity."
    )
    warnings.warn(sentence, UserWarning, stacklevel=3)
    return sentence


def _alone(plan: Design) -> int:
    """Return the number of networks with an initialisation of their own."""
    return sum(plan.inits.count(init) == 1 for init in plan.inits)


def _labelled(
    cells: list[dict[str, float]],
    layers: list[str],
    moments: list[int | None],
    step: Steps,
) -> xr.Dataset:
    """Return the statistics with their names, and q-values over all of them."""
    several = step is not None and not isinstance(step, int | np.integer)
    shape = (len(moments), len(layers))
    arrays = {
        name: np.array([cell[name] for cell in cells]).reshape(shape)
        for name in cells[0]
    }
    arrays["q_value"] = false_discovery(arrays["p_value"])
    order = ("within", "between", "difference", "effect", "p_value", "q_value")
    result = xr.Dataset(
        {
            name: (("step", "layer"), arrays[name])
            for name in (*order, "within_a", "within_b", "spread")
        },
        coords={"layer": layers},
    )
    if moments[0] is not None:
        result = result.assign_coords(step=np.array(moments, dtype=np.int64))
    return result if several else result.isel(step=0)


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
