"""Checks of arguments whose type annotations a caller may not have read."""

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
