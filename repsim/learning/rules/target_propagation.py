"""Difference target propagation: targets go down through learned inverses.

From the papers: the target of a block is what the inverse of the block above makes of
that block's target, corrected by what it makes of the block's own output; inverses
learn to reconstruct noisy activations, each alone or as part of the whole way down;
the last hidden block's target is a step along the exact gradient. Ours: errors are
divided by that step, which makes them of the size of backpropagation's; inverses are
affine, on maps an enlargement and a convolution.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from repsim.core.messages import unknown
from repsim.core.modes import kept_buffers
from repsim.learning.optimisers import make_optimizer, not_negative, rate
from repsim.learning.passes import Cut
from repsim.learning.randomness import seeded
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Common, Info
from repsim.learning.rules.predictors import held

RECONSTRUCTIONS = ("local", "difference")


class DifferenceTargetPropagation(Rule):
    r"""Send targets down in place of errors (`dtp`).

    .. math::
        t_i = h_i + g_i(t_{i+1}) - g_i(h_{i+1}), \qquad
        \epsilon_i = (h_i - t_i) / \eta

    from :math:`t_L = h_L - \eta J^T e` at the last hidden block. The inverse
    :math:`g_i` minimises :math:`\| g_i(f_{i+1}(\tilde h_i)) - \tilde h_i \|^2` with
    :math:`\tilde h_i = h_i + \sigma z`; or, with ``reconstruction="difference"``, what
    the whole way down from the last hidden block, corrected at every block as above,
    makes of a disturbance at :math:`h_i` and of one at the top:

    .. math::
        \sigma^{-2} \| \bar g_i(\bar f_i(\tilde h_i)) - \tilde h_i \|^2
        + \lambda \sigma^{-2} \| \bar g_i(h_L + \sigma z') - h_i \|^2

    so that targets go down through the damped pseudo-inverse of the blocks above.

    Parameters
    ----------
    network, **options
        As in `Rule`.
    step_size : float
        η, positive.
    sigma : float
        Standard deviation of the noise, at least 0.
    inverse_lr : float or None
        The inverses' learning rate; None is `lr`.
    reconstruction : {"local", "difference"}
        What the inverses learn: to invert their own block (Lee et al. 2015), or the
        difference reconstruction loss (Meulemans et al. 2020), which needs σ > 0.
    damping : float
        λ of the latter, at least 0.

    Attributes
    ----------
    inverses : dict
        Hidden block, the last one left out → its inverse.

    Raises
    ------
    ValueError
        If an option is out of range.

    References
    ----------
    Lee et al. 2015, doi:10.1007/978-3-319-23528-8_31; Meulemans et al. 2020,
    arXiv:2006.14331.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> sorted(repsim.learning.make("dtp", net).inverses)
    ['hidden_1']
    """

    name: ClassVar[str] = "dtp"
    needs_incoming: ClassVar[bool] = False
    needs_vjp = True
    info: ClassVar[Info] = Info(
        method="DTP",
        error="(h_i - t_i) / eta, t_i = h_i + g_i(t_{i+1}) - g_i(h_{i+1})",
        learned="g, to invert the block above",
        update_locked=True,
        backward_locked=True,
        sees_error=False,
        source="Lee et al. 2015; Meulemans et al. 2020; affine g ours",
    )

    def __init__(
        self,
        network: nn.Module,
        *,
        step_size: float = 0.1,
        sigma: float = 0.1,
        inverse_lr: float | None = None,
        reconstruction: Literal["local", "difference"] = "local",
        damping: float = 0.1,
        **options: Unpack[Common],
    ) -> None:
        super().__init__(network, **options)
        self.step_size = rate(step_size, "step_size")
        self.sigma = not_negative(sigma, "sigma")
        own = self.lr if inverse_lr is None else inverse_lr
        self.inverse_lr = rate(own, "inverse_lr")
        if reconstruction not in RECONSTRUCTIONS:
            known = list(RECONSTRUCTIONS)
            raise ValueError(unknown("reconstruction", reconstruction, known))
        self.reconstruction = reconstruction
        self.damping = not_negative(damping, "damping")
        if reconstruction == "difference" and self.sigma == 0:
            msg = (
                "Expected `sigma` above 0 with reconstruction='difference', which "
                "divides by it, but got 0."
            )
            raise ValueError(msg)
        self.options |= {
            "step_size": self.step_size,
            "sigma": self.sigma,
            "inverse_lr": self.inverse_lr,
            "reconstruction": reconstruction,
            "damping": self.damping,
        }

    @property
    def cuts(self) -> list[str]:
        """Every hidden block."""
        return self.hidden

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make an inverse for every hidden block that has a hidden one above."""
        like = next(self.network.parameters())
        pairs = list(zip(self.hidden[:-1], self.hidden[1:], strict=True))
        with seeded(self.seed):
            self.inverses = {
                name: _inverse(shapes[above], shapes[name]).to(like)
                for name, above in pairs
            }
        if self.inverses:
            parameters = [p for g in self.inverses.values() for p in g.parameters()]
            self.optimizers["inverses"] = make_optimizer(
                parameters, self.inverse_lr, self.factory
            )

    def learned(self, name: str) -> list[nn.Parameter]:
        """Return the inverse's parameters."""
        return list(self.inverses[name].parameters()) if name in self.inverses else []

    def error(self, cut: Cut) -> Tensor:
        """Return the distance from the target, which the cut below wants, too."""
        if cut.above is None:
            error = cut.segment.pull(cut.output_error)
        else:
            inverse = self.inverses[cut.name]
            with torch.no_grad():
                back = inverse(cut.above.h) - inverse(held(cut.above.target))
            error = back / self.step_size
        cut.target = cut.h - self.step_size * error
        return error

    def learn(self, cut: Cut, count: int) -> dict[str, Tensor]:
        """Add the gradient of the inverse's reconstruction."""
        if cut.above is None:
            return {}
        whole_way = self.reconstruction == "difference"
        above = list(_above(cut)) if whole_way else [cut.above]
        noisy = self._disturbed(cut.h)
        with torch.no_grad():
            top = noisy
            for higher in above:
                block = self.blocks[higher.name]
                with kept_buffers(block):
                    top = block(self.batch_checks.own(higher.name, top))
        parameters = list(self.inverses[cut.name].parameters())
        with torch.enable_grad():
            if whole_way:
                disturbed = self._disturbed(above[-1].h)
                loss = (self._down(cut, above, top) - noisy).square().sum()
                back = (self._down(cut, above, disturbed) - cut.h).square().sum()
                loss = (loss + self.damping * back) / self.sigma**2
            else:
                loss = (self.inverses[cut.name](top) - noisy).square().sum()
            torch.autograd.backward(loss / count, inputs=parameters)
        return {"inverse_loss": loss.detach() / len(noisy)}

    def _disturbed(self, h: Tensor) -> Tensor:
        drawn = torch.randn(h.shape, generator=self.generator)
        return h + self.sigma * drawn.to(h)

    def _down(self, cut: Cut, above: list[Cut], top: Tensor) -> Tensor:
        """Return what the way down makes of an output of the last hidden block."""
        for lower, higher in zip([*above[-2::-1], cut], above[::-1], strict=True):
            inverse = self.inverses[lower.name]
            top = lower.h + inverse(top) - inverse(higher.h)
        return top

    def extra_state(self) -> dict[str, Any]:
        """Return the inverses' weights."""
        return {name: g.state_dict() for name, g in self.inverses.items()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take the inverses' weights back."""
        for name, inverse in self.inverses.items():
            inverse.load_state_dict(state[name])


def _above(cut: Cut) -> Iterator[Cut]:
    """Yield the cuts above one, upwards."""
    while cut.above is not None:
        cut = cut.above
        yield cut


def _inverse(above: tuple[int, ...], below: tuple[int, ...]) -> nn.Module:
    """Return an affine map from outputs of one block to those of the block below."""
    if len(above) == len(below) == 3:
        enlarged = nn.Upsample(size=below[1:])
        return nn.Sequential(enlarged, nn.Conv2d(above[0], below[0], 3, padding=1))
    if len(above) == len(below) and above[:-1] == below[:-1]:
        return nn.Linear(above[-1], below[-1])
    sizes = torch.Size(above).numel(), torch.Size(below).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(*sizes), nn.Unflatten(1, below))
