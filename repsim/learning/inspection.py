"""Errors looked at without touching anything: those a rule uses, and the true ones."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repsim.learning.blocks import evaluating
from repsim.learning.losses import one_hot
from repsim.learning.passes import forward, output_error, put
from repsim.learning.segments import Segment, make_cuts

if TYPE_CHECKING:
    from repsim.learning.rule import Rule


def used_and_true(
    rule: "Rule", x: Tensor, y: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the error used and the true one at every block's output."""
    state = rule.generator.get_state()
    try:
        with torch.enable_grad(), evaluating(rule.network):
            true = _true(rule, x, y)
            used = _used(rule, x, y)
    finally:
        rule.generator.set_state(state)
    return {name: (used[name], true[name]) for name in rule.blocks}


def _true(rule: "Rule", x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Differentiate the loss by every block's output, exactly."""
    h = x.detach().requires_grad_()
    segment = Segment(h)
    for name, block in rule.blocks.items():
        h = segment.inner[name] = block(rule.entrance.own(name, h))
    _, error = output_error(rule, h, y)
    return segment.inner_errors(error)


def _used(rule: "Rule", x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Follow a step from the top down, without parameter gradients."""
    segments = forward(rule, x.detach().requires_grad_())
    _, error = output_error(rule, segments[-1].out, y)
    cuts = make_cuts(segments, error, one_hot(y, error.shape[-1]))
    rule.foresee(cuts)
    found: dict[str, Tensor] = {}
    for segment, cut in zip(segments[::-1], (None, *cuts), strict=True):
        if cut is not None:
            error = put(rule, cut)
        found |= segment.inner_errors(error)
    return found
