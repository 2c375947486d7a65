"""Kendall's tau: pairs of pairs in the same order, counted in O(m log m)."""

from dataclasses import dataclass

import numpy as np

from repsim.measures.dissimilarity.ranks import ascending, dense

_LEAF = 64


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
    found = ascending(values)
    starts = found.starts
    ties = 0 if starts is None else _choose2(np.diff(starts, append=len(values)))
    return Ranked(dense(found), found.order.astype(np.int32), ties)


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
