r"""Inner products of symmetric matrices for a thousand orders of the examples at once.

Lay all examples of one side on a circle at random, and those of the other. Turning one
circle against the other gives n orders, and the inner products of all of them are
circular correlations of the matrices' diagonals, n / 2 Fourier transforms:

.. math:: T(s) = \sum_k \sum_i K_{i, i+k} L_{i+s, i+k+s}

The observed order is one of those of the circle on which both sides lie alike. As
circles are drawn independently and every place on one is like any other, the observed
order is exchangeable with all others, also with some drawn from them: the test is as
exact as with independent orders (Hemerik & Goeman 2018, doi:10.1007/s11749-017-0571-1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft

from repsim.core.bars import progress_bar

SHIFTED = 256
"""Examples from which turning circles repays."""

_CELLS = 1 << 24
"""Numbers of diagonals that are held at a time."""

Inner = tuple[Sequence[np.ndarray], Sequence[np.ndarray], np.ndarray]
"""Symmetric matrices of both sides, and what their inner products are divided by."""


def reciprocal(scale: np.ndarray) -> np.ndarray:
    """Return 1 / scale, NaN where that is no positive number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 0, 1 / scale, np.nan)


def reached(value: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return whether values are as large as the observed one, but for rounding."""
    return np.asarray(~(value < observed - 1e-12 * np.maximum(1.0, np.abs(observed))))


@dataclass(frozen=True)
class Shifts:
    """Circles of examples, the first one for both sides, and which turns are taken."""

    starts: list[np.ndarray]
    taken: np.ndarray

    @classmethod
    def drawn(cls, n: int, permutations: int, rng: np.random.Generator) -> "Shifts":
        """Draw enough circles, and as many of their turns as there are to be orders."""
        circles = -(-(permutations + 1) // n)
        starts = [rng.permutation(n) for _ in range(circles)]
        # Number 0 is the observed order.
        taken = rng.choice(circles * n - 1, permutations, replace=False) + 1
        return cls(starts, taken)

    def orders(self) -> list[np.ndarray]:
        """Return the second side's orders that this stands for."""
        n = len(self.starts[0])
        orders = []
        for number in self.taken:
            order = np.empty(n, dtype=np.intp)
            order[self.starts[0]] = np.roll(self.starts[number // n], -(number % n))
            orders.append(order)
        return orders

    def null(
        self,
        left: Sequence[np.ndarray],
        right: Sequence[np.ndarray],
        scale: np.ndarray,
        sign: float,
        progress: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return p-values and the mean under the null, of all pairs of layers."""
        values = self._products(left, right, progress) * (sign * reciprocal(scale))
        observed, drawn = values[0], values[self.taken]
        count = 1 + reached(drawn, observed).sum(0)
        return count / (1 + len(drawn)), sign * drawn.mean(0)

    def _products(
        self, left: Sequence[np.ndarray], right: Sequence[np.ndarray], progress: bool
    ) -> np.ndarray:
        """Return the inner products of all turns of all circles, (turn, a, b)."""
        n, shape = len(self.starts[0]), (len(left), len(right))
        sums = np.zeros((len(self.starts), n // 2 + 1, *shape), dtype=complex)
        step = max(1, _CELLS // (2 * n * sum(shape)))
        blocks = range(0, n // 2 + 1, step)
        for first in progress_bar(blocks, desc="diagonals", progress=progress):
            diagonals = np.arange(first, min(first + step, n // 2 + 1))
            # The others are these, turned.
            twice = np.where((diagonals == 0) | (2 * diagonals == n), 1.0, 2.0)
            a = _spectra(left, self.starts[0], diagonals).conj() * twice
            for total, start in zip(sums, self.starts, strict=True):
                total += a @ _spectra(right, start, diagonals).swapaxes(1, 2)
        values: np.ndarray = scipy.fft.irfft(sums, n, axis=1)
        return values.reshape(-1, *shape)


def _spectra(
    matrices: Sequence[np.ndarray], start: np.ndarray, diagonals: np.ndarray
) -> np.ndarray:
    """Return diagonals' transforms along a circle, (frequency, layer, diagonal)."""
    n = len(start)
    other = start[(np.arange(n)[:, None] + diagonals) % n]
    places = start[:, None] * n + other
    out = np.empty((n // 2 + 1, len(matrices), len(diagonals)), dtype=complex)
    for k, matrix in enumerate(matrices):
        out[:, k] = scipy.fft.rfft(matrix.ravel().take(places), axis=0)
    return out
