"""Direct random target projection: the label itself, projected onto every layer.

From the paper: fixed random matrices, the label in place of the error, so that a layer
is updated before the layers above have run. Ours: the matrices' scale, as in `dfa`.
"""

from typing import ClassVar

from torch import Tensor

from repsim.learning.passes import Cut
from repsim.learning.rule_info import Info
from repsim.learning.rules.direct import DirectFeedbackAlignment


class DirectRandomTargetProjection(DirectFeedbackAlignment):
    r"""Project the label onto every hidden block (`drtp`).

    .. math::
        \epsilon_i = - y B_i, \qquad (B_i)_{cj} \sim \mathcal{N}(0, 1 / d_i)

    The label stands for minus the error, whose sign it has in a classifier: softmax
    outputs lie below a one-hot label and above its zeros. The output block gets the
    true error.

    Parameters
    ----------
    network, **options
        As in `Rule`.

    Attributes
    ----------
    feedback : dict
        Hidden block → B, shape (classes, units).

    References
    ----------
    Frenkel, Lefebvre and Bol 2021, doi:10.3389/fnins.2021.629892.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3], classes=2, seed=0)
    >>> sorted(repsim.learning.make("drtp", net).feedback)
    ['hidden_1']
    """

    name: ClassVar[str] = "drtp"
    info: ClassVar[Info] = Info(
        method="DRTP",
        error="-y B_i",
        learned="nothing; B fixed and random",
        update_locked=False,
        backward_locked=False,
        sees_error=False,
        source="Frenkel et al. 2021; scale of B ours",
    )

    def signal(self, cut: Cut) -> Tensor:
        """Return minus the labels, as vectors."""
        return -cut.labels.to(cut.h)
