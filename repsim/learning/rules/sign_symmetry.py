"""Sign symmetry: the feedback weights have the signs of the forward ones alone.

From the paper: the sign of every weight goes down, its size does not. Ours: the common
size is the mean absolute value of the layer's initial weights, so that the error that
arrives has about backpropagation's size at the start.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from repsim.learning.rule_info import Info
from repsim.learning.rules.feedback import FeedbackAlignment


class SignSymmetry(FeedbackAlignment):
    r"""Replace the transposed weights by their signs (`signsym`).

    .. math::
        \epsilon_i = (\epsilon_{i+1} \odot \phi'(a_{i+1})) \, s_{i+1}
        \operatorname{sign}(W_{i+1})

    with the signs of the moment and :math:`s` the mean of :math:`|W|` at the start.

    Parameters
    ----------
    network, **options
        As in `Rule`.

    Attributes
    ----------
    feedback : dict
        Module path → s·sign(W), as of the latest pass.

    References
    ----------
    Liao, Leibo and Poggio 2016, arXiv:1510.05067; Xiao et al. 2018, arXiv:1811.03567.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3], classes=2, seed=0)
    >>> rule = repsim.learning.make("signsym", net)
    >>> bool((rule.feedback["output"] * net.output.weight > 0).all())
    True
    """

    name: ClassVar[str] = "signsym"
    in_parts: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="Sign symmetry",
        error="(e_{i+1} * f'(a_{i+1})) s sign(W_{i+1})",
        learned="nothing; the signs follow W",
        update_locked=True,
        backward_locked=True,
        sees_error=False,
        source="Liao et al. 2016; Xiao et al. 2018; scale s ours",
    )

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Take the layers' scales from their first weights."""
        super().build(shapes)
        self.scale = {path: w.detach().abs().mean() for path, w, _ in self.pairs()}
        self._follow()

    def _follow(self) -> None:
        """Take the signs that the weights have now."""
        for path, weight, feedback in self.pairs():
            feedback.copy_(weight.detach().sign().mul_(self.scale[path]))

    def gradients(self, x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
        """Add the gradients under the signs of the moment."""
        self._follow()
        return super().gradients(x, y, count)

    def used(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the errors under the signs of the moment."""
        self._follow()
        return super().used(x, y)

    def extra_state(self) -> dict[str, Any]:
        """Return the scales."""
        return dict(self.scale)

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take the scales back."""
        for path, scale in self.scale.items():
            scale.copy_(state[path])
