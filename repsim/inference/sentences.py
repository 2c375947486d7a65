"""What a test found, in sentences that follow from its numbers."""

from collections.abc import Sequence

import numpy as np
import xarray as xr


def findings(result: xr.Dataset, level: float | None = None) -> xr.DataArray:
    """Return for each layer what a test found there.

    Parameters
    ----------
    result : Dataset
        Of `seed_test` or `profile_test`, of any dims.
    level : float or None
        Rate of false discoveries; None is the test's own level.

    Returns
    -------
    DataArray of str
        "place", "spread", "place and spread", or "" where nothing was found.

    Examples
    --------
    >>> q = xr.Dataset({"q_value": ("layer", [0.01, 0.4]),
    ...                 "spread_q_value": ("layer", [0.3, 0.02])})
    >>> findings(q, 0.05).values.tolist()
    ['place', 'spread']
    """
    level = float(result.attrs["level"]) if level is None else level
    place = (result["q_value"] <= level).values
    spread = np.zeros_like(place)
    if "spread_q_value" in result:
        spread = (result["spread_q_value"] <= level).values
        if result.attrs.get("place_statistic") == "difference":
            place = place & _beyond_the_looser(result)
    names = np.array(["", "place", "spread", "place and spread"])
    return result["q_value"].copy(data=names[place + 2 * spread]).drop_attrs()


def _beyond_the_looser(result: xr.Dataset) -> np.ndarray:
    """Return where rules are less alike than the looser rule's own networks."""
    a, b, between = (
        result[name].values for name in ("within_a", "within_b", "between")
    )
    sign = 1 if result.attrs["larger_is_more_similar"] else -1
    # Of a rule with one network the looseness is unknown.
    return np.asarray(sign * between < np.fmin(sign * a, sign * b))


def describe(result: xr.Dataset, *, level: float | None = None) -> str:
    """Return the conclusion of a test in plain language.

    Parameters
    ----------
    result : Dataset, dims (layer)
        Of `seed_test`, `profile_test` or `equivalence_test`, of one moment.
    level : float or None
        Rate of false discoveries; None is the test's own level.

    Returns
    -------
    str
        Of a seed test, the first sentence says whether the rules differ in place, in
        spread or whether nothing was found, with one p over all layers; then where
        and by how much, or why nothing can be said.

    Raises
    ------
    ValueError
        If the result has other dims than `layer`.

    Examples
    --------
    >>> import xarray as xr
    >>> found = xr.Dataset(
    ...     {"q_value": ("layer", [0.01, 0.4]), "effect": ("layer", [2.5, 0.1]),
    ...      "difference": ("layer", [0.2, 0.01])},
    ...     {"layer": ["h1", "h2"]},
    ...     {"rule_a": "bp", "rule_b": "sg", "networks_a": 5, "networks_b": 5,
    ...      "level": 0.05, "test": "profile_test", "sentence": "",
    ...      "smallest_p": 0.008},
    ... )
    >>> print(describe(found))
    bp and sg (5 and 5 networks): 1 of 2 layers differs by more than seeds do (q ≤ 0.05): h1. There sg has the larger value. The largest effect is 2.5 standard deviations, at h1.
    """  # noqa: E501
    main = "q_value" if "q_value" in result else "p_value"
    if result[main].dims != ("layer",):
        msg = (
            "Expected the result of one moment, dims (layer), but got "
            f"({', '.join(str(d) for d in result[main].dims)}); select one step."
        )
        raise ValueError(msg)
    attrs = result.attrs
    level = float(attrs["level"]) if level is None else level
    who = (
        f"{attrs['rule_a']} and {attrs['rule_b']} ({attrs['networks_a']} and "
        f"{attrs['networks_b']} networks)"
    )
    if attrs["test"] == "equivalence_test":
        return f"{who}{_alike(result, level)}"
    if attrs["smallest_p"] > level or not np.isfinite(result["q_value"]).any():
        return f"{who}: no conclusion. {attrs['sentence']}"
    rest = f" {attrs['sentence']}" if attrs["sentence"] else ""
    if attrs["test"] == "seed_test":
        return f"{who}{_two_findings(result, level)}{rest}"
    return f"{who}: {_profile(result, level)}{rest}"


def _two_findings(result: xr.Dataset, level: float) -> str:
    """Return what was found of place and of spread: first whether, then where.

    A layer is named only if one test over all layers and both findings rejects too,
    so that two rules that do not differ are said to differ in 5 % of studies at most.
    """
    kinds = findings(result, level).values
    total = int(np.isfinite(result["q_value"]).sum())
    omnibus, place, spread = (
        float(result[name].item()) if name in result else 0.0
        for name in ("omnibus_p", "omnibus_place_p", "omnibus_spread_p")
    )
    sure = omnibus <= level
    where = {
        kind: np.flatnonzero([sure and kind in one for one in kinds])
        for kind in ("place", "spread")
    }
    tested = f"one test over all {total} layers: p = {omnibus:.2g}; "
    tested += f"of place {place:.2g}, of spread {spread:.2g}"
    said = [kind for kind, at in where.items() if at.size]
    if not said:
        smallest = [
            np.nanmin(result[name].values) if result[name].notnull().any() else np.nan
            for name in ("q_value", "spread_q_value")
        ]
        return (
            f": nothing found, neither in place nor in spread ({tested}). The smallest "
            f"q of a layer are {smallest[0]:.2g} and {smallest[1]:.2g}, which is not "
            "evidence that the rules are alike."
        )
    verdict = " and ".join(said) + ("" if len(said) == 2 else " alone")
    sentences = [f" differ in {verdict} ({tested})."]
    if where["place"].size:
        sentences.append(_place(result, where["place"], total, level))
    if where["spread"].size:
        sentences.append(_spread(result, where["spread"], total, level))
    return " ".join(sentences)


def _place(result: xr.Dataset, at: np.ndarray, total: int, level: float) -> str:
    names = [str(name) for name in result["layer"].values]
    effect = result["effect"].values
    return (
        f"Place: {at.size} of {total} layers differ{'s' if at.size == 1 else ''} by "
        f"more than seeds do (q ≤ {level:g}): {ranges([names[i] for i in at], names)}."
        f"{_largest(effect, at, names)}"
    )


def _largest(effect: np.ndarray, at: np.ndarray, names: list[str]) -> str:
    if not np.isfinite(effect[at]).any():
        return ""
    most = at[int(np.nanargmax(np.abs(effect[at])))]
    return (
        f" The largest effect is {effect[most]:.1f} standard deviations, at "
        f"{names[most]}."
    )


def _spread(result: xr.Dataset, at: np.ndarray, total: int, level: float) -> str:
    names = [str(name) for name in result["layer"].values]
    rules = str(result.attrs["rule_a"]), str(result.attrs["rule_b"])
    ratio = result["spread_ratio"].values[at]
    text = (
        f"Spread: in {at.size} of {total} layers (q ≤ {level:g}) networks vary more "
        f"under one rule than under the other: {ranges([names[i] for i in at], names)};"
    )
    looser = int((ratio > 1).sum())
    if looser in (0, len(at)):
        more, less = rules[::-1] if looser else rules
        return f"{text} there {more}'s vary more than {less}'s."
    return f"{text} {rules[1]}'s vary more in {looser}, {rules[0]}'s in the others."


def _profile(result: xr.Dataset, level: float) -> str:
    q = result["q_value"].values
    names = [str(name) for name in result["layer"].values]
    at = np.flatnonzero(q <= level)
    total = int(np.isfinite(q).sum())
    if not at.size:
        return (
            f"no layer of {total} differs by more than seeds do (smallest q "
            f"{np.nanmin(q):.2g}), which is not evidence that they are alike."
        )
    return (
        f"{at.size} of {total} layers differ{'s' if at.size == 1 else ''} by more than "
        f"seeds do (q ≤ {level:g}): {ranges([names[i] for i in at], names)}."
        f"{_directions(result, at)}{_largest(result['effect'].values, at, names)}"
    )


def _directions(result: xr.Dataset, at: np.ndarray) -> str:
    """Return which rule has the larger profile."""
    up = int((result["difference"].values[at] > 0).sum())
    a, b = result.attrs["rule_a"], result.attrs["rule_b"]
    if up in (0, len(at)):
        return f" There {b if up else a} has the larger value."
    return f" {b} has the larger value in {up} of them, {a} in {len(at) - up}."


def _alike(result: xr.Dataset, level: float) -> str:
    """Return where rules are alike within the bound."""
    names = [str(name) for name in result["layer"].values]
    p = result["p_value"].values
    at = np.flatnonzero(p <= level)
    total, bound = int(np.isfinite(p).sum()), float(result.attrs["bound"])
    rest = f" {result.attrs['sentence']}" if result.attrs["sentence"] else ""
    if not at.size:
        return (
            f": not shown to be alike within {bound:g} at any layer of {total}, which "
            f"is not evidence that they differ.{rest}"
        )
    every = " (all together: " + (
        "yes)" if np.nanmax(p) <= level and len(at) == len(p) else "no)"
    )
    return (
        f" are alike within {bound:g} at {at.size} of {total} layers (p ≤ {level:g} "
        f"each): {ranges([names[i] for i in at], names)}{every}.{rest}"
    )


def ranges(some: Sequence[str], every: Sequence[str]) -> str:
    """Return names in words, neighbours joined: "h1 to h3, h7"."""
    groups: list[list[str]] = []
    places = {name: i for i, name in enumerate(every)}
    for name in some:
        if groups and places[name] == places[groups[-1][-1]] + 1:
            groups[-1].append(name)
        else:
            groups.append([name])
    words = []
    for group in groups:
        if len(group) > 2:
            words.append(f"{group[0]} to {group[-1]}")
        else:
            words.extend(group)
    return ", ".join(words)
