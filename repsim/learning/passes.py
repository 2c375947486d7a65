"""Passes through parts of a network, and what a rule may look at at their ends."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from repsim.learning.closed_form import Chains, Layer, is_plain
from repsim.learning.losses import one_hot

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

    Examples
    --------
    A rule whose error is half of what comes from above sees one at every cut.

    >>> import repsim
    >>> class Half(repsim.learning.Rule):
    ...     name = "half"
    ...     cuts = property(lambda self: self.hidden)
    ...     def error(self, cut):
    ...         print(cut.name, tuple(cut.h.shape))
    ...         return cut.incoming / 2
    >>> rule = Half(repsim.networks.mlp(4, hidden=[3], classes=2, seed=0))
    >>> _ = rule.step(torch.rand(8, 4), torch.arange(8) % 2)
    hidden_1 (8, 3)
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


def is_lean(rule: "Rule", x: Tensor) -> bool:
    """Return whether the blocks can be differentiated by hand (see `lean`)."""
    return (
        rule.chains is not None
        and x.ndim == 2
        and len(x) > 1
        and is_plain(rule.modules)
        and not torch.is_autocast_enabled(x.device.type)
    )
