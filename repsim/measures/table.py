"""The table of measures in the documentation, made from the registry."""

from repsim.measures import catalogue as registry


def table() -> str:
    """Return what is known of every measure, as a Markdown table.

    Returns
    -------
    str
        One row a measure, one column an invariance.

    Examples
    --------
    >>> print(table().splitlines()[0][:22])
    | measure | larger is
    """
    maps = list(registry.INVARIANCES)
    titles = [name.replace("_", " ") for name in maps]
    lines = [
        f"| measure | larger is | symmetric | bounds | {' | '.join(titles)} |",
        "| --- | --- | --- | --- |" + " --- |" * len(maps),
    ]
    for name in registry.names():
        measure = registry.get(name)
        cells = [
            f"`{name}`",
            "more similar" if measure.larger_is_more_similar else "further apart",
            "yes" if measure.symmetric else "no",
            _bounds(measure.bounds),
            *("yes" if one in measure.invariances else "–" for one in maps),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _bounds(bounds: tuple[float, float] | None) -> str:
    """Return bounds in a few characters."""
    if bounds is None:
        return "none"
    low, high = (f"{bound:.4g}".replace("inf", "∞") for bound in bounds)
    return f"{low} to {high}"
