"""A number per layer of each network, compared between two rules."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from repsim.core.messages import unknown
from repsim.core.provenance import repsim_version
from repsim.inference.designs import LIMIT, Design, design, false_discovery, too_few

PLACE = ("condition", "seed", "init_seed")


def profile_test(
    profiles: xr.DataArray,
    rule_a: str,
    rule_b: str,
    *,
    level: float = 0.05,
    permutations: int = LIMIT,
    seed: int = 0,
) -> xr.Dataset:
    r"""Test whether a number per network differs between two rules, layer by layer.

    .. math:: T = \frac{|\bar v_b - \bar v_a|}{\sqrt{s_a^2 / n_a + s_b^2 / n_b}}

    with the p-value over all assignments of the rules' names to whole networks, as in
    `seed_test`. Welch's statistic, not the difference itself: so the test is one of
    means also where one rule's networks vary more and are fewer. Class margins,
    displacements, distances of RDMs to the last layer and probe accuracies along
    depth are such numbers; they are often more sensitive than the similarity of
    matching layers.

    Parameters
    ----------
    profiles : DataArray, dims (network, …) or (condition, seed, …)
        One number per network and layer (and step, …). On `network`, the coordinate
        `condition`, and `init_seed` where networks share initialisations. Networks
        that are NaN everywhere are left out.
    rule_a, rule_b : str
        Two of its conditions.
    level : float
        Level that the number of networks should be able to reach.
    permutations : int
        Assignments up to which all are enumerated; beyond, that many are drawn.
    seed : int
        Of the draw.

    Returns
    -------
    Dataset, dims (…)
        `mean_a`, `mean_b`, `difference` (b − a, in the profile's units), `effect`
        (in pooled standard deviations over networks, Hedges' g), `p_value` (two-sided)
        and `q_value` (Benjamini–Hochberg over all cells). NaN where a network has no
        number.

    Raises
    ------
    TypeError
        If `profiles` is not a DataArray.
    ValueError
        If a condition does not exist, or has no network.

    Warns
    -----
    UserWarning
        If there are too few networks to reach the level.

    References
    ----------
    Hedges 1981, https://doi.org/10.3102/10769986006002107;
    Chung & Romano 2013, https://doi.org/10.1214/13-AOS1090 (why studentised)

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> margins = xr.DataArray(
    ...     [[0.1], [0.2], [0.1], [0.2], [0.5], [0.6], [0.5], [0.7]],
    ...     dims=("network", "layer"),
    ...     coords={"condition": ("network", ["bp"] * 4 + ["sg"] * 4), "layer": ["h"]},
    ... )
    >>> found = profile_test(margins, "bp", "sg")
    >>> round(float(found["p_value"].sel(layer="h")), 4)
    0.0286
    """
    table = _networks(profiles)
    conditions = table["condition"].values.astype(str)
    for what, rule in (("rule_a", rule_a), ("rule_b", rule_b)):
        if rule not in conditions:
            raise ValueError(unknown(what, rule, dict.fromkeys(conditions)))
    table = table.isel(network=np.isin(conditions, [rule_a, rule_b]))
    plan = _design(table, rule_b)
    assignments = plan.assignments(permutations, seed)
    values = table.values.reshape(table.sizes["network"], -1)
    sizes = int((~plan.is_b).sum()), int(plan.is_b.sum())
    cells = compare_means(values, plan.is_b, assignments)
    cells["q_value"] = false_discovery(cells["p_value"])
    shape, dims = table.shape[1:], table.dims[1:]
    kept = {k: c.variable for k, c in table.coords.items() if "network" not in c.dims}
    result = xr.Dataset(
        {name: (dims, cell.reshape(shape)) for name, cell in cells.items()}, kept
    )
    smallest = plan.smallest_p(len(assignments))
    result.attrs = {
        "test": "profile_test",
        "rule_a": rule_a,
        "rule_b": rule_b,
        "profile": str(profiles.name or ""),
        "networks_a": sizes[0],
        "networks_b": sizes[1],
        "permutations": len(assignments),
        "exact": int(len(assignments) == plan.count()),
        "smallest_p": smallest,
        "level": level,
        "sentence": too_few(smallest, level, *sizes),
        "seed": seed,
        "repsim_version": repsim_version(),
    }
    return result


def _networks(profiles: xr.DataArray) -> xr.DataArray:
    """Return profiles with the dim `network` first, and networks that exist."""
    if not isinstance(profiles, xr.DataArray):
        msg = (
            "Expected `profiles` to be a DataArray (network, layer), but got "
            f"{type(profiles).__name__}; choose one variable."
        )
        raise TypeError(msg)
    if {"condition", "seed"} <= set(profiles.dims):
        flat = profiles.stack(network=("condition", "seed"))
        place = {name: flat[name].values for name in PLACE if name in flat.coords}
        flat = flat.drop_vars(["network", *place])
        profiles = flat.assign_coords({k: ("network", v) for k, v in place.items()})
    if "network" not in profiles.dims or "condition" not in profiles.coords:
        msg = (
            "Expected `profiles` to have dims (network, layer) with a coordinate "
            "`condition` on network, or (condition, seed, layer), but got "
            f"({', '.join(str(d) for d in profiles.dims)})."
        )
        raise ValueError(msg)
    table = profiles.transpose("network", ...).astype(np.float64)
    there = ~np.isnan(table.values.reshape(table.sizes["network"], -1)).all(1)
    return table.isel(network=there)


def _design(table: xr.DataArray, rule_b: str) -> Design:
    conditions = [str(c) for c in table["condition"].values]
    names = [(c, str(i)) for i, c in enumerate(conditions)]
    inits: Sequence[object] = [None] * len(names)
    if "init_seed" in table.coords:
        inits = [None if i != i else i for i in table["init_seed"].values.tolist()]
    return design(names, list(inits), rule_b)


def _welch(values: np.ndarray, assignments: np.ndarray) -> np.ndarray:
    """Return Welch's statistic, (assignment, cell); the difference of lone networks."""
    values = values - values.mean(0)
    values = values / np.maximum(np.abs(values).max(0), np.finfo(float).tiny)
    b = assignments.astype(np.float64)
    count_b = b.sum(1, keepdims=True)
    count_a = len(values) - count_b
    sums, squares = b @ values, b @ values**2
    mean_a = (values.sum(0) - sums) / count_a
    mean_b = sums / count_b
    difference = np.abs(mean_b - mean_a)
    # Round-off of equal numbers is no difference.
    difference[difference < 1e-12] = 0.0
    if min(count_a[0, 0], count_b[0, 0]) < 2:
        return np.asarray(difference)
    rest = (values**2).sum(0) - squares
    noise_a = np.maximum(rest / count_a - mean_a**2, 0) / (count_a - 1)
    noise_b = np.maximum(squares / count_b - mean_b**2, 0) / (count_b - 1)
    noise = noise_a + noise_b
    noise[noise < 1e-14] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = difference / np.sqrt(noise)
        if count_a[0, 0] != count_b[0, 0]:
            # A few loose networks have few degrees of freedom: Wallace 1959 puts t on
            # the normal scale. At equal counts t orders assignments as the difference.
            # Satterthwaite's number is itself uncertain, so half of one is taken off:
            # 8 + 3 networks of spreads 1 and 2 reject 6.0 instead of 7.1 % of nulls.
            free = noise**2 / (noise_a**2 / (count_a - 1) + noise_b**2 / (count_b - 1))
            free = free - 0.5
            normal = (8 * free + 1) / (8 * free + 3) * np.sqrt(free)
            statistic = np.where(
                noise > 0, normal * np.sqrt(np.log1p(statistic**2 / free)), statistic
            )
    return np.where(difference > 0, statistic, 0.0)


def compare_means(
    values: np.ndarray, is_b: np.ndarray, assignments: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the statistics of all cells."""
    a, b = values[~is_b], values[is_b]
    difference = b.mean(0) - a.mean(0)
    free = len(values) - 2
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = np.sqrt(
            (((a - a.mean(0)) ** 2).sum(0) + ((b - b.mean(0)) ** 2).sum(0)) / free
        )
        effect = difference / np.where(pooled > 0, pooled, np.nan)
    statistic = _welch(np.where(np.isfinite(values), values, 0.0), assignments)
    # Infinity is reached by infinity: networks of a rule that are all the same.
    slack = np.where(np.isfinite(statistic[0]), 1e-9 * np.maximum(1, statistic[0]), 0)
    p = (statistic >= statistic[0] - slack).mean(0)
    return {
        "mean_a": a.mean(0),
        "mean_b": b.mean(0),
        "difference": difference,
        # Hedges' factor: the pooled deviation of few networks is too small.
        "effect": effect * (1 - 3 / (4 * free - 1)),
        "p_value": np.where(np.isfinite(values).all(0), p, np.nan),
    }
