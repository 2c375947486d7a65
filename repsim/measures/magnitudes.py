"""The size of numbers, and the rounding that they carry."""

from dataclasses import dataclass

import numpy as np
import torch

MODEST = 1e4
"""Fourth powers of numbers up to so far from 1 fit into float32."""

MANTISSA = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}
"""Significant bits."""

MARGIN = 4
"""Sizes of rounding noise below which nothing is taken for a direction.

A matrix of rounding errors of half types has 1.0 to 1.2 times the norm expected of
independent ones (measured on linear layers of 10 to 784 inputs).
"""

ACCUMULATED = 16 * torch.finfo(torch.float32).eps
"""What products summed in float32 may be off, in largest singular values.

The same layers in float32 carry the rounding of each sum: at most 2.4 epsilons of the
largest singular value. Half types are summed in float32 too, and rounded once.
"""


def exponent(x: torch.Tensor) -> int:
    """Return k such that 2ᵏ brings the largest number near 1, 0 where it is near."""
    if not x.numel():
        return 0
    low, high = (float(end) for end in torch.aminmax(x))
    return exponent_of(max(abs(low), abs(high)))


def exponent_of(size: float) -> int:
    """Return k such that 2ᵏ brings a size near 1, 0 where it is near."""
    if size == 0 or not np.isfinite(size) or 1 / MODEST < size < MODEST:
        return 0
    return -int(np.frexp(size)[1])


def shifted(x: torch.Tensor, by: int | torch.Tensor) -> torch.Tensor:
    """Return x · 2ᵏ, in factors of which each can be written (as 2ᵏ perhaps cannot)."""
    if isinstance(by, int):
        return x if by == 0 else x * 2.0 ** (by // 2) * 2.0 ** (by - by // 2)
    by = torch.as_tensor(by, device=x.device)
    part = torch.div(by, 4, rounding_mode="floor")
    for step in (part, part, part, by - 3 * part):
        x = torch.ldexp(x, step)
    return x


def near_one(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, int]:
    """Return numbers of any size times 2ᵏ in a dtype that may be narrower, and k."""
    wide = x if x.dtype.itemsize >= dtype.itemsize else x.to(dtype)
    by = exponent(wide)
    return shifted(wide, by).to(dtype), by


def array_near_one(x: np.ndarray) -> tuple[np.ndarray, int]:
    """Return an array times 2ᵏ, of which no square overflows or vanishes, and k."""
    low, high = np.nanmin(x, initial=0.0), np.nanmax(x, initial=0.0)
    by = exponent_of(float(max(-low, high)))
    return (np.ldexp(x, by) if by else x), by


@dataclass(frozen=True)
class Rounding:
    """How exact a representation is, as it came."""

    size: float
    """Root mean square of the rounding of its numbers."""
    accumulated: float
    """What its sums may be off, in largest singular values."""

    @classmethod
    def of(cls, x: torch.Tensor, by: int = 0) -> "Rounding":
        """Return the rounding of numbers in the dtype they came in, then times 2ᵏ."""
        bits = significant_bits(x)
        # x = m 2ᵉ with m in [1/2, 1), so that a unit in the last place is 2^(e − bits).
        exponents = torch.frexp(x.double()).exponent.double()
        if x.dtype in (torch.float16, torch.float32):
            exponents.clamp_(min=float(np.log2(torch.finfo(x.dtype).tiny)) + 1)
        last = torch.where(x == 0, 0, torch.exp2(exponents - bits + by))
        size = float(last.square().mean().sqrt()) / 12**0.5
        return cls(size, 0.0 if bits == 53 else ACCUMULATED)

    def rank(self, singular: torch.Tensor, shape: tuple[int, ...]) -> int:
        """Return how many singular values, the largest first, stand above rounding.

        Above that of the decomposition (longest side × machine precision × largest, as
        in NumPy), of the sums behind the numbers, and of the numbers themselves, whose
        errors form a matrix of norm σ(√n + √p).
        """
        largest = float(singular[0])
        noise = MARGIN * self.size * sum(side**0.5 for side in shape)
        machine = max(shape) * torch.finfo(singular.dtype).eps
        least = max(machine * largest, self.accumulated * largest, noise)
        return int((singular > least).sum())


def significant_bits(x: torch.Tensor) -> int:
    """Return how many bits the numbers carry, which may be fewer than their dtype has.

    Numbers of a wider type that a narrower one holds without loss came from it, unless
    they are whole multiples of its coarsest step: counts and grey values are exact.
    """
    own = MANTISSA[x.dtype]
    for narrow in (torch.bfloat16, torch.float16, torch.float32):
        bits = MANTISSA[narrow]
        if bits >= own or x.dtype.itemsize <= narrow.itemsize:
            continue
        if not all(_holds(part, narrow) for part in (x[:8], x)):
            continue
        largest = float(x.abs().max())
        step = 2.0 ** (int(np.frexp(largest)[1]) - bits)
        return own if bool((torch.remainder(x, step) == 0).all()) else bits
    return own


def _holds(x: torch.Tensor, narrow: torch.dtype) -> bool:
    """Return whether a narrower dtype holds these numbers without loss."""
    return bool((x.to(narrow).to(x.dtype) == x).all())
