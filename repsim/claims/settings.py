"""How large the experiments are, in full and in the quick form."""

from dataclasses import dataclass, field
from typing import Any

IMAGES = ("mnist", "fashion_mnist", "kmnist", "cifar10")

RULE = "*"
"""In a condition: the rule under test, `sg` unless the caller names another."""


@dataclass(frozen=True)
class Scale:
    """The size of the networks that several claims share."""

    depth: int
    width: int
    steps: int
    batch_size: int
    grid: tuple[float, ...]
    depths: tuple[int, ...]
    curve_steps: int
    toy_steps: tuple[int, int] = (3000, 3000)
    surface_steps: int = 1000
    learned_steps: int = 2000


_WIDE = (1e-4, 3e-4, 1e-3, 3e-3)
_GRID = (3e-4, 1e-3, 3e-3)
_DEPTHS = (3, 10, 20, 50)

SCALES = {
    ("digits", False): Scale(20, 64, 500, 128, _WIDE, _DEPTHS, 200),
    ("digits", True): Scale(8, 64, 400, 128, _GRID, (3, 8, 20), 200, (3000, 400)),
    ("images", False): Scale(20, 128, 1500, 128, _WIDE, _DEPTHS, 200),
    ("images", True): Scale(10, 64, 400, 128, _GRID, (3, 10, 20), 200, (3000, 400)),
}


@dataclass(frozen=True)
class Settings:
    """Everything that decides a reproduction's numbers."""

    dataset: str = "digits"
    quick: bool = False
    seeds: int = 5
    seed: int = 0
    rule: str = "sg"
    scale: Scale = field(init=False)

    def __post_init__(self) -> None:
        """Choose the scale for the data."""
        kind = "digits" if self.dataset not in IMAGES else "images"
        object.__setattr__(self, "scale", SCALES[kind, self.quick])

    def cuts(self) -> list[str]:
        """Return what the quick form leaves out, in plain sentences."""
        if not self.quick:
            return []
        full = Settings(self.dataset, False, self.seeds, self.seed, self.rule)
        now, then = self.scale, full.scale
        return [
            f"networks of {now.depth} × {now.width} for {now.steps} updates instead of "
            f"{then.depth} × {then.width} for {then.steps}",
            f"learning curves to depth {now.depths[-1]} for {now.curve_steps} updates "
            f"instead of depth {then.depths[-1]} for {then.curve_steps}",
            f"{len(now.grid)} learning rates to choose from instead of "
            f"{len(then.grid)}",
            f"artificial sets for {now.toy_steps[0]} and {now.toy_steps[1]} updates "
            f"instead of {then.toy_steps[0]} and {then.toy_steps[1]}",
        ]


LOOKED = ("untrained", "bp", "sg", "sg_shared", "sg_2", "sg_4", "sg_every", "dfa")
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
        "fa": ("fa", {}),
        "dfa": ("dfa", {}),
        "kickback": ("kickback", {}),
        "noise": ("noise", {}),
    }


def _spread(depth: int, splits: int) -> list[int]:
    return [round(depth * (i + 1) / (splits + 1)) for i in range(splits)]
