"""A measure without each group of examples, for measures without a closed form.

The plain bootstrap draws examples with repetition. Two copies of one example are at
distance zero and each other's nearest neighbours, which no two examples of a new
sample would be, so distances, kernels, neighbours and ranks of it are biased (the
documentation shows by how much). Leaving examples out keeps all of them different.
"""

import warnings
from collections.abc import Callable

import numpy as np

from repsim.inference.jackknife import Estimates


def random_groups(n: int, count: int, seed: int) -> list[np.ndarray]:
    """Return examples dealt at random into groups of nearly one size."""
    order = np.random.default_rng(seed).permutation(n)
    return [np.sort(part) for part in np.array_split(order, min(count, n))]


def label_groups(labels: np.ndarray, name: str) -> list[np.ndarray]:
    """Return examples grouped by what they are labelled with."""
    kinds, which = np.unique(labels, return_inverse=True)
    if len(kinds) < 3:
        msg = (
            f"Expected at least three values of {name!r} to generalise over, but got "
            f"{len(kinds)}; take over='example'."
        )
        raise ValueError(msg)
    return [np.flatnonzero(which == kind) for kind in range(len(kinds))]


def leave_groups_out(
    measure: Callable[[np.ndarray], np.ndarray],
    value: np.ndarray,
    n: int,
    groups: list[np.ndarray],
) -> Estimates:
    """Return a measure of all but each group of examples."""
    everything = np.arange(n)
    without = []
    with warnings.catch_warnings():
        # What the measure warns of on all examples it would say again of each part.
        warnings.simplefilter("ignore", UserWarning)
        for group in groups:
            without.append(measure(np.delete(everything, group)))
    return Estimates(value, np.stack(without))
