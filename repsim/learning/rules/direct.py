"""Direct feedback alignment: the output's error goes to every layer at once.

From the paper: fixed random matrices, the error at the output seen directly, exact
derivatives inside a block. Ours: entries are normal with variance 1/d_i, so that the
error at a layer has the size of the error at the output whatever the layer's width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from repsim.learning.passes import Cut
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Info


class DirectFeedbackAlignment(Rule):
    r"""Project the output's error onto every block (`dfa`).

    .. math::
        \epsilon_i = e B_i, \qquad B_i \in \mathbb{R}^{k \times d_i}, \quad
        (B_i)_{cj} \sim \mathcal{N}(0, 1 / d_i)

    Maps take a matrix over all their units. A block waits for the forward pass to
    end, and for no backward pass.

    Parameters
    ----------
    network, **options
        As in `Rule`.

    Attributes
    ----------
    feedback : dict
        Hidden block → B, shape (outputs, units).

    References
    ----------
    Nøkland 2016, arXiv:1609.01596.
    """

    name: ClassVar[str] = "dfa"
    needs_incoming: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="DFA",
        error="e B_i",
        learned="nothing; B fixed and random",
        update_locked=True,
        backward_locked=False,
        sees_error=True,
        source="Nøkland 2016; scale of B ours",
    )

    @property
    def cuts(self) -> list[str]:
        """Every hidden block."""
        return self.hidden

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Draw a matrix for every hidden block."""
        self.feedback: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(self.seed)
        like = next(self.network.parameters())
        outputs = torch.Size(shapes[self.last]).numel()
        for name in self.hidden:
            units = torch.Size(shapes[name]).numel()
            drawn = torch.randn(outputs, units, generator=generator)
            self.feedback[name] = drawn.to(like) / units**0.5

    def signal(self, cut: Cut) -> Tensor:
        """Return what is projected: the error at the output."""
        return cut.output_error

    def error(self, cut: Cut) -> Tensor:
        """Return the signal times B in the shape of h."""
        rows = self.signal(cut).reshape(len(cut.h), -1)
        return (rows @ self.feedback[cut.name]).reshape(cut.h.shape)

    def extra_state(self) -> dict[str, Any]:
        """Return the matrices."""
        return dict(self.feedback)

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take the matrices back."""
        for name, matrix in self.feedback.items():
            matrix.copy_(state[name])
