"""The state of a rule: what it holds, and whether it fits."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from repsim.core.messages import require

STATE = (
    *("rule", "options", "steps", "input_shape", "network"),
    *("optimizers", "generator", "initial", "extra"),
)
"""What a state holds."""


def check_state(state: Mapping[str, Any], **mine: object) -> None:
    """Refuse what is no rule's state, or that of a rule of another name or options."""
    require(isinstance(state, Mapping), state, "`state` to be a rule's state_dict()")
    missing = [key for key in STATE if key not in state]
    if missing:
        msg = f"Expected a rule's state, but it lacks {', '.join(missing)}."
        raise ValueError(msg)
    for what, own in mine.items():
        if state[what] != own:
            msg = (
                f"Expected a state of {what} {own!r}, but got {state[what]!r}; "
                "make the rule with the same name and options."
            )
            raise ValueError(msg)


def check_network(network: nn.Module, state: Mapping[str, Any]) -> None:
    """Name the first number of the network that the state has otherwise or not."""
    mine, theirs = (
        {name: tuple(getattr(value, "shape", ())) for name, value in numbers.items()}
        for numbers in (network.state_dict(), state)
    )
    for name in [*mine, *theirs]:
        if mine.get(name) != theirs.get(name):
            msg = (
                f"Expected a state of the same network, but {name!r} has the shape "
                f"{theirs.get(name, 'none (it is missing)')} there and "
                f"{mine.get(name, 'none (it is missing)')} here."
            )
            raise ValueError(msg)
