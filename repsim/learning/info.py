"""What a rule says about itself, in the words of the unification table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Info:
    """A rule's row in the table that unifies them (paper, section "conspiring").

    Parameters
    ----------
    method : str
        The rule's name in words.
    error : str
        The error at a block's output h_i, as a formula.
    learned : str
        What is trained, or fixed, to form that error.
    update_locked : bool
        Whether a block must wait for the blocks above to run forward.
    backward_locked : bool
        Whether it must wait for them to run backward, too.
    sees_error : bool
        Whether the error at the output is used directly.
    source : str
        Where the rule comes from.
    """

    method: str
    error: str
    learned: str
    update_locked: bool
    backward_locked: bool
    sees_error: bool
    source: str
