"""Everything a later run needs to continue bit for bit, taken and put back."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from repsim.learning.checks import require

if TYPE_CHECKING:
    from repsim.learning.rule import Rule

KEYS = (
    *("rule", "options", "steps", "input_shape", "network"),
    *("optimizers", "generator", "initial", "extra"),
)
"""What a state holds."""


def taken(rule: "Rule") -> dict[str, Any]:
    """Return a rule's state."""
    state = {
        "rule": rule.name,
        "options": dict(rule.options),
        "steps": rule.steps,
        "input_shape": rule.entrance.input_shape,
        "network": rule.network.state_dict(),
        "optimizers": {k: o.state_dict() for k, o in rule.optimizers.items()},
        "generator": rule.generator.get_state(),
        "initial": rule.initial,
        "extra": rule.extra_state(),
    }
    return copy.deepcopy(state)


def put_back(rule: "Rule", state: Mapping[str, Any]) -> None:
    """Give a rule the state that `taken` returned; nothing is changed if it differs."""
    require(isinstance(state, Mapping), state, "`state` to be a rule's state_dict()")
    missing = [key for key in KEYS if key not in state]
    if missing:
        msg = f"Expected a rule's state, but it lacks {', '.join(missing)}."
        raise ValueError(msg)
    for what, mine in (("rule", rule.name), ("options", rule.options)):
        if state[what] != mine:
            msg = (
                f"Expected a state of {what} {mine!r}, but got {state[what]!r}; "
                "make the rule with the same name and options."
            )
            raise ValueError(msg)
    _check_network(rule.network, state["network"])
    state = copy.deepcopy(dict(state))
    rule.network.load_state_dict(state["network"])
    if state["input_shape"] is not None and not rule.shapes:
        parameter = next(rule.network.parameters())
        rule.look_at(parameter.new_zeros(2, *state["input_shape"]))
    rule.load_extra_state(state["extra"])
    for name, optimizer in rule.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    rule.generator.set_state(state["generator"])
    rule.initial, rule.steps = state["initial"], state["steps"]


def _check_network(network: nn.Module, state: Mapping[str, Any]) -> None:
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
