"""Sorting and ranking long vectors, each once."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sorted:
    """The positions that sort a vector, and where a new value begins."""

    order: np.ndarray
    starts: np.ndarray | None


def ascending(values: np.ndarray) -> Sorted:
    """Sort the positions of a vector by its values, ties by position.

    A stable argsort is slow because it looks up two values for each comparison; here
    a value's leading bits and its position share one integer, and plain integers are
    sorted. The few values that agree in their leading bits only are mended afterwards.
    """
    m = len(values)
    shift = max(1, (m - 1).bit_length())
    low = (1 << shift) - 1
    # Adding zero turns -0.0 into 0.0: they are equal, their bits are not.
    keys = np.add(values, 0.0, dtype=np.float64).view(np.int64)
    if keys.min() < 0:
        # Negative numbers grow the other way; now the integers sort as they do.
        keys ^= (keys >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF)
    keys &= ~low
    keys |= np.arange(m)
    keys.sort()
    order = keys & low
    # Keys differ above the position's bits where the distance between them exceeds it.
    keys >>= shift
    alike = np.flatnonzero(keys[1:] == keys[:-1])
    if not len(alike):
        return Sorted(order, None)
    tied = _mend(values, order, keys, alike)
    if not tied.any():
        return Sorted(order, None)
    new = np.ones(m, dtype=bool)
    new[alike + 1] = ~tied
    return Sorted(order, np.flatnonzero(new))


def _mend(
    values: np.ndarray, order: np.ndarray, leading: np.ndarray, alike: np.ndarray
) -> np.ndarray:
    """Sort runs that agree in their leading bits; say which neighbours are equal."""
    first, second = values[order[alike]], values[order[alike + 1]]
    if np.any(first > second):
        at = np.union1d(alike, alike + 1)
        # Runs stay in place, so one sort by run, value and position mends them all.
        keys = (order[at], values[order[at]], leading[at])
        order[at] = order[at][np.lexsort(keys)]
        first, second = values[order[alike]], values[order[alike + 1]]
    return np.asarray(first == second)


def doubled(values: np.ndarray) -> np.ndarray:
    """Return twice the average ranks 1 … m, which are whole numbers also for ties."""
    m = len(values)
    found = ascending(values)
    out = np.empty(m, np.int32)
    if found.starts is None:
        out[found.order] = np.arange(2, 2 * m + 1, 2, dtype=np.int32)
        return out
    ends = np.append(found.starts[1:], m)
    middle = (found.starts + ends + 1).astype(np.int32)
    out[found.order] = np.repeat(middle, ends - found.starts)
    return out


def dense(found: Sorted) -> np.ndarray:
    """Return ranks 0, 1, … without gaps, equal for equal values."""
    m = len(found.order)
    ranks = np.empty(m, np.int32)
    if found.starts is None:
        ranks[found.order] = np.arange(m, dtype=np.int32)
        return ranks
    lengths = np.diff(found.starts, append=m)
    steps = np.arange(len(lengths), dtype=np.int32)
    ranks[found.order] = np.repeat(steps, lengths)
    return ranks
