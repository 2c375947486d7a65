"""Checks of arguments whose type annotations a caller may not have read."""

from numbers import Integral, Real
from typing import Any


def require(right: bool, value: Any, expected: str) -> None:
    """Refuse a value of the wrong type.

    Parameters
    ----------
    right : bool
        Whether the value is what is expected.
    value : object
        What came.
    expected : str
        What was expected, as in "`loss` to be a name".

    Raises
    ------
    TypeError
        If not `right`.

    Examples
    --------
    >>> require(callable(len), len, "`loss` to be a function")
    """
    if not right:
        msg = f"Expected {expected}, but got {type(value).__name__}."
        raise TypeError(msg)


def number(value: Any, name: str) -> float:
    """Return a real number as a float, and refuse everything else.

    Parameters
    ----------
    value : object
        What came; True and False are no numbers.
    name : str
        The argument's name.

    Returns
    -------
    float
        The number.

    Raises
    ------
    TypeError
        If it is none.

    Examples
    --------
    >>> number(1, "lr")
    1.0
    """
    right = isinstance(value, Real) and not isinstance(value, bool)
    require(right, value, f"`{name}` to be a number")
    return float(value)


def whole(value: Any, name: str, low: int) -> int:
    """Return a whole number as an int, and refuse everything else.

    Parameters
    ----------
    value : object
        What came; True and False are no numbers.
    name : str
        The argument's name.
    low : int
        The smallest that is allowed; the largest is 2⁶³ − 1.

    Returns
    -------
    int
        The number.

    Raises
    ------
    TypeError
        If it is no whole number.
    ValueError
        If it is out of range.

    Examples
    --------
    >>> whole(3, "seed", 0)
    3
    """
    right = isinstance(value, Integral) and not isinstance(value, bool)
    require(right, value, f"`{name}` to be a whole number")
    if not low <= value < 2**63:
        msg = f"Expected `{name}` between {low} and 2**63 - 1, but got {value}."
        raise ValueError(msg)
    return int(value)


def odd(value: Any, name: str) -> int:
    """Return a positive odd number as an int, and refuse everything else.

    Parameters
    ----------
    value : object
        What came.
    name : str
        The argument's name.

    Returns
    -------
    int
        The number.

    Raises
    ------
    TypeError
        If it is no whole number.
    ValueError
        If it is not positive, or even.

    Examples
    --------
    >>> odd(3, "kernel_size")
    3
    """
    found = whole(value, name, 1)
    if found % 2 == 0:
        msg = f"Expected `{name}` to be odd, but got {found}."
        raise ValueError(msg)
    return found


def flag(value: Any, name: str) -> bool:
    """Return True or False, and refuse what is merely truthy, such as "no".

    Parameters
    ----------
    value : object
        What came.
    name : str
        The argument's name.

    Returns
    -------
    bool
        The value.

    Raises
    ------
    TypeError
        If it is neither.

    Examples
    --------
    >>> flag(False, "conditioned")
    False
    """
    if not isinstance(value, bool):
        msg = f"Expected `{name}` to be True or False, but got {value!r}."
        raise TypeError(msg)
    return value
