"""Forward–forward: two forward passes, and a goodness that every block judges itself.

From the paper: positive examples carry their own label and negative ones another; a
block's goodness is the mean square of its activity, raised on the first and lowered on
the second; nothing goes down; a softmax on the activity of examples with a neutral
label gives the answer. Ours: the label is a fixed random pattern added to the input and
no pattern is the neutral label, so that maps and tokens can have one and the network's
own forward pass gives the answer; and the length of an activity is left in, since that
forward pass leaves it in.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from repsim.learning.optimisers import rate
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Common, Info
from repsim.learning.whole_step import loss_and_error


class ForwardForward(Rule):
    r"""Raise goodness on right labels and lower it on wrong ones (`forward_forward`).

    .. math::
        g_i = \overline{h_i^2}, \qquad
        \epsilon_i = \frac{\partial}{\partial h_i} \log(1 + e^{\theta - g_i^+})
        + \frac{\partial}{\partial h_i} \log(1 + e^{g_i^- - \theta})

    on :math:`x + P_y` and :math:`x + P_{y'}` with another label :math:`y'` drawn for
    every example, and :math:`P \sim \mathcal{N}(0, s^2)`. The output block learns from
    the true error on x alone.

    Parameters
    ----------
    network, **options
        As in `Rule`.
    threshold : float
        θ, positive.
    scale : float
        s, positive.

    Attributes
    ----------
    patterns : Tensor, shape (classes, …)
        P.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ValueError
        If an option is out of range, or labels are no integers of two classes or more.

    References
    ----------
    Hinton 2022, arXiv:2212.13345.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("forward_forward", net)
    >>> sorted(rule.step(torch.rand(8, 4), torch.arange(8) % 2))
    ['goodness_loss', 'loss']
    """

    name: ClassVar[str] = "forward_forward"
    in_parts: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="Forward-forward",
        error="d log(1 + exp(theta - g_i(x + P_y)))/dh_i, and the reverse for wrong y",
        learned="nothing; P fixed and random",
        update_locked=False,
        backward_locked=False,
        sees_error=False,
        source="Hinton 2022; labels as patterns ours",
    )

    def __init__(
        self,
        network: nn.Module,
        *,
        threshold: float = 2.0,
        scale: float = 1.0,
        **options: Unpack[Common],
    ) -> None:
        super().__init__(network, **options)
        self.threshold = rate(threshold, "threshold")
        self.scale = rate(scale, "scale")
        self.options |= {"threshold": self.threshold, "scale": self.scale}

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Draw a pattern for every label."""
        self.batch_checks.need_vectors("the labels of rule 'forward_forward'")
        (classes,) = shapes[self.last]
        if classes < 2:
            msg = (
                "Expected a network of two classes or more for rule 'forward_forward', "
                f"but block {self.last!r} has {classes} output."
            )
            raise ValueError(msg)
        generator = torch.Generator().manual_seed(self.seed)
        shape = (classes, *(self.batch_checks.input_shape or ()))
        drawn = torch.randn(shape, generator=generator)
        self.patterns = self.scale * drawn.to(next(self.network.parameters()))

    def check(self, x: Tensor, y: Tensor) -> Tensor:
        """Refuse labels of which none is wrong, too."""
        y = super().check(x, y)
        if y.is_floating_point():
            msg = (
                "Expected integer labels `y` for rule 'forward_forward', which learns "
                f"from wrong ones, but got {y.dtype}."
            )
            raise ValueError(msg)
        return y

    def judged(self, h: Tensor, sign: float) -> Tensor:
        """Return log(1 + exp(±(θ − g))) of every example."""
        goodness = h.flatten(1).square().mean(1)
        return softplus(sign * (self.threshold - goodness))

    def gradients(self, x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
        """Add every block's own gradients, from one pass of three kinds of examples."""
        n, classes = len(x), len(self.patterns)
        drawn = torch.randint(1, classes, (n,), generator=self.generator)
        wrong = (y + drawn.to(y)) % classes
        # One batch, so that normalisation cannot tell the kinds apart by statistics.
        h = torch.cat([x + self.patterns[y], x + self.patterns[wrong], x])
        total = x.new_zeros(())
        for name in self.hidden:
            h = h.detach()
            with torch.enable_grad():
                h = self.run(name, self.batch_checks.own(name, h))
                own = self.judged(h[:n], 1) + self.judged(h[n : 2 * n], -1)
            if h.requires_grad:
                torch.autograd.backward(own.sum().div(count))
            total = total + own.detach().mean()
        with torch.enable_grad():
            output = self.run(
                self.last, self.batch_checks.own(self.last, h[2 * n :].detach())
            )
        loss, error = loss_and_error(self, output, y)
        if output.requires_grad:
            torch.autograd.backward(output, error / count)
        return {"loss": loss, "goodness_loss": total}

    def used(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the derivative of each block's own loss, the right label's half."""
        errors: dict[str, Tensor] = {}
        h, plain = x + self.patterns[y], x
        for name in self.hidden:
            with torch.no_grad():
                h = self.run(name, self.batch_checks.own(name, h))
                plain = self.run(name, self.batch_checks.own(name, plain))
            leaf = h.requires_grad_()
            (errors[name],) = torch.autograd.grad(self.judged(leaf, 1).sum(), leaf)
            h = h.detach()
        with torch.no_grad():
            output = self.run(self.last, self.batch_checks.own(self.last, plain))
        return {**errors, self.last: loss_and_error(self, output, y)[1]}

    def extra_state(self) -> dict[str, Any]:
        """Return P."""
        return {"patterns": self.patterns}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take P back."""
        self.patterns.copy_(state["patterns"])
