"""One step: forward once, then every segment differentiated once, from the top.

Segments lie between cuts; what a rule may look at when it forms the error at one stands
in `Cut`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from repsim.learning.closed_form import Chains, Layer, is_plain
from repsim.learning.losses import one_hot
from repsim.learning.randomness import isolated

if TYPE_CHECKING:
    from repsim.learning.rule import Rule

Forward = Callable[[str, Tensor], Tensor]


@dataclass
class Pass:
    """Blocks between two cuts in one forward pass."""

    entry: Tensor
    inner: dict[str, Tensor] = field(default_factory=dict)
    trained: list[nn.Parameter] = field(default_factory=list)
    sent: Tensor | None = None

    @property
    def out(self) -> Tensor:
        """The segment's output, where an error is put."""
        return next(reversed(self.inner.values()))

    @property
    def name(self) -> str:
        """The last block's name."""
        return next(reversed(self.inner))

    def run(self, name: str, h: Tensor, forward: Forward) -> Tensor:
        """Run one block forward and keep its output."""
        h = self.inner[name] = forward(name, h)
        return h

    def pull(self, error: Tensor) -> Tensor:
        """Return J'·error at the entry, keeping the graph."""
        (pulled,) = torch.autograd.grad(
            self.out, self.entry, error, retain_graph=True, allow_unused=True
        )
        return torch.zeros_like(self.entry) if pulled is None else pulled

    def backward(self, error: Tensor, count: int, *, keep: bool, send: bool) -> None:
        """Add the parameters' gradients for a per-sample error at the output.

        `keep` keeps the graph for `pull`; `send` differentiates by the entry, too.
        """
        if not self.out.requires_grad:
            return
        inputs = None if send or not self.entry.requires_grad else self.trained
        if inputs is None or inputs:
            torch.autograd.backward(
                self.out, error / count, retain_graph=keep, inputs=inputs
            )
        if self.entry.grad is not None:
            self.sent = self.entry.grad * count

    def inner_errors(self, error: Tensor) -> dict[str, Tensor]:
        """Return the error at every block's output, and touch no parameter."""
        if not self.out.requires_grad:
            zeros = {name: torch.zeros_like(h) for name, h in self.inner.items()}
            return {**zeros, self.name: error}
        points = [h for h in (*self.inner.values(), self.entry) if h.requires_grad]
        grads = torch.autograd.grad(
            self.out, points, error, retain_graph=True, allow_unused=True
        )
        gradient_of = {id(h): g for h, g in zip(points, grads, strict=True)}
        self.sent = gradient_of.pop(id(self.entry), None)
        errors = {}
        for name, h in self.inner.items():
            got = error if h is self.out else gradient_of.get(id(h))
            errors[name] = torch.zeros_like(h) if got is None else got
        return errors


@dataclass
class LeanPass(Pass):
    """A segment whose layers keep what they need for their own backward pass."""

    chain: Chains = field(default_factory=dict)
    saved: list[tuple[Layer, Any]] = field(default_factory=list)

    def run(self, name: str, h: Tensor, forward: Forward) -> Tensor:
        """Run one block's layers."""
        for layer in self.chain[name]:
            h, saved = layer.forward(h)
            self.saved.append((layer, saved))
        self.inner[name] = h
        return h

    @torch.no_grad()
    def pull(self, error: Tensor) -> Tensor:
        """Return J'·error at the entry."""
        for layer, saved in reversed(self.saved):
            error = layer.pull(saved, error)
        return error

    @torch.no_grad()
    def backward(self, error: Tensor, count: int, *, keep: bool, send: bool) -> None:
        """Add the parameters' gradients for a per-sample error at the output."""
        grad = error / count
        first = self.saved[0][0]
        for layer, saved in reversed(self.saved):
            down = layer.backward(saved, grad)
            if layer is not first:
                grad = down()
            elif send:
                self.sent = down().mul_(count)
        if not keep:
            self.saved.clear()


@dataclass
class Cut:
    """What a rule may look at when it forms the error at one cut.

    Parameters
    ----------
    name : str
        The block behind which the cut lies.
    h : Tensor, shape (n, …)
        The block's output, detached.
    y : Tensor, shape (n,) or (n, …)
        Labels as the loss takes them.
    labels : Tensor, shape (n, classes)
        Labels as vectors.
    output_error : Tensor, shape (n, classes)
        The error e at the network's output.
    segment : Pass
        The segment above; `segment.sent` is what it sends back to h (None where the
        rule's `needs_incoming` is False), `segment.pull` differentiates it again.
    above : Cut or None
        The next cut towards the output, with what a rule kept there.
    used, predicted, target : Tensor or None
        The error used here, a predictor's part in it and what it is trained towards.
    message : Tensor or None
        What has arrived from above, where segments work on their own (see `Segment`).
    """

    name: str
    h: Tensor
    y: Tensor
    labels: Tensor
    output_error: Tensor
    segment: Pass
    above: "Cut | None" = None
    used: Tensor | None = None
    predicted: Tensor | None = None
    target: Tensor | None = None
    message: Tensor | None = None

    @property
    def incoming(self) -> Tensor:
        """What the segment above sends back, per sample."""
        if self.message is not None:
            return self.message
        if self.segment.sent is None:
            return torch.zeros_like(self.h)
        return self.segment.sent


def make_cuts(segments: Sequence[Pass], output_error: Tensor, y: Tensor) -> list[Cut]:
    """Return the cuts between segments, from the output down."""
    labels = one_hot(y, output_error.shape[-1])
    cuts: list[Cut] = []
    for below, above in zip(segments[-2::-1], segments[:0:-1], strict=True):
        upper = cuts[-1] if cuts else None
        h = below.out.detach()
        cuts.append(Cut(below.name, h, y, labels, output_error, above, upper))
    return cuts


def gradients(rule: "Rule", x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
    """Add the gradients of one part of a batch, and return its losses."""
    lean = is_lean(rule, x)
    with torch.set_grad_enabled(not lean):
        segments = forward(rule, x, lean=lean)
    loss, error = loss_and_error(rule, segments[-1].out, y)
    cuts = make_cuts(segments, error, y)
    rule.predict(cuts)
    losses = {"loss": [loss]}
    for segment, cut in zip(segments[::-1], (None, *cuts), strict=True):
        if cut is not None:
            error = place_error(rule, cut)
            for name, value in rule.learn(cut, count).items():
                losses.setdefault(name, []).append(value)
        send = rule.needs_incoming and segment is not segments[0]
        segment.backward(error, count, keep=rule.needs_vjp, send=send)
    return {name: sum(values[1:], values[0]) for name, values in losses.items()}


def parts(rule: "Rule") -> list[list[str]]:
    """Return the blocks of every segment, from the input up."""
    groups: list[list[str]] = [[]]
    cuts = frozenset(rule.cuts)
    for name in rule.blocks:
        groups[-1].append(name)
        if name in cuts:
            groups.append([])
    return groups


def forward(rule: "Rule", x: Tensor, *, lean: bool = False) -> list[Pass]:
    """Run the blocks, with the graph cut behind each block in the rule's `cuts`."""
    segments: list[Pass] = []
    h = x
    for names in parts(rule):
        segments.append(run(rule, names, h, lean=lean))
        wanted = not lean and (rule.needs_incoming or rule.needs_vjp)
        h = segments[-1].out.detach().requires_grad_(wanted)
    return segments


def run(rule: "Rule", names: Sequence[str], h: Tensor, *, lean: bool) -> Pass:
    """Run one segment's blocks."""
    passed = Pass(h)
    if lean and rule.chains is not None:
        passed = LeanPass(h, chain=rule.chains)
    for name in names:
        try:
            h = passed.run(name, rule.batch_checks.own(name, h), rule.run)
        except ValueError as error:
            msg = (
                f"Expected block {name!r} to take {len(h)} examples in training, but "
                f"it raised: {error}"
            )
            raise ValueError(msg) from error
    if rule.needs_vjp and not rule.needs_incoming:
        passed.trained = trained(rule, names)
    return passed


def trained(rule: "Rule", names: Iterable[str]) -> list[nn.Parameter]:
    """Return some blocks' trainable parameters."""
    parameters = (p for name in names for p in rule.blocks[name].parameters())
    return [p for p in parameters if p.requires_grad]


def place_error(rule: "Rule", cut: Cut) -> Tensor:
    """Form the error at a cut, see that it fits, and note that it is used."""
    error = rule.error(cut)
    if not isinstance(error, Tensor) or error.shape != cut.h.shape:
        got = tuple(error.shape) if isinstance(error, Tensor) else error
        msg = (
            f"Expected `error` of rule {rule.name!r} to return a tensor of the shape "
            f"{tuple(cut.h.shape)} of block {cut.name!r}, but got {got!r}."
        )
        raise ValueError(msg)
    cut.used = error
    return error


def is_lean(rule: "Rule", x: Tensor) -> bool:
    """Return whether the blocks can be differentiated by hand (see `lean`)."""
    return (
        rule.chains is not None
        and x.ndim == 2
        and len(x) > 1
        and is_plain(rule.modules)
        and not torch.is_autocast_enabled(x.device.type)
    )


def loss_and_error(rule: "Rule", output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean loss and its per-sample derivative by the output."""
    with torch.enable_grad():
        leaf = output.detach().requires_grad_()
        loss = rule.loss(leaf, y)
    grad = None
    if loss.requires_grad:
        (grad,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    if grad is None:
        msg = (
            f"Expected loss {rule.loss_name!r} to be differentiable by the network's "
            "output, but it does not depend on it."
        )
        raise ValueError(msg)
    return loss.detach(), grad * len(output)


def true_errors(rule: "Rule", x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Differentiate the loss by every block's output, exactly."""
    h = x.detach().requires_grad_()
    segment = Pass(h)
    for name, block in rule.blocks.items():
        h = segment.inner[name] = block(rule.batch_checks.own(name, h))
    _, error = loss_and_error(rule, h, y)
    return segment.inner_errors(error)


def used_errors(rule: "Rule", x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Follow a step from the top down, without parameter gradients."""
    segments = forward(rule, x.detach().requires_grad_())
    _, error = loss_and_error(rule, segments[-1].out, y)
    cuts = make_cuts(segments, error, y)
    rule.predict(cuts)
    errors: dict[str, Tensor] = {}
    for segment, cut in zip(segments[::-1], (None, *cuts), strict=True):
        if cut is not None:
            error = place_error(rule, cut)
        errors |= segment.inner_errors(error)
    return errors


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
