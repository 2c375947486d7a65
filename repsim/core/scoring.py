"""What a network is scored by: the score's name, its words, and which way is better."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Score:
    """A score of a trained network, such as its accuracy.

    Training records and results carry it as attributes (`attrs`), so that whoever
    reads them says the right word and direction.
    """

    name: str
    words: str
    larger_is_better: bool = True
    share: bool = False
    """Whether it is a share of something, whose differences are read as they are."""

    @property
    def test(self) -> str:
        """The variable of a training record that holds it for the test data."""
        return f"test_{self.name}"

    @property
    def attrs(self) -> dict[str, Any]:
        """What a record or result keeps of it."""
        return {
            "metric": self.name,
            "metric_words": self.words,
            "metric_larger_is_better": int(self.larger_is_better),
            "metric_share": int(self.share),
        }

    def best(self, values: Iterable[float]) -> float:
        """Return the best of some scores."""
        return max(values) if self.larger_is_better else min(values)

    def worst(self, values: Iterable[float]) -> float:
        """Return the worst of some scores."""
        return min(values) if self.larger_is_better else max(values)

    def unit(self, values: Any) -> float:
        """Return what a difference of scores is held against: 1, or their size."""
        return 1.0 if self.share else float(np.nanmean(np.abs(np.asarray(values))))

    @property
    def direction(self) -> str:
        """Return which way is better, in words."""
        return "higher is better" if self.larger_is_better else "lower is better"


ACCURACY = Score("accuracy", "accuracy", share=True)


def score_of(attrs: Mapping[Any, Any]) -> Score:
    """Return the score that attributes name; accuracy where they name none."""
    if "metric" not in attrs:
        return ACCURACY
    name = str(attrs["metric"])
    return Score(
        name,
        str(attrs.get("metric_words", name)),
        bool(attrs.get("metric_larger_is_better", 1)),
        bool(attrs.get("metric_share", 0)),
    )
