"""One pass: forward once, then every segment differentiated once, from the top."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from repsim.learning.closed_form import LeanSegment, is_plain
from repsim.learning.losses import one_hot
from repsim.learning.segments import Cut, Segment, make_cuts

if TYPE_CHECKING:
    from repsim.learning.rule import Rule


def gradients(rule: "Rule", x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
    """Add the gradients of one part of a batch, and return its losses."""
    lean = is_lean(rule, x)
    with torch.set_grad_enabled(not lean):
        segments = forward(rule, x, lean=lean)
    loss, error = output_error(rule, segments[-1].out, y)
    cuts = make_cuts(segments, error, one_hot(y, error.shape[-1]))
    rule.foresee(cuts)
    losses = {"loss": [loss]}
    for segment, cut in zip(segments[::-1], (None, *cuts), strict=True):
        if cut is not None:
            error = put(rule, cut)
            for name, value in rule.learn(cut, count).items():
                losses.setdefault(name, []).append(value)
        send = rule.needs_incoming and segment is not segments[0]
        segment.backward(error, count, keep=rule.pulls, send=send)
    return {name: sum(values[1:], values[0]) for name, values in losses.items()}


def forward(rule: "Rule", x: Tensor, *, lean: bool = False) -> list[Segment]:
    """Run the blocks, with the graph cut behind each block in the rule's `cuts`."""
    make: Callable[[Tensor], Segment] = Segment
    if lean and rule.chains is not None:
        make = partial(LeanSegment, chain=rule.chains)
    segments = [make(x)]
    h, cuts = x, frozenset(rule.cuts)
    for name in rule.blocks:
        try:
            h = segments[-1].run(name, rule.entrance.own(name, h), rule.run)
        except ValueError as error:
            msg = (
                f"Expected block {name!r} to take {len(x)} examples in training, but "
                f"it raised: {error}"
            )
            raise ValueError(msg) from error
        if name in cuts:
            h = h.detach().requires_grad_(
                not lean and (rule.needs_incoming or rule.pulls)
            )
            segments.append(make(h))
    if rule.pulls and not rule.needs_incoming:
        for segment in segments:
            segment.trained = _trained(rule, segment.inner)
    return segments


def _trained(rule: "Rule", names: Iterable[str]) -> list[nn.Parameter]:
    parameters = (p for name in names for p in rule.blocks[name].parameters())
    return [p for p in parameters if p.requires_grad]


def put(rule: "Rule", cut: Cut) -> Tensor:
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


def output_error(rule: "Rule", output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
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
