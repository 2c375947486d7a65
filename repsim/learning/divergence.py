"""A loss that is no longer finite stops training, and is told where it began."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repsim.learning.blocks import evaluating

if TYPE_CHECKING:
    from repsim.learning.rule import Rule


def check_finite(rule: "Rule", x: Tensor, losses: Mapping[str, Tensor]) -> None:
    """Stop at a loss that is NaN or infinite."""
    # The sum is looked at first, which is cheaper; it may overflow on its own.
    if torch.isfinite(torch.stack(list(losses.values())).sum()):
        return
    bad = [name for name, value in losses.items() if not torch.isfinite(value)]
    if not bad:
        return
    msg = (
        f"Expected a finite loss, but got {bad[0]} = {float(losses[bad[0]])} at step "
        f"{rule.steps + 1} of rule {rule.name!r}, first in layer "
        f"{_first_bad(rule, x)!r}; try a smaller learning rate."
    )
    raise ValueError(msg)


def _first_bad(rule: "Rule", x: Tensor) -> str:
    """Return the first block with weights or outputs that are not finite."""
    with torch.no_grad(), evaluating(rule.network):
        h = x
        for name, block in rule.blocks.items():
            h = block(rule.entrance.own(name, h))
            if not all(torch.isfinite(t).all() for t in (h, *block.parameters())):
                return name
    return rule.last
