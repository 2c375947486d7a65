"""What a test found, in sentences that follow from its numbers."""

from collections.abc import Sequence

import numpy as np
import xarray as xr


def describe(result: xr.Dataset, *, level: float | None = None) -> str:
    """Return the conclusion of a `seed_test` or `profile_test` in plain language.

    Parameters
    ----------
    result : Dataset, dims (layer)
        Of one moment.
    level : float or None
        Rate of false discoveries; None is the test's own level.

    Returns
    -------
    str
        Which layers differ by more than seeds do and by how much, or why nothing can
        be said. A rejection is not read as a difference of place alone.

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
    ...      "level": 0.05, "test": "seed_test", "sentence": "", "smallest_p": 0.008},
    ... )
    >>> print(describe(found))
    bp and sg (5 and 5 networks): 1 of 2 layers differs by more than seeds do (q ≤ 0.05): h1. The largest effect is 2.5 standard deviations, at h1.
    """  # noqa: E501
    if result["q_value"].dims != ("layer",):
        msg = (
            "Expected the result of one moment, dims (layer), but got "
            f"({', '.join(str(d) for d in result['q_value'].dims)}); select one step."
        )
        raise ValueError(msg)
    attrs = result.attrs
    level = float(attrs["level"]) if level is None else level
    who = (
        f"{attrs['rule_a']} and {attrs['rule_b']} ({attrs['networks_a']} and "
        f"{attrs['networks_b']} networks)"
    )
    if attrs["smallest_p"] > level:
        return f"{who}: no conclusion. {attrs['sentence']}"
    q, effect = result["q_value"].values, result["effect"].values
    names = [str(name) for name in result["layer"].values]
    found = np.flatnonzero(q <= level)
    if not np.isfinite(q).any():
        return f"{who}: no conclusion. {attrs['sentence']}"
    total = int(np.isfinite(q).sum())
    rest = f" {attrs['sentence']}" if attrs["sentence"] else ""
    if not found.size:
        return (
            f"{who}: no layer of {total} differs by more than seeds do (smallest q "
            f"{np.nanmin(q):.2g}), which is not evidence that they are alike.{rest}"
        )
    largest = (
        found[int(np.nanargmax(np.abs(effect[found])))]
        if (np.isfinite(effect[found]).any())
        else found[0]
    )
    return (
        f"{who}: {found.size} of {total} layers "
        f"differ{'s' if found.size == 1 else ''} by more than seeds do "
        f"(q ≤ {level:g}): {ranges([names[i] for i in found], names)}."
        f"{_directions(result, found)} The largest effect is {effect[largest]:.1f} "
        f"standard deviations, at {names[largest]}.{_looseness(result, found)}{rest}"
    )


def _looseness(result: xr.Dataset, found: np.ndarray) -> str:
    """Return whether rules are less alike than the looser rule's own networks are."""
    if "within_a" not in result:
        return ""
    cells = {
        name: result[name].values[found]
        for name in ("within", "within_a", "within_b", "between")
    }
    sign = np.sign(cells["within"] - cells["between"])
    a, b, between = (sign * cells[k] for k in ("within_a", "within_b", "between"))
    inside = between >= np.fmin(a, b)
    if not inside.any():
        return ""
    rules = result.attrs["rule_a"], result.attrs["rule_b"]
    looser = {rules[0] if x < y else rules[1] for x, y in zip(a, b, strict=True)}
    who = f"of {looser.pop()}" if len(looser) == 1 else "of the looser rule"
    count = "there" if inside.all() else f"in {int(inside.sum())} of them"
    return (
        f" But {count} the two rules' networks are no less alike than two {who} are: "
        "the rules differ in how much their networks vary, which is enough for it."
    )


def _directions(result: xr.Dataset, found: np.ndarray) -> str:
    """Return which rule has the larger profile, where the result is one."""
    if result.attrs.get("test") != "profile_test":
        return ""
    up = int((result["difference"].values[found] > 0).sum())
    a, b = result.attrs["rule_a"], result.attrs["rule_b"]
    if up in (0, len(found)):
        return f" There {b if up else a} has the larger value."
    return f" {b} has the larger value in {up} of them, {a} in {len(found) - up}."


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
