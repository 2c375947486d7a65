"""Which measure is meant, and what must be known about it."""

from repsim.measures import catalogue as registry
from repsim.measures.catalogue import Choice as Choice
from repsim.measures.catalogue import Measure
from repsim.measures.catalogue import named as named


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
