"""All pairs of a measure whose costly part belongs to one representation alone."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from repsim.core.bars import progress_bar
from repsim.measures.magnitudes import Rounding, near_one
from repsim.measures.matrices import (
    DTYPES,
    Matrix,
    Nan,
    is_constant,
    note_constant,
    raw_pair,
    read,
    warn_constant,
)

Part = TypeVar("Part")


class ByParts(Generic[Part]):
    """A measure as `join(prepare(x), prepare(y))`, so that each part is made once.

    The measure ignores the scale of a side: what is prepared was multiplied by a power
    of two that brings it near 1. With `ranks`, `prepare` is told its `rounding`.
    With `batched`, `join` takes a list of pairs and returns the value of each.
    """

    def __init__(
        self,
        prepare: Callable[..., Part],
        join: Callable[..., Any],
        *,
        batched: bool = False,
        symmetric: bool = True,
        ranks: bool = False,
    ) -> None:
        self._prepare = prepare
        self._join = join
        self._batched = batched
        self._symmetric = symmetric
        self._ranks = ranks

    def _part(self, x: torch.Tensor, dtype: torch.dtype, **options: Any) -> Part:
        """Return the part of one representation, given in the precision it carries."""
        scaled, by = near_one(x, dtype)
        if self._ranks:
            options["rounding"] = Rounding.of(x, by)
        return self._prepare(scaled, **options)

    def _together(
        self, pairs: list[tuple[Part, Part]], **options: Any
    ) -> Sequence[float] | np.ndarray:
        """Return the value of every pair."""
        if self._batched:
            values: Sequence[float] | np.ndarray = self._join(pairs, **options)
            return values
        return [self._join(a, b, **options) for a, b in pairs]

    def one(
        self, x: Matrix, y: Matrix, least: int = 2, nan: Nan = "raise", **options: Any
    ) -> float:
        """Return one pair in float64, NaN with a warning if one is constant."""
        a, b = raw_pair(x, y, least, nan)
        if warn_constant(a, b):
            return float("nan")
        left, right = (self._part(side, torch.float64, **options) for side in (a, b))
        return float(self._together([(left, right)], **options)[0])

    def __call__(
        self,
        xs: Sequence[Matrix],
        ys: Sequence[Matrix] | None = None,
        *,
        precision: str = "float64",
        device: str = "cpu",
        progress: bool = False,
        **options: Any,
    ) -> np.ndarray:
        """Return the value of every pair; see `Measure.all_pairs`."""

        def part(source: Matrix) -> Part | None:
            x = read(source).to(device)
            if note_constant(source, is_constant(x)):
                return None
            return self._part(x, DTYPES[precision], **options)

        left = [part(x) for x in xs]
        right = left if ys is None else [part(y) for y in ys]
        half = ys is None and self._symmetric
        values = np.full((len(left), len(right)), np.nan)
        for i, a in enumerate(progress_bar(left, progress=progress)):
            if a is None:
                continue
            there = [
                (j, b)
                for j, b in enumerate(right)
                if b is not None and (j >= i or not half)
            ]
            places = [j for j, _ in there]
            values[i, places] = self._together([(a, b) for _, b in there], **options)
            if half:
                values[places, i] = values[i, places]
        return values


def centred(x: torch.Tensor) -> torch.Tensor:
    """Return a representation without its mean; the first row goes first (offsets)."""
    moved: torch.Tensor = x - x[:1]
    return moved - moved.mean(dim=0, keepdim=True)
