"""A condition of a study: a learning rule with its options, and its label."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from repsim.core.seeding import derived_seed


@dataclass(frozen=True)
class Condition:
    """A learning rule as one arm of a study."""

    text: str
    label: str
    rule: str
    options: tuple[tuple[str, Any], ...] = ()
    init: str | None = None

    @property
    def key(self) -> str:
        """What tuning depends on: rule and options, not whose initialisation."""
        return json.dumps([self.rule, *self.options])

    def init_seed(self, seed: int) -> int:
        """Return the seed of the initial weights of one network."""
        return derived_seed("init", self.init or self.label, seed)

    def run_seed(self, seed: int) -> int:
        """Return the seed of the rule's own draws and of the order of the data."""
        return derived_seed("run", self.label, seed)


def parse(text: str) -> Condition:
    """Return the condition that a text such as ``sg:at=every:lr=5e-5`` names.

    Options follow the rule's name, each after a colon; several numbers are joined by
    ``+`` (``sg:at=3+7``). ``init=LABEL`` shares the initial weights of another
    condition. The label keeps the value of ``at`` alone, and name and value of the
    others.
    """
    rule, *rest = (part.strip() for part in text.strip().split(":"))
    label, init = rule, None
    options: dict[str, Any] = {}
    for part in rest:
        name, equals, value = part.partition("=")
        if not (rule and name and equals and value):
            msg = (
                f"Expected a condition as rule:option=value, such as "
                f"sg:at=every:lr=5e-5, but got {text!r}."
            )
            raise ValueError(msg)
        if name in options or (name == "init" and init is not None):
            msg = f"Expected each option once, but got `{name}` twice in {text!r}."
            raise ValueError(msg)
        if name == "init":
            init = value
        else:
            options[name] = _value(value)
        label += f"_{value}" if name == "at" else f"_{name}{value}"
    if not rule or any(c in label for c in "/\\") or label.startswith("."):
        msg = f"Expected a condition as rule:option=value, but got {text!r}."
        raise ValueError(msg)
    return Condition(text, label, rule, tuple(options.items()), init)


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if "+" in text and all(part.isdigit() for part in text.split("+")):
        return [int(part) for part in text.split("+")]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_all(texts: Iterable[str]) -> list[Condition]:
    """Return the conditions of a study, checked against each other."""
    conditions = [parse(text) for text in texts]
    if not conditions:
        msg = "Expected at least one condition, such as bp, but got none."
        raise ValueError(msg)
    labels = [condition.label for condition in conditions]
    for label in labels:
        if labels.count(label) > 1:
            msg = f"Expected each condition once, but got {label!r} more than once."
            raise ValueError(msg)
    for condition in conditions:
        if condition.init is not None and condition.init not in labels:
            msg = (
                f"Expected `init` to name a condition of this study "
                f"({', '.join(labels)}), but got {condition.init!r}."
            )
            raise ValueError(msg)
    by_label = {condition.label: condition for condition in conditions}

    def source(label: str) -> str:
        # Ends: a label holds the label it shares with, so it is always the longer.
        init = by_label[label].init
        return label if init is None else source(init)

    sources = [source(label) for label in labels]
    return [
        replace(condition, init=None if origin == condition.label else origin)
        for condition, origin in zip(conditions, sources, strict=True)
    ]
