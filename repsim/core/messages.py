"""Sentences that tell a user what was expected, what came and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return the sentence for a name that does not exist, with the nearest match.

    Parameters
    ----------
    what : str
        What the name stands for, as the user wrote it: "layer", "measure".
    name : object
        What came.
    known : iterable of str
        What exists.

    Returns
    -------
    str
        One sentence, and a second one where a name is near.

    Examples
    --------
    >>> print(unknown("dataset", "mnst", ["digits", "mnist"]))
    Expected `dataset` to be one of digits, mnist, but got 'mnst'.
    Did you mean 'mnist'?
    """
    choices = [str(k) for k in known]
    listed = ", ".join(choices) if choices else "(none exist)"
    sentence = f"Expected `{what}` to be one of {listed}, but got {name!r}."
    near = get_close_matches(str(name), choices, n=1)
    return f"{sentence} Did you mean {near[0]!r}?" if near else sentence
