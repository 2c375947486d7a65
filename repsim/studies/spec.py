"""What a study is asked to do, with defaults that suit its data set."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.messages import unknown
from repsim.core.reductions import HOWS
from repsim.studies.conditions import Condition, parse_all

DEFAULT_CONDITIONS = ("bp", "sg", "sg:at=every")
"""The study of `repsim study`."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"depth": 8, "width": 64, "steps": 400, "grid": (3e-4, 1e-3, 3e-3)},
    "diabetes": {"depth": 4, "width": 32, "steps": 300, "grid": (3e-4, 1e-3, 3e-3)},
    "images": {
        "depth": 20, "width": 128, "steps": 1500, "grid": (1e-4, 3e-4, 1e-3, 3e-3)
    },
}  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """Everything that decides the numbers of a study."""

    conditions: list[str]
    seeds: list[int]
    dataset: str
    root: str | None
    network: str
    reduce: str | None
    depth: int
    width: int
    activation: str
    steps: int
    batch_size: int
    lr: float | None
    grid: list[float]
    tune_seeds: int
    common_rate: bool
    record: list[int]
    examples: int
    device: str
    plugins: list[str]
    loss: str | None = None
    metric: str | None = None
    objects: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """A network's factory, data, loss or metric given as they are, not by name."""
    data: str | None = None
    """A hash of data that do not ship: of them a name says nothing."""
    code: dict[str, str] = field(default_factory=dict)
    """Hashes of networks, rules, losses and metrics that do not ship, by name."""

    @cached_property
    def parsed(self) -> list[Condition]:
        """The conditions, checked against each other; parsed once."""
        return parse_all(self.conditions)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as `study.json` keeps them."""
        names = [f.name for f in fields(self) if f.name != "objects"]
        return {name: getattr(self, name) for name in names}


def make_spec(
    conditions: Iterable[str] = DEFAULT_CONDITIONS,
    dataset: Any = "digits",
    seeds: int | Sequence[int] = 5,
    *,
    seed: int = 0,
    root: str | Path | None = None,
    network: Any = "mlp",
    reduce: str | None = None,
    depth: int | None = None,
    width: int | None = None,
    activation: str = "relu",
    steps: int | None = None,
    batch_size: int = 128,
    lr: float | None = None,
    grid: Sequence[float] | None = None,
    tune_seeds: int = 3,
    common_rate: bool = True,
    record: Iterable[int] | None = None,
    examples: int | None = None,
    device: str = "auto",
    plugins: Iterable[str] = (),
    loss: Any = None,
    metric: Any = None,
) -> Spec:
    """Return a checked specification, with what is not given filled in."""
    network, factory = name_of(network, "network")
    dataset, data = name_of(dataset, "dataset")
    given = {"network": factory, "dataset": data}
    if loss is not None:
        loss, given["loss"] = name_of(loss, "loss")
    if metric is not None:
        metric, given["metric"] = name_of(metric, "metric")
    if reduce is None and network != "mlp":
        reduce = "mean"
    if reduce not in (None, *HOWS):
        raise ValueError(unknown("reduce", reduce, HOWS))
    if examples is None:  # each token of them is one more row of every layer
        examples = 50 if reduce == "tokens" else 400
    small = "digits" if dataset == "digits" or _artificial(dataset) else "images"
    kind = _DEFAULTS.get(dataset, _DEFAULTS[small])
    depth = kind["depth"] if depth is None else depth
    width = kind["width"] if width is None else width
    steps = kind["steps"] if steps is None else steps
    grid = kind["grid"] if grid is None else grid
    chosen = list(range(seed, seed + seeds)) if isinstance(seeds, int) else list(seeds)
    for name, value, least in (
        ("depth", depth, 1),
        ("width", width, 1),
        ("steps", steps, 1),
        ("batch_size", batch_size, 2),
        ("seeds", len(set(chosen)), 1),
        ("examples", examples, 4),
        ("tune_seeds", tune_seeds, 2),
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
        network,
        reduce,
        depth,
        width,
        activation,
        steps,
        batch_size,
        lr,
        list(grid),
        tune_seeds,
        common_rate,
        moments,
        examples,
        device,
        list(plugins),
        loss,
        metric,
        {name: value for name, value in given.items() if value is not None},
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


def name_of(given: object, what: str) -> tuple[str, Any]:
    """Return the text that stands for a network or data set, and the object if one."""
    if isinstance(given, str):
        return given, None
    if isinstance(given, tuple) and len(given) == 2:
        import xarray as xr

        named = given[0].attrs.get("name") if isinstance(given[0], xr.Dataset) else None
        return str(named or "given"), given
    if callable(given):
        name = getattr(given, "__qualname__", type(given).__name__)
        return f"{getattr(given, '__module__', '')}:{name}", given
    msg = f"Expected `{what}` as a name or a function, but got {type(given).__name__}."
    raise TypeError(msg)
