"""Kickback: the output's error times a unit's influence on the next layer.

Balduzzi's is for one output: unit j of layer i gets the scalar error E times
τ_j = Σ_k w_jk 1[unit k of the next layer is active]; nothing is learned or random.
For several outputs the paper defines nothing. Ours, "kickback with assigned classes":
unit k of a layer belongs to class k mod C (channels for maps) and stands for that
class's error, which takes one exact step down through the next block. With one
output and blocks of linear layer and ReLU that is Balduzzi's rule to the letter;
other activations and normalisation keep their exact derivative in place of 1[active].
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from repsim.learning.passes import Cut
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Info


class Kickback(Rule):
    r"""Weigh the output's error by a unit's influence on the next block (`kickback`).

    .. math::
        \epsilon_{i,j} = \sum_k e_{c(k)} \, \frac{\partial h_{i+1,k}}{\partial h_{i,j}},
        \qquad c(k) = k \bmod C

    With one output this is :math:`E \tau_j`; the last hidden block gets the true
    error. The assignment of units to classes is ours (see the module).

    Parameters
    ----------
    network, **options
        As in `Rule`.

    Raises
    ------
    ValueError
        If the network's output is no vector.

    References
    ----------
    Balduzzi, Vanchinathan and Buhmann 2015, arXiv:1411.6191.
    """

    name: ClassVar[str] = "kickback"
    needs_incoming: ClassVar[bool] = False
    needs_vjp = True
    info: ClassVar[Info] = Info(
        method="Kickback",
        error="e K_i, K_i from the next block's weights and active units",
        learned="nothing; K predetermined",
        update_locked=True,
        backward_locked=False,
        sees_error=True,
        source="Balduzzi et al. 2015 for one output; classes assigned to units ours",
    )

    @property
    def cuts(self) -> list[str]:
        """Every hidden block."""
        return self.hidden

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse outputs to which no class of a unit belongs."""
        self.batch_checks.need_vectors("the classes of rule 'kickback'")
        self._latest: tuple[Tensor | None, dict[torch.Size, Tensor]] = None, {}

    def error(self, cut: Cut) -> Tensor:
        """Return one exact step down of the error assigned to the next block."""
        if cut.above is None:
            return cut.segment.pull(cut.output_error)
        return cut.segment.pull(self._assigned(cut.output_error, cut.above.h))

    def _assigned(self, output_error: Tensor, h: Tensor) -> Tensor:
        """Return `assigned`, once a step for all layers of one shape."""
        if self._latest[0] is not output_error:
            self._latest = output_error, {}
        known = self._latest[1]
        if h.shape not in known:
            known[h.shape] = assigned(output_error, h)
        return known[h.shape]


def assigned(output_error: Tensor, h: Tensor) -> Tensor:
    """Return the output's error, unit k of a layer taking that of class k mod C."""
    classes = torch.arange(h.shape[1], device=h.device) % output_error.shape[-1]
    units = output_error[:, classes]
    return units.reshape(*units.shape, *[1] * (h.ndim - 2)).expand(h.shape).contiguous()
