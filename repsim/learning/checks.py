"""Checks of arguments whose type annotations a caller may not have read."""

from numbers import Integral, Real
from typing import Any


def require(right: bool, value: Any, expected: str) -> None:
    """Refuse a value of the wrong type."""
    if not right:
        msg = f"Expected {expected}, but got {type(value).__name__}."
        raise TypeError(msg)


def number(value: Any, name: str) -> float:
    """Return a real number as a float, and refuse everything else."""
    right = isinstance(value, Real) and not isinstance(value, bool)
    require(right, value, f"`{name}` to be a number")
    return float(value)


def whole(value: Any, name: str, low: int) -> int:
    """Return a whole number as an int, and refuse everything else."""
    right = isinstance(value, Integral) and not isinstance(value, bool)
    require(right, value, f"`{name}` to be a whole number")
    if not low <= value < 2**63:
        msg = f"Expected `{name}` between {low} and 2**63 - 1, but got {value}."
        raise ValueError(msg)
    return int(value)


def odd(value: Any, name: str) -> int:
    """Return a positive odd number as an int, and refuse everything else."""
    found = whole(value, name, 1)
    if found % 2 == 0:
        msg = f"Expected `{name}` to be odd, but got {found}."
        raise ValueError(msg)
    return found


def flag(value: Any, name: str) -> bool:
    """Return True or False, and refuse what is merely truthy, such as "no"."""
    if not isinstance(value, bool):
        msg = f"Expected `{name}` to be True or False, but got {value!r}."
        raise TypeError(msg)
    return value
