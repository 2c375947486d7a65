"""Equilibrium propagation: two settlings, nudged towards the label and away from it.

From the papers: the loss's gradient is the difference of the energy's gradients at two
equilibria over the difference of their nudges; nudging both ways takes the first
order of the error out. Ours: the energy, which is that of predictive coding. Its free
equilibrium is the network's own forward pass, so that what is recorded and scored is
the network that learns; Hopfield's energy has another, and no normalisation.
"""

from typing import ClassVar, Unpack

from torch import nn

from repsim.core.messages import flag
from repsim.learning.optimisers import rate
from repsim.learning.rule_info import Common, Info
from repsim.learning.rules.predictive_coding import PredictiveCoding


class EquilibriumPropagation(PredictiveCoding):
    r"""Learn from the difference of two nudged equilibria (`equilibrium`).

    .. math::
        F_\beta = \sum_{i < L} \tfrac{1}{2} \| s_i - f_i(s_{i-1}) \|^2
        + \beta L(f_L(s_{L-1}), y), \qquad
        \Delta W \propto - \frac{1}{2 \beta} \Big(
        \frac{\partial F_\beta}{\partial W}(s^{\beta}) -
        \frac{\partial F_{-\beta}}{\partial W}(s^{-\beta}) \Big)

    which tends to the exact gradient as β falls and the settling ends: with three
    phases, the free one and a nudge either way, up to a term in β²; with two, the free
    one and one nudge (over β), in β. The free phase is the forward pass, whose
    prediction errors are zero, so it costs no settling. The difference of the
    prediction errors stands for the error at a block's output.

    Parameters
    ----------
    network, **options
        As in `Rule`.
    beta : float
        β, positive.
    centred : bool
        Whether the estimate has three phases, as in Laborieux et al. 2021; two without,
        as in Scellier and Bengio 2017.
    iterations, step_size
        As in `predictive_coding`.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ValueError
        If an option is out of range.

    References
    ----------
    Scellier and Bengio 2017, doi:10.3389/fncom.2017.00024; Laborieux et al. 2021,
    doi:10.3389/fnins.2021.633674.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> repsim.learning.make("equilibrium", net, beta=0.5).options["beta"]
    0.5
    """

    name: ClassVar[str] = "equilibrium"
    info: ClassVar[Info] = Info(
        method="Equilibrium propagation",
        error="difference of f_i(s_{i-1}) - s_i at two nudges, over 2 beta",
        learned="nothing; s settles twice for every batch",
        update_locked=True,
        backward_locked=True,
        sees_error=False,
        source="Scellier and Bengio 2017; Laborieux et al. 2021; the energy ours",
    )

    def __init__(
        self,
        network: nn.Module,
        *,
        beta: float = 0.1,
        centred: bool = True,
        iterations: int = 20,
        step_size: float = 0.1,
        **options: Unpack[Common],
    ) -> None:
        super().__init__(network, iterations=iterations, step_size=step_size, **options)
        self.beta = self.options["beta"] = rate(beta, "beta")
        self.centred = self.options["centred"] = flag(centred, "centred")

    def nudges(self) -> list[tuple[float, float]]:
        """Return both ways, or the one; at the free equilibrium F has no gradient."""
        if not self.centred:
            return [(self.beta, 1 / self.beta)]
        weight = 1 / (2 * self.beta)
        return [(self.beta, weight), (-self.beta, -weight)]
