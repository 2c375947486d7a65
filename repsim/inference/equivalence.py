"""Whether two rules are alike within a bound, and how many networks would tell."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from repsim.inference.common_steps import Layers, Steps, directed
from repsim.inference.designs import Design
from repsim.inference.jackknife import interval, scale
from repsim.inference.place_spread import noise_of_vectors, without_each
from repsim.inference.seed_tests import INNER, Networks, missing, stepped
from repsim.measures.catalogue import Choice

LEAST = 3
"""Networks of a rule below which nothing says how far the difference would move."""


def equivalence_test(
    study: xr.DataTree,
    rule_a: str,
    rule_b: str,
    measure: Choice = "cka",
    *,
    bound: float,
    level: float = 0.05,
    step: Steps = None,
    layers: Layers = None,
    **options: Any,
) -> xr.Dataset:
    r"""Test whether two rules are alike within a stated bound.

    .. math:: H_0: \pm\Bigl(\frac{w_a + w_b}{2} - b\Bigr) \ge \mathrm{bound}

    The difference is that of `seed_test`: by how much networks of two rules are less
    alike than networks of one. A small p-value is evidence that it is smaller than
    the bound, which "no layer differs" never is. Its law is Student's with the
    jackknife's standard error over networks.

    Parameters
    ----------
    study : DataTree
        /<condition>/<seed>, all networks with the same examples.
    rule_a, rule_b : str
        Two of its conditions, each with three networks or more.
    measure : str, Measure or callable
        As in `seed_test`.
    bound : float
        The largest difference that would not matter, in the measure's units.
    level : float
        Level of the test; the intervals cover 1 - 2 level, so that a rule is alike
        within the bound where `high` is below it.
    step : int, sequence of int, "all" or None
        As in `seed_test`.
    layers : str, iterable of str or None
        As in `seed_test`.
    **options
        The measure's own.

    Returns
    -------
    Dataset, dims ([step,] layer)
        `difference`, `low`, `high`, `standard_error`, `p_value`, `equivalent`
        (p_value ≤ level), and `all_p` ([step]), the largest p: where that is small,
        all layers are alike within the bound. Testing every layer needs no further
        correction for that statement.

    Raises
    ------
    TypeError
        As `seed_test`.
    ValueError
        If `bound` is not positive, a rule has fewer than three networks, or whatever
        `seed_test` refuses.

    References
    ----------
    Schuirmann 1987, https://doi.org/10.1007/BF01068419 (two one-sided tests; the
    lower one is not needed of a squared distance);
    Berger 1982, https://doi.org/10.1080/00401706.1982.10487790 (all layers at once)

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(40, 5))
    >>> runs = {
    ...     f"{rule}/{i}": xr.Dataset(
    ...         {"h": (("example", "h_unit"), z + 0.2 * rng.normal(size=(40, 5)))}
    ...     )
    ...     for rule in ("bp", "again") for i in range(4)
    ... }
    >>> study = xr.DataTree.from_dict(runs)
    >>> bool(equivalence_test(study, "bp", "again", bound=0.05)["equivalent"].all())
    True
    """
    if not bound > 0:
        msg = f"Expected `bound` to be positive, but got {bound}."
        raise ValueError(msg)
    chosen = directed(measure)
    chosen.check_options(options)
    networks = Networks.of(study, rule_a, rule_b, layers, step)
    _check_three(networks.plan, rule_a, rule_b)
    similarity = chosen.larger_is_more_similar
    cells: list[list[float]] = []
    notes = []
    for moment in networks.moments:
        for layer in networks.layers:
            values, note = networks.pairs(moment, layer, chosen, options)
            notes += [note] if note else []
            estimates = without_each(values, networks.plan, similarity=similarity)
            ends = interval(estimates, scale(None), 1 - 2 * level)
            error = ends.standard_error[0]
            with np.errstate(divide="ignore"):  # networks that are all the same
                t = (estimates.value[0] - bound) / error
            p = stats.t.cdf(t, ends.freedom[0])
            cells.append([estimates.value[0], ends.low[0], ends.high[0], error, p])
    shape = (len(networks.moments), len(networks.layers), 5)
    table = np.array(cells).reshape(shape)
    names = ("difference", "low", "high", "standard_error", "p_value")
    result = xr.Dataset(
        {name: (("step", "layer"), table[..., k]) for k, name in enumerate(names)},
        coords={"layer": networks.layers},
    )
    result["equivalent"] = result["p_value"] <= level
    result["all_p"] = result["p_value"].max("layer", skipna=False)
    result = stepped(result, networks.moments, step)
    result.attrs = networks.attrs(rule_a, rule_b, chosen, options) | {
        "test": "equivalence_test",
        "bound": float(bound),
        "level": level,
        "sentence": missing(notes),
    }
    return result


def seeds_needed(
    study: xr.DataTree,
    rule_a: str,
    rule_b: str,
    measure: Choice = "cka",
    *,
    power: float = 0.8,
    level: float = 0.05,
    seeds: Iterable[int] = range(3, 41),
    step: int | None = None,
    layers: Layers = None,
    **options: Any,
) -> xr.Dataset:
    r"""Return how many networks of each rule would find the difference in place.

    With n networks of each rule the squared distance of the rules' mean vectors over
    its expectation from noise is about a non-central F,

    .. math:: F_{\nu,\, 2 (n - 1) \nu}\bigl(n \nu \delta^2 / 2 \tau\bigr)

    :math:`\delta^2` is the squared distance in this study without its own noise,
    :math:`\tau` the variance of one network and :math:`\nu` over how many directions
    it spreads. All three are estimates: with few networks the answer is a guide.

    Parameters
    ----------
    study : DataTree
        /<condition>/<seed>, a pilot with four networks of each rule or more.
    rule_a, rule_b : str
        Two of its conditions.
    measure : str, Measure or callable
        CKA, HSIC, RSA or mutual neighbours, the measures that have vectors.
    power : float
        Chance with which the difference is to be found.
    level : float
        Level of the test, of one layer by itself.
    seeds : iterable of int
        Numbers of networks of each rule to say the power of.
    step : int or None
        Number of updates; None is the last.
    layers : str, iterable of str or None
        Layers, by name or pattern; None is all.
    **options
        The measure's own.

    Returns
    -------
    Dataset
        `power` (layer, seeds), and `needed` (layer): the least of `seeds` that
        reaches it, NaN where none does (also where this study sees no difference).

    Raises
    ------
    ValueError
        If the measure has no vectors, a rule has fewer than four networks, or
        whatever `seed_test` refuses.

    References
    ----------
    Anderson 2001, https://doi.org/10.1111/j.1442-9993.2001.01070.pp.x (pseudo-F);
    Box 1954, https://doi.org/10.1214/aoms/1177728786 (its degrees of freedom)

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> z, w = rng.normal(size=(2, 40, 5))
    >>> runs = {
    ...     f"{rule}/{i}": xr.Dataset(
    ...         {"h": (("example", "h_unit"), base + rng.normal(size=(40, 5)))}
    ...     )
    ...     for rule, base in (("bp", z), ("sg", z + w)) for i in range(5)
    ... }
    >>> found = seeds_needed(xr.DataTree.from_dict(runs), "bp", "sg")
    >>> bool(found["power"].sel(layer="h", seeds=20) > 0.9)
    True
    """
    if not 0 < power < 1:
        msg = f"Expected `power` between 0 and 1, but got {power}."
        raise ValueError(msg)
    chosen = directed(measure)
    chosen.check_options(options)
    if chosen.name not in INNER:
        msg = (
            f"Expected `measure` to be one of {', '.join(INNER)}, whose networks are "
            f"vectors, but got {chosen.name!r}; plan with one of them."
        )
        raise ValueError(msg)
    networks = Networks.of(study, rule_a, rule_b, layers, step)
    _check_three(networks.plan, rule_a, rule_b, 4)
    counts = np.array(sorted(seeds))
    curves, notes = [], []
    for layer in networks.layers:
        values, note = networks.pairs(networks.moments[0], layer, chosen, options)
        notes += [note] if note else []
        curves.append(_power(values, networks.plan, counts, level))
    table = np.array(curves)
    reached = table >= power
    needed = np.where(reached.any(1), counts[reached.argmax(1)], np.nan)
    result = xr.Dataset(
        {"power": (("layer", "seeds"), table), "needed": ("layer", needed)},
        coords={"layer": networks.layers, "seeds": counts},
    )
    result.attrs = networks.attrs(rule_a, rule_b, chosen, options) | {
        "target": power,
        "level": level,
        "sentence": missing(notes),
    }
    return result


def _power(
    values: np.ndarray, plan: Design, counts: np.ndarray, level: float
) -> np.ndarray:
    """Return the chance to reject with so many networks of each rule."""
    noise = noise_of_vectors(values, plan)
    if noise is None:
        return np.full(len(counts), np.nan)
    distance, variance, directions = noise
    upper, lower = directions, 2 * (counts - 1) * directions
    shift = counts * directions * max(distance, 0.0) / (2 * variance)
    critical = stats.f.isf(level, upper, lower)
    with np.errstate(all="ignore"):
        # The tail of a shift of nothing is the level, and series end in round-off.
        power = np.clip(stats.ncf.sf(critical, upper, lower, shift), level, 1.0)
    smallest = np.array([Design.equal(int(n)).smallest_p(10**9) for n in counts])
    return np.where(smallest <= level, power, 0.0)


def _check_three(plan: Design, rule_a: str, rule_b: str, least: int = LEAST) -> None:
    for rule, size in zip((rule_a, rule_b), plan.sizes, strict=True):
        if size < least:
            msg = (
                f"Expected at least {least} networks of {rule!r}, but got {size}: "
                "fewer do not say how far seeds move the difference; run more seeds."
            )
            raise ValueError(msg)
