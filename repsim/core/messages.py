"""Sentences that tell a user what was expected, what came and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real
from operator import index
from typing import Any

import numpy as np


class Misuse(str):
    """The sentence for an argument that cannot be: the caller's mistake, as a type."""

    __slots__ = ()


class Unknown(Misuse):
    """The sentence for a name that does not exist."""

    __slots__ = ()


MOST = 700
"""Characters of a list of names; of a longer one only the nearest are said."""


def unknown(what: str, name: object, known: Iterable[str], more: str = "") -> Unknown:
    """Return the sentence for a name that does not exist, with the nearest match.

    Parameters
    ----------
    what : str
        What the name stands for, as the user wrote it: "layer", "measure".
    name : object
        What came.
    known : iterable of str
        What exists.
    more : str
        A sentence to end with.

    Returns
    -------
    Unknown
        One sentence, and a second one where a name is near.

    Examples
    --------
    >>> print(unknown("dataset", "mnst", ["digits", "mnist"]))
    Expected `dataset` to be one of digits, mnist, but got 'mnst'.
    Did you mean 'mnist'?
    """
    choices = [str(k) for k in known]
    listed = ", ".join(choices) if choices else "(none exist)"
    near = get_close_matches(str(name), choices, n=5)
    if len(listed) > MOST:
        some = near or choices[:5]
        listed = f"{', '.join(some)}, … ({len(choices)} in all)"
    sentence = f"Expected `{what}` to be one of {listed}, but got {name!r}."
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return Unknown(f"{sentence}{meant} {more}".rstrip())


def require(right: bool, value: Any, expected: str) -> None:
    """Refuse a value of the wrong type."""
    if not right:
        msg = f"Expected {expected}, but got {type(value).__name__}."
        raise TypeError(Misuse(msg))


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number of any library, and no True or False."""
    try:
        index(value)
    except TypeError:
        return False
    return not isinstance(value, bool | np.bool_)


def whole(value: Any, name: str, least: int = 0, most: int = 2**63 - 1) -> int:
    """Return a whole number within bounds as an int, and refuse everything else."""
    if not is_whole(value):
        msg = f"Expected `{name}` to be a whole number, but got {value!r}."
        raise TypeError(Misuse(msg))
    integer = index(value)
    if integer < least and most == 2**63 - 1:
        msg = f"Expected `{name}` to be at least {least}, but got {value}."
        raise ValueError(Misuse(msg))
    if not least <= integer <= most:
        msg = f"Expected `{name}` between {least} and {most}, but got {value}."
        raise ValueError(Misuse(msg))
    return integer


def seed_number(value: Any, name: str = "seed") -> int:
    """Return a seed, as NumPy, torch and scikit-learn all take it."""
    return whole(value, name, 0, 2**32 - 1)


def number(value: Any, name: str) -> float:
    """Return a real number as a float, and refuse everything else."""
    right = isinstance(value, Real) and not isinstance(value, bool)
    require(right, value, f"`{name}` to be a number")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """Return True or False, and refuse what is merely truthy, such as "no"."""
    if not isinstance(value, bool):
        msg = f"Expected `{name}` to be True or False, but got {value!r}."
        raise TypeError(Misuse(msg))
    return value
