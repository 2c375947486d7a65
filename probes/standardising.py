"""The unit in which activations are measured, which no default probe may read."""

from typing import Literal, get_args

import numpy as np
from sklearn.preprocessing import StandardScaler

from repsim.core.messages import unknown

Standardise = Literal["layer", "units", "none"]


def expect_standardise(how: str) -> Standardise:
    """Return a known way to standardise."""
    known = get_args(Standardise)
    for way in known:
        if how == way:
            return way  # type: ignore[no-any-return]
    raise ValueError(unknown("standardise", how, known))


def standardised(x: np.ndarray, rows: np.ndarray, how: Standardise) -> np.ndarray:
    """Return activations (example, unit) in units fitted to some rows.

    "layer" divides by one number, the root mean variance of the units that vary. A
    penalty then means the same for every layer, turning the layer changes nothing, and
    a unit that hardly ever speaks is not made as loud as the others, as it is when
    each has its own scale ("units").
    """
    if how == "none" or not len(rows):
        return x
    # Powers of two are exact, and keep squares within the range of the dtype.
    largest = np.abs(x).max(axis=0 if how == "units" else None)
    z: np.ndarray = np.ldexp(x, -np.frexp(largest)[1])
    if how == "units":
        return np.asarray(StandardScaler().fit(z[rows]).transform(z))
    # One row comes off before the mean: differences of near numbers are exact.
    z -= z[rows[0]]
    z -= z[rows].mean(axis=0, dtype=np.float64).astype(z.dtype)
    variance = np.square(z[rows]).mean(axis=0, dtype=np.float64)
    alive = variance > 0
    if alive.any():
        z /= z.dtype.type(np.sqrt(variance[alive].mean()))
    return z
