"""All pairs of a measure whose costly part belongs to one representation alone."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from tqdm.auto import tqdm

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
    """

    def __init__(
        self,
        prepare: Callable[..., Part],
        join: Callable[..., float],
        *,
        symmetric: bool = True,
        ranks: bool = False,
    ) -> None:
        self._prepare = prepare
        self._join = join
        self._symmetric = symmetric
        self._ranks = ranks

    def _part(self, x: torch.Tensor, dtype: torch.dtype, **options: Any) -> Part:
        """Return the part of one representation, given in the precision it carries."""
        scaled, by = near_one(x, dtype)
        if self._ranks:
            options["rounding"] = Rounding.of(x, by)
        return self._prepare(scaled, **options)

    def one(
        self, x: Matrix, y: Matrix, least: int = 2, nan: Nan = "raise", **options: Any
    ) -> float:
        """Return one pair in float64, NaN with a warning if one is constant."""
        a, b = raw_pair(x, y, least, nan)
        if warn_constant(a, b):
            return float("nan")
        parts = (self._part(side, torch.float64, **options) for side in (a, b))
        return self._join(*parts, **options)

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
        for i, a in enumerate(tqdm(left, disable=not progress)):
            for j in range(i if half else 0, len(right)):
                b = right[j]
                if a is None or b is None:
                    continue
                values[i, j] = self._join(a, b, **options)
                if half:
                    values[j, i] = values[i, j]
        return values


def centred(x: torch.Tensor) -> torch.Tensor:
    """Return a representation without its mean; the first row goes first (offsets)."""
    moved: torch.Tensor = x - x[:1]
    return moved - moved.mean(dim=0, keepdim=True)
