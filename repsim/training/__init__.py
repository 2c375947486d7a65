"""One training loop for every rule, its order of data, and its record."""

from repsim.training.loop import train_together as train_together
from repsim.training.repetition import replay as replay

__all__ = [
    "replay",
    "train_together",
]


def __dir__() -> list[str]:
    return sorted(__all__)
