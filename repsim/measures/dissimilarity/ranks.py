"""Sorting and ranking long vectors, each once; Kendall's concordant pairs counted."""

from dataclasses import dataclass

import numpy as np

_LEAF = 64
"""Items of a block whose inversions are counted directly."""


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
    sorting = ascending(values)
    out = np.empty(m, np.int32)
    if sorting.starts is None:
        out[sorting.order] = np.arange(2, 2 * m + 1, 2, dtype=np.int32)
        return out
    ends = np.append(sorting.starts[1:], m)
    middle = (sorting.starts + ends + 1).astype(np.int32)
    out[sorting.order] = np.repeat(middle, ends - sorting.starts)
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


@dataclass(frozen=True)
class Ranked:
    """A vector sorted once: its ranks, the order that sorts it, its ties."""

    ranks: np.ndarray
    order: np.ndarray
    ties: int

    @property
    def tied(self) -> bool:
        """Whether any two values are equal."""
        return self.ties > 0


def ranked(values: np.ndarray) -> Ranked:
    """Sort a vector for any number of comparisons."""
    sorting = ascending(values)
    starts = sorting.starts
    ties = 0 if starts is None else _choose2(np.diff(starts, append=len(values)))
    return Ranked(dense(sorting), sorting.order.astype(np.int32), ties)


def _choose2(counts: np.ndarray) -> int:
    counts = counts.astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def excess(x: Ranked, y: Ranked) -> int:
    """Return concordant minus discordant pairs, exactly, ties counting as neither."""
    m = len(x.ranks)
    pairs = m * (m - 1) // 2
    if not x.tied:
        # Walking along x meets the values of y; equal ones are told apart by sorting.
        sequence, joint = y.ranks[x.order], 0
        places = _stable(sequence) if y.tied else sequence
    elif not y.tied:
        places, joint = _stable(x.ranks[y.order]), 0
    else:
        places, joint = _both_tied(x, y)
    return pairs - x.ties - y.ties + joint - 2 * inversions(places)


def _stable(sequence: np.ndarray) -> np.ndarray:
    """Return the positions that sort small integers, ties by position."""
    shift = max(1, (len(sequence) - 1).bit_length())
    keys = (sequence.astype(np.int64) << shift) | np.arange(len(sequence))
    keys.sort()
    return np.asarray(keys & ((1 << shift) - 1))


def _both_tied(x: Ranked, y: Ranked) -> tuple[np.ndarray, int]:
    keys = (x.ranks.astype(np.int64) << 32) | y.ranks
    keys.sort()
    new = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    joint = _choose2(np.diff(np.concatenate([[0], new, [len(keys)]])))
    # Within equal x the values of y ascend, so that no such pair is an inversion.
    return _stable((keys & 0xFFFF_FFFF).astype(np.int32)), joint


def inversions(places: np.ndarray) -> int:
    """Return how many pairs of a permutation of 0 … m − 1 stand in the wrong order.

    A merge sort turned upside down: each round parts every block into the items that
    belong to its lower and to its upper half. A pair is in the wrong order at exactly
    one round or inside one last block, and a round needs no loop over items.
    """
    m = len(places)
    if m < 2:
        return 0
    rounds = max(0, (-(-m // _LEAF) - 1).bit_length())
    leaf = -(-m // 2**rounds)
    size = leaf * 2**rounds
    block = np.arange(size, dtype=np.int32)
    block[:m] = places
    spare = np.empty_like(block)
    total, rows = 0, 1
    while size > leaf:
        half = size // 2
        high = block >= half
        upper, lower = high.nonzero()[0], (~high).nonzero()[0]
        # Row by row: `half` items are high; those before a low one count.
        where = int(upper.sum()) - size * half * (rows * (rows - 1) // 2)
        total += rows * (half * half + half * (half - 1) // 2) - where
        parts = spare.reshape(rows, 2, half)
        parts[:, 0] = block.take(lower).reshape(rows, half)
        np.subtract(block.take(upper).reshape(rows, half), half, out=parts[:, 1])
        block, spare = spare, block
        rows, size = rows * 2, half
    last = np.ascontiguousarray(block.reshape(rows, leaf).T.astype(np.uint8))
    for i in range(leaf - 1):
        total += int(np.count_nonzero(last[i] > last[i + 1 :]))
    return total
