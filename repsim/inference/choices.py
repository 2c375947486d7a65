"""Which measure is meant, and what must be known about it."""

from collections.abc import Callable

from repsim.measures import catalogue as registry
from repsim.measures.catalogue import Measure

Choice = str | Measure | Callable[..., float]


def named(measure: Choice) -> Measure:
    """Return a measure from its name, itself, or a function."""
    if isinstance(measure, Measure):
        return measure
    if isinstance(measure, str):
        return registry.get(measure)
    for known in map(registry.get, registry.names()):
        if known.function is measure:
            return known
    if not callable(measure):
        msg = (
            "Expected `measure` to be a name or a function f(x, y), but got "
            f"{type(measure).__name__}."
        )
        raise TypeError(msg)
    name = getattr(measure, "__name__", type(measure).__name__)
    return Measure(name, measure, larger_is_more_similar=True, symmetric=False)


def directed(measure: Choice) -> Measure:
    """Return a measure of which it is known whether larger means more similar."""
    found = named(measure)
    if not isinstance(measure, str | Measure) and found.name not in registry.names():
        msg = (
            "Expected `measure` to be a registered measure, but got the function "
            f"{found.name!r}; a test must know whether larger means more similar, so "
            "register it first with repsim.measures.register."
        )
        raise TypeError(msg)
    return found
