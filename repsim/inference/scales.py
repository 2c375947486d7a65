"""The scale on which an estimate's spread is nearly constant, for its interval."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

EDGE = 1e-12
"""How near to a bound, as a share of the range, an estimate may come."""


@dataclass(frozen=True)
class Scale:
    """An increasing map of a measure's range onto the real line, and back."""

    forward: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]


def scale(bounds: tuple[float, float] | None) -> Scale:
    r"""Return the map for a measure with these bounds.

    With two bounds :math:`z = \tfrac12\log\frac{x - lo}{hi - x}`, which is Fisher's
    z = artanh x for (−1, 1); with one, the logarithm of the distance to it; with
    none, the identity. Intervals made there never leave the bounds.
    """
    low, high = bounds or (-np.inf, np.inf)
    if np.isfinite(low) and np.isfinite(high):
        return _between(low, high)
    if np.isfinite(low):
        return _above(low, 1.0)
    if np.isfinite(high):
        return _above(high, -1.0)
    return Scale(lambda x: x, lambda z: z, np.ones_like)


def _between(low: float, high: float) -> Scale:
    width = high - low

    def inside(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(x, low + EDGE * width, high - EDGE * width))

    def forward(x: np.ndarray) -> np.ndarray:
        x = inside(x)
        return np.asarray(0.5 * (np.log(x - low) - np.log(high - x)))

    def inverse(z: np.ndarray) -> np.ndarray:
        return np.asarray(low + width * 0.5 * (1 + np.tanh(z)))

    def slope(x: np.ndarray) -> np.ndarray:
        x = inside(x)
        return np.asarray(0.5 * width / ((x - low) * (high - x)))

    return Scale(forward, inverse, slope)


def _above(bound: float, sign: float) -> Scale:
    def distance(x: np.ndarray) -> np.ndarray:
        return np.maximum(sign * (x - bound), EDGE)

    return Scale(
        lambda x: sign * np.log(distance(x)),
        lambda z: bound + sign * np.exp(sign * z),
        lambda x: 1 / distance(x),
    )
