"""The errors of a whole step: what a rule puts at its cuts, and what is true there."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repsim.learning.passes import Cut, Pass, forward, is_lean, make_cuts

if TYPE_CHECKING:
    from repsim.learning.rule import Rule


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
