"""Backpropagation: the exact error, one answer among others in the frame."""

from typing import ClassVar

from repsim.learning.rule import Rule
from repsim.learning.rule_info import Info


class Backpropagation(Rule):
    r"""Send the exact error back: :math:`\epsilon_i = J_{i+1}^T \epsilon_{i+1}`.

    Nothing is cut, so the frame's own loop is backpropagation.
    """

    name: ClassVar[str] = "bp"
    info: ClassVar[Info] = Info(
        method="BP",
        error="J_{i+1}' e_{i+1}, exact",
        learned="nothing",
        update_locked=True,
        backward_locked=True,
        sees_error=False,
        source="Rumelhart et al. 1986",
    )
