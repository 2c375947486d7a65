"""Noise: a random error at every hidden layer, the floor of every comparison."""

from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from repsim.learning.optimisers import not_negative
from repsim.learning.passes import Cut
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Common, Info


class Noise(Rule):
    r"""Put a random vector at every hidden block (`noise`).

    .. math::
        \epsilon_i = \sigma z, \qquad z \sim \mathcal{N}(0, I)

    drawn anew for every example and step; only the output block learns. That hidden
    blocks move at all, in random directions, is the paper's row; a network whose
    hidden blocks rest is another floor (`none`).

    Parameters
    ----------
    network, **options
        As in `Rule`.
    sigma : float
        Standard deviation; Adam divides it out.

    Raises
    ------
    TypeError
        If `sigma` is no number.
    ValueError
        If `sigma` is negative or not finite.
    """

    name: ClassVar[str] = "noise"
    needs_incoming: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="Noise",
        error="sigma z, z normal",
        learned="nothing",
        update_locked=False,
        backward_locked=False,
        sees_error=False,
        source="Czarnecki et al. 2017; sigma ours",
    )

    def __init__(
        self, network: nn.Module, *, sigma: float = 1.0, **options: Unpack[Common]
    ) -> None:
        super().__init__(network, **options)
        self.sigma = self.options["sigma"] = not_negative(sigma, "sigma")

    @property
    def cuts(self) -> list[str]:
        """Every hidden block."""
        return self.hidden

    def error(self, cut: Cut) -> Tensor:
        """Return σz from the rule's own generator."""
        drawn = torch.randn(cut.h.shape, generator=self.generator)
        return self.sigma * drawn.to(cut.h)
