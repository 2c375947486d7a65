"""Kolen–Pollack: feedback weights that learn to be the forward weights.

From the papers: forward and feedback weights get the same update and the same decay, so
that their difference decays whatever the data. Ours: the decay is taken behind the
optimiser's step, so that under any optimiser the difference shrinks by it alone.
"""

from collections.abc import Mapping
from typing import ClassVar, Unpack

import torch
from torch import nn

from repsim.core.messages import number
from repsim.learning.optimisers import make_optimizer
from repsim.learning.rule_info import Common, Info
from repsim.learning.rules.feedback import FeedbackAlignment


class KolenPollack(FeedbackAlignment):
    r"""Let the feedback weights learn with the forward ones (`kolen_pollack`).

    .. math::
        \epsilon_i = (\epsilon_{i+1} \odot \phi'(a_{i+1})) B_{i+1}, \qquad
        W \leftarrow (1 - \lambda)(W + \Delta), \quad
        B \leftarrow (1 - \lambda)(B + \Delta)

    with the optimiser's update Δ of W, so that W − B shrinks by 1 − λ a step and the
    rule becomes backpropagation with weight decay.

    Parameters
    ----------
    network, **options
        As in `Rule`.
    decay : float
        λ, between 0 and 1.

    Attributes
    ----------
    feedback : dict
        Module path → B.

    Raises
    ------
    ValueError
        If `decay` is not at least 0 and below 1.

    References
    ----------
    Kolen and Pollack 1994, doi:10.1109/ICNN.1994.374486; Akrout et al. 2019,
    arXiv:1904.05391.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3], classes=2, seed=0)
    >>> rule = repsim.learning.make("kolen_pollack", net, decay=0.5)
    >>> gap = (net.output.weight - rule.feedback["output"]).norm()
    >>> _ = rule.step(torch.rand(8, 4), torch.arange(8) % 2)
    >>> later = (net.output.weight - rule.feedback["output"]).norm()
    >>> round((later / gap).item(), 4)
    0.5
    """

    name: ClassVar[str] = "kolen_pollack"
    in_parts: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="Kolen–Pollack",
        error="(e_{i+1} * f'(a_{i+1})) B_{i+1}",
        learned="B, by the same updates and decay as W",
        update_locked=True,
        backward_locked=True,
        sees_error=False,
        source="Kolen and Pollack 1994; Akrout et al. 2019; scale of B ours",
    )

    def __init__(
        self, network: nn.Module, *, decay: float = 1e-3, **options: Unpack[Common]
    ) -> None:
        super().__init__(network, **options)
        self.decay = self.options["decay"] = number(decay, "decay")
        if not 0 <= self.decay < 1:
            msg = f"Expected `decay` to be at least 0 and below 1, but got {decay}."
            raise ValueError(msg)

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Draw the matrices, and give them an optimiser like that of the weights."""
        super().build(shapes)
        self.optimizers["feedback"] = make_optimizer(
            self.feedback.values(), self.lr, self.factory
        )

    def update(self) -> None:
        """Let the matrices take the weights' gradients, then let both decay."""
        for _, weight, feedback in self.pairs():
            feedback.grad = weight.grad
        super().update()
        with torch.no_grad():
            for _, weight, feedback in self.pairs():
                if weight.grad is not None:
                    weight.mul_(1 - self.decay)
                    feedback.mul_(1 - self.decay)
