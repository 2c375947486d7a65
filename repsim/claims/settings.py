"""What a reproduction is asked for, how large it is, and what made it."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch

from repsim.claims.base import Claim, registered
from repsim.core.messages import number, unknown, whole
from repsim.core.provenance import DISTRIBUTION, repsim_version
from repsim.datasets.inputs.fetching import data_root
from repsim.datasets.inputs.loading import own_names
from repsim.learning import names

IMAGES = ("mnist", "fashion_mnist", "kmnist", "cifar10")

RULE = "*"
"""In a condition: the rule under test, `sg` unless the caller names another."""


@dataclass(frozen=True)
class Size:
    """The size of the networks that several claims share."""

    depth: int
    width: int
    steps: int
    batch_size: int
    grid: tuple[float, ...]
    depths: tuple[int, ...]
    curve_steps: int
    toy_steps: tuple[int, int, int] = (3000, 3000, 6000)
    surface_steps: int = 3000
    learned_steps: int = 2000
    toy_seeds: tuple[int, int] = (5, 1)
    toy_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    toy_deep_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Rates to choose from on the artificial sets; one alone is taken as it is."""
    small_rate: float = 3e-5
    long_steps: int = 20_000
    feed_steps: int = 2000
    few_seeds: int = 0
    """At most so many seeds where all come out alike (C5), none is judged (E3, E7) or
    effects are far above their spread (D1); 0 is as many as elsewhere. C9 needs five:
    three leave its interval around zero."""


_WIDE = (1e-4, 3e-4, 1e-3, 3e-3)
_GRID = (3e-4, 1e-3, 3e-3)
_HIGH = (3e-3, 1e-2, 3e-2)
_DEPTHS = (3, 10, 20, 50)

SCALES = {
    ("digits", False): Size(20, 64, 500, 128, _WIDE, _DEPTHS, 200),
    ("digits", True): Size(
        8, 64, 400, 128, _HIGH, (3, 8), 100, (3000, 400, 6000), small_rate=1e-4,
        long_steps=0, feed_steps=200, toy_seeds=(1, 1), toy_rates=(3e-2,),
        toy_deep_rates=(1e-3,), few_seeds=3,
    ),
    ("images", False): Size(20, 128, 1500, 128, _WIDE, _DEPTHS, 200),
    ("images", True): Size(
        10, 64, 400, 128, _GRID, (3, 10), 200, (3000, 400, 6000), small_rate=1e-4,
        long_steps=0, feed_steps=400, toy_seeds=(1, 1), toy_rates=(3e-2,),
        toy_deep_rates=(1e-3,), few_seeds=3,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Everything that decides a reproduction's numbers."""

    dataset: str = "digits"
    quick: bool = False
    seeds: int = 5
    seed: int = 0
    rule: str = "sg"
    size: tuple[tuple[str, Any], ...] = ()
    scale: Size = field(init=False)

    def __post_init__(self) -> None:
        """Choose the scale for the data, with what the caller wants otherwise."""
        kind = "digits" if self.dataset == "digits" else "images"
        scale = replace(SCALES[kind, self.quick], **dict(self.size))
        object.__setattr__(self, "scale", scale)

    @property
    def few(self) -> int:
        """Number of seeds of the experiments that need few."""
        return min(self.seeds, self.scale.few_seeds or self.seeds)

    def cuts(self) -> list[str]:
        """Return what the quick form leaves out, in plain sentences."""
        if not self.quick:
            return []
        full = Settings(self.dataset, False, self.seeds, self.seed, self.rule)
        now, then = self.scale, full.scale
        beyond = ", and more beyond an end that is best" if len(now.grid) > 2 else ""
        cuts = [
            f"networks of {now.depth} × {now.width} for {now.steps} updates instead of "
            f"{then.depth} × {then.width} for {then.steps}",
            f"learning curves to depth {now.depths[-1]} for {now.curve_steps} updates "
            f"instead of depth {then.depths[-1]} for {then.curve_steps}",
            f"{_many(len(now.grid), 'learning rate')} to choose from instead of "
            f"{len(then.grid)}{beyond}",
            f"artificial sets for {_of(now.toy_steps)} updates (linear, deep, deep "
            f"under the log loss of separable data) instead of {_of(then.toy_steps)}",
            f"{_many(now.toy_seeds[0], 'seed')} of them instead of {then.toy_seeds[0]}",
            f"learning rates of {_of(now.toy_rates)} (linear) and "
            f"{_of(now.toy_deep_rates)} (deep) for them instead of a choice of "
            f"{len(then.toy_rates)} and of {len(then.toy_deep_rates)}",
        ]
        if self.few < self.seeds:
            few = f"{_many(self.few, 'seed')} in C5, D1, E3 and E7"
            cuts.append(f"{few} instead of {self.seeds}")
        return cuts


FEED_DEPTHS = (3, 6)
"""Hidden layers of the networks on which what feeds the layers is compared (D1)."""


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _of(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


IN_DETAIL = ("untrained", "bp", "sg", "sg_shared", "sg_2", "sg_4", "sg_every", "dfa")
"""Conditions whose layers are measured; of the others claims ask for accuracy alone."""


def conditions(depth: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return rules and options by condition, for networks of a depth."""
    return {
        "untrained": ("bp", {}),
        "bp": ("bp", {}),
        "sg": (RULE, {"at": [max(depth // 2, 1)]}),
        "sg_shared": (RULE, {"at": [max(depth // 2, 1)]}),
        "sg_2": (RULE, {"at": _spread(depth, 2)}),
        "sg_4": (RULE, {"at": _spread(depth, 4)}),
        "sg_every": (RULE, {"at": list(range(1, depth + 1))}),
        "sg_prop": (RULE, {"at": [max(depth // 2, 1)], "prop": 0.1}),
        "dni": (RULE, {"at": [max(depth // 2, 1)], "conditioned": False}),
        "dni_every": (RULE, {"at": list(range(1, depth + 1)), "conditioned": False}),
        "dni_mlp": (
            RULE,
            {
                "at": list(range(1, depth + 1)),
                "conditioned": False,
                "predictor": "mlp",
                "predictor_hidden": [256, 256],
                "predictor_batch_norm": True,
            },
        ),
        "none": ("none", {}),
        "fa": ("fa", {}),
        "dfa": ("dfa", {}),
        "kickback": ("kickback", {}),
        "noise": ("noise", {}),
    }


def _spread(depth: int, splits: int) -> list[int]:
    places = (round(depth * (i + 1) / (splits + 1)) for i in range(splits))
    return sorted({max(place, 1) for place in places})


def chosen_claims(claims: Sequence[str] | None) -> list[Claim]:
    """Return claims by id, each once, or all; ValueError for one that is not there."""
    known = registered()
    if claims is None:
        return list(known.values())
    wanted = list(dict.fromkeys([claims] if isinstance(claims, str) else claims))
    for name in wanted:
        if name not in known:
            raise ValueError(unknown("claim", name, known))
    if not wanted:
        msg = "Expected at least one claim, but got none; None runs all."
        raise ValueError(msg)
    return [known[name] for name in wanted]


def make_settings(
    quick: bool,
    dataset: str | None,
    root: str | os.PathLike[str] | None,
    seeds: int | None,
    seed: int,
    rule: str = "sg",
    size: Mapping[str, Any] | None = None,
) -> tuple[Settings, list[str]]:
    """Return the settings of `reproduce`, and what was chosen for the user or cut.

    ValueError for a name that does not exist or a number out of range.
    """
    if rule not in names():
        raise ValueError(unknown("rule", rule, names()))
    seeds = 5 if seeds is None else seeds
    if seeds < 1 or seed < 0:
        msg = (
            "Expected `seeds` to be at least 1 and `seed` at least 0, but got "
            f"{seeds} and {seed}."
        )
        raise ValueError(msg)
    notes = []
    if dataset is None:
        dataset = "mnist" if not quick and _has_mnist(root) else "digits"
        if dataset == "digits" and not quick:
            notes.append(
                f"MNIST was not found{_below(root)}, so the networks learn digits; "
                "name its folder with root= (--root) or REPSIM_DATA."
            )
    if dataset not in (known := ("digits", *IMAGES, *own_names())):
        raise ValueError(unknown("dataset", dataset, known))
    settings = Settings(dataset, quick, seeds, seed, rule, chosen_size(size or {}))
    notes += [f"Data: {dataset}, {seeds} seeds from {seed}, rule under test {rule}."]
    if quick:
        notes.append("Quick: " + "; ".join(settings.cuts()) + ".")
    if settings.size:
        changed = ", ".join(f"{k} {v}" for k, v in settings.size)
        notes.append(f"Size changed by the caller: {changed}.")
    if seeds < 5:
        notes.append("Fewer than five seeds: read stochastic claims with care.")
    return settings, notes


def chosen_size(size: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return fields of `Size` with their values, in order of name."""
    like = {f.name: getattr(SCALES["digits", True], f.name) for f in fields(Size)}
    chosen = []
    for name, value in sorted(size.items()):
        if name not in like:
            raise ValueError(unknown("size", name, like))
        one, many = like[name], isinstance(like[name], tuple)
        values = tuple(value) if many and isinstance(value, Iterable) else (value,)
        if not values:
            msg = f"Expected at least one number for the size {name!r}, but got none."
            raise ValueError(msg)
        whole_number = isinstance(one[0] if many else one, int)
        checked = tuple(
            whole(v, name, 0) if whole_number else number(v, name) for v in values
        )
        chosen.append((name, checked if many else checked[0]))
    return tuple(chosen)


def _below(root: str | os.PathLike[str] | None) -> str:
    """Return where a folder named by the user was looked at, as part of a sentence."""
    if root is None:
        return ""
    missing = "" if Path(root).is_dir() else ", which does not exist"
    return f" below {os.fspath(root)!r}{missing}"


def _has_mnist(root: str | os.PathLike[str] | None) -> bool:
    try:
        folder = data_root(root) / "MNIST" / "raw"
    except FileNotFoundError:
        return False
    stem = "train-images-idx3-ubyte"
    return (folder / stem).is_file() or (folder / f"{stem}.gz").is_file()


def about(settings: Settings, notes: list[str]) -> dict[str, Any]:
    """Return what is written to about.json."""
    return {
        "settings": asdict(settings),
        "notes": notes,
        "repsim_version": repsim_version(),
        "commit": _commit(),
        "torch_version": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _commit() -> str | None:
    """Return the commit the package was installed from, if it came from one.

    pip notes it for a package from a repository; for one from a folder (also an
    editable one) git is asked, and says with "+" that files have changed since.
    """
    origin = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    if "vcs_info" in origin:
        return str(origin["vcs_info"]["commit_id"])
    if "dir_info" not in origin:
        return None
    folder = url2pathname(urlparse(origin["url"]).path)
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", folder, *words],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed)
