"""What a rule says of itself, and the options that every rule has."""

from dataclasses import dataclass
from typing import Literal, TypedDict

from repsim.learning.blocks import Blocks
from repsim.learning.losses import LossFunction
from repsim.learning.optimisers import Factory

Lock = bool | Literal["partly"]


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
    update_locked : bool or "partly"
        Whether a block must wait for the blocks above to run forward; partly: only
        for those up to the next cut.
    backward_locked : bool or "partly"
        Whether it must wait for them to run backward, too; partly as above.
    sees_error : bool
        Whether the error at the output is used directly.
    source : str
        Where the rule comes from.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3], classes=2, seed=0)
    >>> repsim.learning.make("sg", net).info.learned
    'S, on what the blocks above send back'
    """

    method: str
    error: str
    learned: str
    update_locked: Lock
    backward_locked: Lock
    sees_error: bool
    source: str


class Diverged(ValueError):
    """A loss has become NaN or infinite, and training has stopped.

    Examples
    --------
    >>> import repsim, torch
    >>> net = repsim.networks.mlp(4, hidden=[3], classes=2, seed=0)
    >>> rule = repsim.learning.make("bp", net, lr=1e30, loss="mse")
    >>> data = torch.rand(8, 4), torch.arange(8) % 2
    >>> repsim.train(rule, data, steps=5, progress=False)
    Traceback (most recent call last):
    repsim.learning.rule_info.Diverged: ...
    """


class Common(TypedDict, total=False):
    """Options of every rule; see `Rule`."""

    lr: float
    loss: str | LossFunction
    optimizer: Factory | None
    blocks: Blocks
    seed: int
