"""All pairs of a measure whose costly part belongs to one representation alone."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from tqdm.auto import tqdm

from repsim.measures.matrices import (
    DTYPES,
    Matrix,
    is_constant,
    note_constant,
    pair,
    read,
    warn_constant,
)

Part = TypeVar("Part")


class ByParts(Generic[Part]):
    """A measure as `join(prepare(x), prepare(y))`, so that each part is made once."""

    def __init__(
        self,
        prepare: Callable[..., Part],
        join: Callable[..., float],
        *,
        symmetric: bool = True,
    ) -> None:
        self._prepare = prepare
        self._join = join
        self._symmetric = symmetric

    def one(self, x: Matrix, y: Matrix, least: int = 2, **options: Any) -> float:
        """Return one pair in float64, NaN with a warning if one is flat."""
        a, b = pair(x, y, least)
        if warn_constant(a, b):
            return float("nan")
        return self._join(
            self._prepare(a, **options), self._prepare(b, **options), **options
        )

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
            x: torch.Tensor = read(source).to(device, DTYPES[precision])
            flat = note_constant(source, is_constant(x))
            return None if flat else self._prepare(x, **options)

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
