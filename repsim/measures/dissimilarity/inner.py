"""Inner products of all rows of one stack with all of another, in blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_BLOCK = 1 << 14

_FAR = (1e-100, 1e100)
"""Within these, sums of squares neither overflow nor vanish."""


@dataclass(frozen=True)
class RdmStack:
    """One stack of long rows, in whatever dtype, with what is taken from each row.

    Rows are converted to float64 a block of columns at a time, so that a stack of
    twenty RDMs over n = 5,000 examples (1 GB in float32) needs 20 MB more.
    """

    rows: Sequence[np.ndarray] | np.ndarray
    offsets: np.ndarray
    flat: np.ndarray

    @classmethod
    def of(cls, stack: np.ndarray, centred: bool) -> "RdmStack":
        """Return a stack of vectors, their means to be taken out if asked."""
        high, low = stack.max(1), stack.min(1)
        peaks = np.maximum(np.abs(high), np.abs(low)).astype(np.float64)
        if not ((peaks == 0) | (peaks > _FAR[0]) & (peaks < _FAR[1])).all():
            # Comparators ignore a scale that is a power of two; squares overflow.
            stack = np.ldexp(stack.astype(np.float64), -np.frexp(peaks)[1][:, None])
        if centred:
            offsets = stack.mean(1, dtype=np.float64)
            flat = high == low
        else:
            offsets = np.zeros(len(stack))
            flat = peaks == 0
        return cls(stack, offsets, flat)

    @classmethod
    def ranked(cls, ranks: Sequence[np.ndarray]) -> "RdmStack":
        """Return doubled ranks, whose mean is m + 1 with and without ties."""
        m = len(ranks[0])
        flat = np.array([r[0] == m + 1 and bool((r == m + 1).all()) for r in ranks])
        return cls(ranks, np.full(len(ranks), float(m + 1)), flat)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.rows[0])

    def block(self, start: int, stop: int) -> np.ndarray:
        """Return some columns in float64, less the offsets."""
        out = np.empty((len(self.rows), stop - start))
        for k, row in enumerate(self.rows):
            np.subtract(row[start:stop], self.offsets[k], out=out[k])
        return out


def inner(
    a: RdmStack, b: RdmStack, device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the inner products of all rows of `a` with all rows of `b`."""
    total = torch.zeros(len(a), len(b), dtype=torch.float64, device=device)
    squares = [np.zeros(len(a)), np.zeros(len(b))]
    for start in range(0, a.width, _BLOCK):
        stop = min(start + _BLOCK, a.width)
        left = a.block(start, stop)
        right = left if b is a else b.block(start, stop)
        total += (
            torch.from_numpy(left).to(device) @ torch.from_numpy(right).to(device).T
        )
        squares[0] += np.einsum("ij,ij->i", left, left)
        if b is not a:
            squares[1] += np.einsum("ij,ij->i", right, right)
    squares[0][a.flat] = np.nan
    if b is a:
        squares[1] = squares[0]
    squares[1][b.flat] = np.nan
    return total.cpu().numpy(), squares[0], squares[1]


def exact_ones(values: np.ndarray, a: RdmStack, b: RdmStack) -> np.ndarray:
    """Return correlations that are exactly 1 where both rows are the same."""
    for i, j in zip(*np.nonzero(np.abs(values) > 1 - 1e-9), strict=True):
        if a.rows[i] is b.rows[j] or np.array_equal(a.rows[i], b.rows[j]):
            values[i, j] = 1
    return values
