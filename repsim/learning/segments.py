"""A segment: the blocks between two cuts, which learn from the error at their end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from repsim.learning.losses import one_hot
from repsim.learning.passes import Cut, Pass, is_lean, run, trained
from repsim.learning.randomness import isolated
from repsim.learning.whole_step import loss_and_error, place_error

if TYPE_CHECKING:
    from repsim.learning.rule import Rule


@dataclass
class Flight:
    """One batch on its way through a segment."""

    passed: Pass
    cut: Cut | None = None
    error: Tensor | None = None


class Segment:
    """Blocks of a network between two cuts, which can work on their own.

    A rule's step is one schedule of its segments: all forward, then error and update
    from the output down. Others stand in `repsim.learning.schedules`. Several batches
    may be on their way through a segment; `at` tells them apart.

    Parameters
    ----------
    rule : Rule
        The rule, whose `segments` are made so.
    names : sequence of str
        The blocks, from the input up.

    Attributes
    ----------
    name : str
        The last block's name.
    names : tuple of str
        All blocks' names.
    losses : dict
        Losses of the latest error and update.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> rule = repsim.learning.make("sg", net, at=[1])
    >>> lower, upper = rule.segments
    >>> h = lower.forward(torch.rand(8, 4))
    >>> output, y = upper.forward(h), torch.arange(8) % 2
    >>> _ = upper.error(y)
    >>> message = upper.update()
    >>> lower.error(y, incoming=message).shape
    torch.Size([8, 3])
    >>> lower.update()
    """

    def __init__(self, rule: "Rule", names: Sequence[str]) -> None:
        self.rule, self.names = rule, tuple(names)
        self.name = self.names[-1]
        self.above: Segment | None = None
        self.flights: dict[int, Flight] = {}
        self.losses: dict[str, Tensor] = {}
        self._moved: list[Tensor] = []

    @property
    def is_first(self) -> bool:
        """Whether its input is the network's."""
        return self.names[0] == next(iter(self.rule.blocks))

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Its blocks' trainable parameters."""
        return trained(self.rule, self.names)

    def forward(self, h: Tensor, at: int = 0) -> Tensor:
        """Run forward.

        Parameters
        ----------
        h : Tensor, shape (n, …)
            What the segment below hands on, or the network's input.
        at : int
            Which batch this is.

        Returns
        -------
        Tensor
            What is handed on, detached.
        """
        rule = self.rule
        lean = is_lean(rule, h)
        wanted = (rule.needs_incoming or rule.needs_vjp) and not self.is_first
        h = h.detach().requires_grad_(wanted and not lean)
        with (
            isolated(rule.generator, rule.draws, h.device),
            torch.set_grad_enabled(not lean),
        ):
            self.flights[at] = Flight(run(rule, self.names, h, lean=lean))
        return self.flights[at].passed.out.detach()

    def error(
        self,
        y: Tensor,
        *,
        incoming: Tensor | None = None,
        output_error: Tensor | None = None,
        at: int = 0,
    ) -> Tensor:
        """Make the error at the segment's end, or take what has arrived.

        Parameters
        ----------
        y : Tensor, shape (n,) or (n, …)
            Labels.
        incoming : Tensor or None, shape (n, …)
            What the segment above has sent back, where it has.
        output_error : Tensor or None, shape (n, classes)
            The error at the network's output, for rules that see it.
        at : int
            Which batch this is; it has been run forward.

        Returns
        -------
        Tensor
            Per sample, of the shape of the output.

        Raises
        ------
        ValueError
            If the batch has not been run forward, or the rule needs something that has
            not arrived.
        """
        rule, flight = self.rule, self._flight(at)
        if self.above is None:
            loss, flight.error = loss_and_error(rule, flight.passed.out, y)
            self.losses = {"loss": loss}
            return flight.error
        if rule.info.sees_error and output_error is None:
            msg = (
                f"Expected `output_error` for rule {rule.name!r}, which sees the error "
                "at the output; run the segments above first."
            )
            raise ValueError(msg)
        upper = self.above.flights.get(at)
        h = flight.passed.out.detach()
        classes = rule.shapes[rule.last][-1]
        if output_error is None:
            output_error = h.new_zeros(len(h), classes)
        flight.cut = Cut(
            name=self.name,
            h=h,
            y=y,
            labels=one_hot(y, classes),
            output_error=output_error,
            segment=Pass(h) if upper is None else upper.passed,
            above=None if upper is None else upper.cut,
            message=incoming,
        )
        rule.predict([flight.cut])
        flight.error = place_error(rule, flight.cut)
        return flight.error

    def update(self, at: int = 0) -> Tensor | None:
        """Differentiate with the error made, and step with the segment's optimiser.

        Parameters
        ----------
        at : int
            Which batch this is; its error has been made.

        Returns
        -------
        Tensor or None
            What the segment sends back, per sample; None where the rule wants nothing.

        Raises
        ------
        ValueError
            If the error has not been made.
        """
        message = self.backward(at)
        self.apply()
        return message

    def backward(self, at: int = 0) -> Tensor | None:
        """Do the first half of `update`: differentiate, and return what is sent back.

        Parameters
        ----------
        at : int
            Which batch this is; its error has been made.

        Returns
        -------
        Tensor or None
            As `update`.

        Raises
        ------
        ValueError
            If the error has not been made.
        """
        rule, flight = self.rule, self._flight(at)
        if flight.error is None:
            msg = f"Expected the error of segment {self.name!r} before its update."
            raise ValueError(msg)
        count = len(flight.passed.out)
        self._moved = list(self.parameters)
        forget(self._moved)
        if flight.cut is not None and self._may_learn(flight.cut):
            learned = rule.learned(self.name)
            forget(learned)
            self.losses = rule.learn(flight.cut, count)
            self._moved += learned
        send = rule.needs_incoming and not self.is_first
        flight.passed.backward(flight.error, count, keep=rule.needs_vjp, send=send)
        return flight.passed.sent

    def apply(self) -> None:
        """Do the second half of `update`: step the segment's own parameters."""
        step_only(self.rule.optimizers.values(), self._moved)

    def learn(self, incoming: Tensor, at: int = 0) -> None:
        """Train what forms the errors on a message that has come after the update.

        Parameters
        ----------
        incoming : Tensor, shape (n, …)
            What the segment above has sent back.
        at : int
            Which batch this is.
        """
        cut = self._flight(at).cut
        learned = self.rule.learned(self.name)
        if cut is None or not learned:
            return
        cut.message, cut.target = incoming, None
        forget(learned)
        self.losses = self.rule.learn(cut, len(cut.h))
        step_only(self.rule.optimizers.values(), learned)

    def forget(self, at: int) -> None:
        """Drop a batch.

        Parameters
        ----------
        at : int
            Which batch this is; one that is not there is no error.
        """
        self.flights.pop(at, None)

    def _may_learn(self, cut: Cut) -> bool:
        return not self.rule.needs_incoming or cut.message is not None

    def _flight(self, at: int) -> Flight:
        if at not in self.flights:
            msg = (
                f"Expected a batch that segment {self.name!r} has run forward, but got "
                f"at={at}."
            )
            raise ValueError(msg)
        return self.flights[at]


def forget(parameters: Iterable[Tensor]) -> None:
    """Forget gradients."""
    for parameter in parameters:
        parameter.grad = None


def step_only(
    optimizers: Iterable[torch.optim.Optimizer], parameters: Sequence[Tensor]
) -> None:
    """Let optimisers step some of their parameters, as if they had no others."""
    wanted = {id(p) for p in parameters}
    for optimizer in optimizers:
        kept = [group["params"] for group in optimizer.param_groups]
        chosen = [[p for p in params if id(p) in wanted] for params in kept]
        if not any(chosen):
            continue
        for group, params in zip(optimizer.param_groups, chosen, strict=True):
            group["params"] = params
        try:
            optimizer.step()
        finally:
            for group, params in zip(optimizer.param_groups, kept, strict=True):
                group["params"] = params
