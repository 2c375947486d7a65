"""What a study is asked to do, with defaults that suit its data set."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.messages import unknown
from repsim.studies.conditions import Condition, parse_all

DEFAULT_CONDITIONS = ("bp", "sg", "sg:at=every", "sg:init=bp")
"""The study of `repsim study`; the last shows what a shared initialisation does."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"depth": 8, "width": 64, "steps": 400},
    "images": {"depth": 20, "width": 128, "steps": 1500},
}
_GRID = (1e-4, 3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Spec:
    """Everything that decides the numbers of a study."""

    conditions: list[str]
    seeds: list[int]
    dataset: str
    root: str | None
    depth: int
    width: int
    activation: str
    steps: int
    batch_size: int
    lr: float | None
    grid: list[float]
    record: list[int]
    examples: int
    device: str
    plugins: list[str]

    @cached_property
    def parsed(self) -> list[Condition]:
        """The conditions, checked against each other; parsed once."""
        return parse_all(self.conditions)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as `study.json` keeps them."""
        return asdict(self)


def make_spec(
    conditions: Iterable[str] = DEFAULT_CONDITIONS,
    dataset: str = "digits",
    seeds: int | Sequence[int] = 5,
    *,
    seed: int = 0,
    root: str | Path | None = None,
    depth: int | None = None,
    width: int | None = None,
    activation: str = "relu",
    steps: int | None = None,
    batch_size: int = 128,
    lr: float | None = None,
    grid: Sequence[float] = _GRID,
    record: Iterable[int] | None = None,
    examples: int = 400,
    device: str = "auto",
    plugins: Iterable[str] = (),
) -> Spec:
    """Return a checked specification, with what is not given filled in."""
    kind = _DEFAULTS[
        "digits" if dataset == "digits" or _artificial(dataset) else "images"
    ]
    depth = kind["depth"] if depth is None else depth
    width = kind["width"] if width is None else width
    steps = kind["steps"] if steps is None else steps
    chosen = list(range(seed, seed + seeds)) if isinstance(seeds, int) else list(seeds)
    for name, value, least in (
        ("depth", depth, 1),
        ("width", width, 1),
        ("steps", steps, 1),
        ("batch_size", batch_size, 2),
        ("seeds", len(set(chosen)), 1),
        ("examples", examples, 4),
        ("seed", min(chosen, default=0), 0),
    ):
        if value < least:
            msg = f"Expected `{name}` to be at least {least}, but got {value}."
            raise ValueError(msg)
    if len(set(chosen)) != len(chosen):
        msg = f"Expected different seeds, but got {chosen}."
        raise ValueError(msg)
    rates = [lr] if lr is not None else list(grid)
    if not rates or min(rates) <= 0:
        msg = f"Expected learning rates above 0, but got {rates}."
        raise ValueError(msg)
    if activation not in ("relu", "sigmoid", "tanh"):
        raise ValueError(unknown("activation", activation, ["relu", "sigmoid", "tanh"]))
    moments = schedule(steps) if record is None else sorted(set(record))
    if moments[0] < 0 or moments[-1] > steps:
        msg = f"Expected steps to record in 0…{steps}, but got {moments}."
        raise ValueError(msg)
    spec = Spec(
        [str(c) for c in conditions],
        chosen,
        dataset,
        None if root is None else str(root),
        depth,
        width,
        activation,
        steps,
        batch_size,
        lr,
        list(grid),
        moments,
        examples,
        device,
        list(plugins),
    )
    spec.parsed  # noqa: B018  (refuses what is malformed)
    return spec


def _artificial(dataset: str) -> bool:
    return dataset.rstrip("0123456789").rstrip("_") in ("lin", "noisy", "random", "xor")


def schedule(steps: int) -> list[int]:
    """Return ten moments to record: 0, four early ones, and the rest evenly."""
    early = np.geomspace(max(1, steps / 100), max(1, steps / 8), 4)
    late = np.linspace(max(1, steps / 8), steps, 6)
    moments = np.concatenate([early, late]).round().astype(int).tolist()
    return sorted({0, steps, *moments})


def spec_from_json(text: str) -> Spec:
    """Return the specification that `study.json` keeps."""
    try:
        return Spec(**json.loads(text)["spec"])
    except (ValueError, KeyError, TypeError) as error:
        msg = (
            "Expected study.json to be what a study of this version writes, but its "
            f"`spec` cannot be read ({type(error).__name__}: {error}); choose another "
            "`out`."
        )
        raise ValueError(msg) from error
