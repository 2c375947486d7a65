"""Segments of a network between cuts, and what is known at a cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Forward = Callable[[str, Tensor], Tensor]


@dataclass
class Segment:
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
        found = {id(h): g for h, g in zip(points, grads, strict=True)}
        self.sent = found.pop(id(self.entry), None)
        errors = {}
        for name, h in self.inner.items():
            got = error if h is self.out else found.get(id(h))
            errors[name] = torch.zeros_like(h) if got is None else got
        return errors


@dataclass
class Cut:
    """What a rule may look at when it forms the error at one cut.

    Parameters
    ----------
    name : str
        The block behind which the cut lies.
    h : Tensor, shape (n, …)
        The block's output, detached.
    labels : Tensor, shape (n, classes)
        Labels as vectors.
    output_error : Tensor, shape (n, classes)
        The error e at the network's output.
    segment : Segment
        The segment above; `segment.sent` is what it sends back to h (None where the
        rule's `needs_incoming` is False), `segment.pull` differentiates it again.
    above : Cut or None
        The next cut towards the output, with what a rule kept there.
    used, predicted, target : Tensor or None
        The error used here, a predictor's part in it and what it is trained towards.
    """

    name: str
    h: Tensor
    labels: Tensor
    output_error: Tensor
    segment: Segment
    above: "Cut | None" = None
    used: Tensor | None = None
    predicted: Tensor | None = None
    target: Tensor | None = None

    @property
    def incoming(self) -> Tensor:
        """What the segment above sends back, per sample."""
        if self.segment.sent is None:
            return torch.zeros_like(self.h)
        return self.segment.sent


def make_cuts(
    segments: Sequence[Segment], output_error: Tensor, labels: Tensor
) -> list[Cut]:
    """Return the cuts between segments, from the output down."""
    cuts: list[Cut] = []
    for below, above in zip(segments[-2::-1], segments[:0:-1], strict=True):
        upper = cuts[-1] if cuts else None
        h = below.out.detach()
        cuts.append(Cut(below.name, h, labels, output_error, above, upper))
    return cuts
