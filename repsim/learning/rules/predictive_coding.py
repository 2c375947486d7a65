"""Predictive coding: activities settle between input and label, then weights learn.

From the paper: each layer's activity is pulled towards the prediction from below and
towards what explains the layer above; at the settled activities every weight's gradient
is a product of its own layer's prediction error and input. Ours: the output's squared
error is the rule's loss, the settling is a fixed number of gradient steps from the
forward pass, and predictions are whole blocks.
"""

from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from repsim.core.messages import whole
from repsim.core.modes import kept_buffers
from repsim.learning.optimisers import rate
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Common, Info
from repsim.learning.whole_step import loss_and_error

States = dict[str, Tensor]
"""Hidden block → its activity."""


class PredictiveCoding(Rule):
    r"""Settle activities before the weights learn (`predictive_coding`).

    .. math::
        F = \sum_{i < L} \tfrac{1}{2} \| s_i - f_i(s_{i-1}) \|^2
        + L(f_L(s_{L-1}), y), \qquad
        s_i \leftarrow s_i - \gamma \frac{\partial F}{\partial s_i}, \qquad
        \Delta W_i \propto - \frac{\partial F}{\partial W_i}

    so that :math:`\epsilon_i = f_i(s_{i-1}) - s_i` at the settled activities stands
    for the error at a block's output. It travels down one block a step: iterations
    should not be fewer than hidden blocks.

    Parameters
    ----------
    network, **options
        As in `Rule`.
    iterations : int
        Steps of the settling, at least 1.
    step_size : float
        γ, positive.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ValueError
        If an option is out of range.

    References
    ----------
    Whittington and Bogacz 2017, doi:10.1162/NECO_a_00949.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("predictive_coding", net, iterations=4)
    >>> sorted(rule.step(torch.rand(8, 4), torch.arange(8) % 2))
    ['loss']
    """

    name: ClassVar[str] = "predictive_coding"
    in_parts: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="Predictive coding",
        error="f_i(s_{i-1}) - s_i at activities s that have settled",
        learned="nothing; s settles anew for every batch",
        update_locked=True,
        backward_locked=True,
        sees_error=False,
        source="Whittington and Bogacz 2017; the loss at the output ours",
    )

    def __init__(
        self,
        network: nn.Module,
        *,
        iterations: int = 20,
        step_size: float = 0.1,
        **options: Unpack[Common],
    ) -> None:
        super().__init__(network, **options)
        self.iterations = whole(iterations, "iterations", 1)
        self.step_size = rate(step_size, "step_size")
        self.options |= {"iterations": self.iterations, "step_size": self.step_size}

    def nudges(self) -> list[tuple[float, float]]:
        """Return the weight of the loss in each settling, and that of its gradient."""
        return [(1.0, 1.0)]

    def start(self, x: Tensor) -> tuple[Tensor, States]:
        """Return the output of the forward pass, and the hidden activities there."""
        states: States = {}
        h = x
        with torch.no_grad():
            for name in self.blocks:
                h = states[name] = self.run(name, self.batch_checks.own(name, h))
        return states.pop(self.last), states

    def predictions(self, x: Tensor, states: States) -> States:
        """Return what every block makes of the activity below."""
        below = [x, *states.values()]
        return {
            name: self.run(name, self.batch_checks.own(name, h))
            for name, h in zip(self.blocks, below, strict=True)
        }

    def energy(self, x: Tensor, states: States, y: Tensor, nudge: float) -> Tensor:
        """Return F with the loss weighted by `nudge`, summed over examples."""
        predicted = self.predictions(x, states)
        energy = nudge * self.loss(predicted[self.last], y) * len(x)
        for name, state in states.items():
            energy = energy + 0.5 * (state - predicted[name]).square().sum()
        return energy

    def settled(self, x: Tensor, states: States, y: Tensor, nudge: float) -> States:
        """Return the activities after the steps down F."""
        for _ in range(self.iterations):
            free = {name: s.detach().requires_grad_() for name, s in states.items()}
            with torch.enable_grad():
                energy = self.energy(x, free, y, nudge)
            grads = torch.autograd.grad(energy, list(free.values()))
            states = {
                name: s.detach() - self.step_size * grad
                for (name, s), grad in zip(free.items(), grads, strict=True)
            }
        return states

    def gradients(self, x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
        """Add the weights' gradients of F at the settled activities."""
        output, states = self.start(x)
        loss, _ = loss_and_error(self, output, y)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        with kept_buffers(self.network):
            for nudge, weight in self.nudges():
                settled = self.settled(x, states, y, nudge)
                with torch.enable_grad():
                    energy = self.energy(x, settled, y, nudge)
                torch.autograd.backward(energy * (weight / count), inputs=parameters)
        return {"loss": loss}

    def used(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the prediction errors at the settled activities."""
        _, states = self.start(x)
        errors = {name: torch.zeros_like(h) for name, h in states.items()}
        top: list[Tensor] = []
        for nudge, weight in self.nudges():
            settled = self.settled(x, states, y, nudge)
            with torch.no_grad():
                predicted = self.predictions(x, settled)
            for name, state in settled.items():
                errors[name] += weight * (predicted[name] - state)
            _, error = loss_and_error(self, predicted[self.last], y)
            top.append(nudge * weight * error)
        return {**errors, self.last: torch.stack(top).sum(0)}
