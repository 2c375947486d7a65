"""No backpropagation: only the output block learns, the floor of D16's tables."""

from typing import ClassVar

import torch
from torch import Tensor

from repsim.learning.passes import Cut, forward, is_lean
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Info
from repsim.learning.whole_step import loss_and_error


class NoBackpropagation(Rule):
    r"""Let every hidden block rest at its initial weights (`none`).

    .. math:: \epsilon_i = 0, \qquad i < L

    Nothing arrives below the output block, which learns from the true error what can
    be read from random features. Statistics of normalisation still follow the data.
    In `noise` hidden blocks move, in random directions: another floor.

    Parameters
    ----------
    network, **options
        As in `Rule`.

    References
    ----------
    Jaderberg et al. 2017, arXiv:1608.05343, Table 1 ("no backprop").

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(64, hidden=[16], seed=0)
    >>> rule = repsim.learning.make("none", net, lr=1e-2)
    >>> log = repsim.train(
    ...     rule, repsim.datasets.load("digits"), steps=60, progress=False
    ... )
    >>> log.displacement[-1].values.tolist()[0]
    0.0
    """

    name: ClassVar[str] = "none"
    needs_incoming: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="No backpropagation",
        error="none; only the output block learns",
        learned="nothing",
        update_locked=False,
        backward_locked=False,
        sees_error=False,
        source="Jaderberg et al. 2017",
    )

    @property
    def cuts(self) -> list[str]:
        """The last hidden block, below which nothing arrives."""
        return self.hidden[-1:]

    def error(self, cut: Cut) -> Tensor:
        """Return zero."""
        return torch.zeros_like(cut.h)

    def gradients(self, x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
        """Differentiate the output block alone: a product with zero costs as much."""
        *_, top = forward(self, x, lean=is_lean(self, x))
        loss, error = loss_and_error(self, top.out, y)
        top.backward(error, count, keep=False, send=False)
        return {"loss": loss}
