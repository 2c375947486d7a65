"""Distances that are equal in exact arithmetic come out equal, to the last bit.

Rank comparators read ties, and a product of centred rows splits them by its rounding.
Three things make them whole: equal rows are computed once (`distinct`), rows on a grid
(one-hot, binary, counts, saturated) by whole numbers, of which every sum is exact
(`plain`, `whole`), and what is left is gathered within the product's error (`settle`).
Gathering is for float64 only: in float32 the error is as wide as the gaps between the
distances of a thousand examples, and a chain of neighbours would tie all of them.
"""

import numpy as np
import torch

from repsim.measures.dissimilarity.ranks import ascending

_COLUMNS = 8
_SOME = 6
"""Pairs of rows that are looked at for a symmetry."""
_ERRORS = {"float64": 32 * 2.0**-52, "float32": 8 * 2.0**-23}
"""Errors of products of rows, relative to the largest squared length."""
_EXACT = 50
"""Bits of a sum of whole numbers that float64 holds whatever the order of adding."""


def some_columns_step(units: int) -> int:
    """Return every how many units are looked at first."""
    return max(1, units // _COLUMNS)


def some_columns(x: torch.Tensor) -> np.ndarray:
    """Return a few units of all examples, (unit, example): most rows differ there."""
    step = some_columns_step(x.shape[1])
    # Adding zero turns -0.0 into 0.0: they are equal, their bits are not.
    return np.asarray(np.add(x[:, ::step].T.cpu().numpy(), 0.0, order="C"))


def distinct(x: torch.Tensor, few: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the first of each kind of row and each row's kind; None: all differ."""
    kinds: np.ndarray = few.view(np.uint64 if few.dtype == np.float64 else np.uint32)
    places: np.ndarray = np.arange(len(kinds), dtype=kinds.dtype)
    odd = places * 0x9E3779B1 | 1
    keys = (kinds * odd[:, None]).sum(0, dtype=kinds.dtype)
    ordered = np.sort(keys)
    alike = ordered[1:] == ordered[:-1]
    if not alike.any():
        return None
    places = np.flatnonzero(np.isin(keys, ordered[1:][alike]))
    rows = x[torch.from_numpy(places).to(x.device)].cpu().numpy() + 0.0
    first: dict[bytes, int] = {}
    kind = np.arange(len(x))
    for place, row in zip(places.tolist(), rows, strict=True):
        kind[place] = first.setdefault(row.tobytes(), place)
    kept, inverse = np.unique(kind, return_inverse=True)
    return None if len(kept) == len(x) else (kept, inverse)


def plain(
    x: torch.Tensor, few: np.ndarray, metric: str
) -> tuple[torch.Tensor, np.ndarray]:
    """Put rows of one or two values to 0, 1 and −1 where the metric ignores scale.

    Returns the rows (a copy if any changed) and which have no direction at all:
    constant ones (correlation), zero ones (cosine).
    """
    maybe = np.flatnonzero(((few == few.min(0)) | (few == few.max(0))).all(0))
    away = np.zeros(len(x), dtype=bool)
    if not len(maybe):
        return x, away
    where = torch.from_numpy(maybe).to(x.device)
    rows = x[where].cpu().numpy()
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    if metric == "correlation":
        away[maybe] = (low == high)[:, 0]
        simple = ((rows == low) | (rows == high)).all(1)
        turned = (rows == high).astype(rows.dtype)
    else:
        away[maybe] = (low == 0)[:, 0] & (high == 0)[:, 0]
        size = np.maximum(np.abs(low), np.abs(high))
        simple = ((rows == 0) | (np.abs(rows) == size)).all(1)
        turned = np.sign(rows)
    simple &= ~away[maybe]
    if simple.any():
        x = x.clone()
        x[where[torch.from_numpy(simple)]] = torch.from_numpy(turned[simple]).to(x)
    return x, away


def whole(
    x: torch.Tensor, few: np.ndarray, metric: str
) -> tuple[torch.Tensor, int] | None:
    """Return rows as whole numbers in float64 and the exponent of two they lack.

    None where they lie on no grid that is coarse enough for exact sums. What a metric
    does not see is taken off first: the first row, or for correlation each row's first
    value.
    """
    bits = grid_bits(x.shape[1], metric)
    if bits < 1 or _on_grid(_shifted(few.T.astype(np.float64), metric), bits) is None:
        return None
    wide = x.double().cpu().numpy()
    shifted = _shifted(wide, metric)
    if metric != "cosine":
        base = wide[:1] if metric != "correlation" else wide[:, :1]
        if not np.array_equal(shifted + base, wide):
            return None
    grid = _on_grid(shifted, bits)
    if grid is None:
        return None
    return torch.from_numpy(grid[0]).to(x.device), grid[1]


def grid_bits(units: int, metric: str) -> int:
    """Return of how many bits whole numbers may be for exact sums."""
    if metric == "cityblock":
        return _EXACT - units.bit_length() - 1
    # Sums of `units` products of two numbers; for correlation times `units`.
    times = 2 if metric == "correlation" else 1
    return (_EXACT - times * units.bit_length()) // 2


def _shifted(x: np.ndarray, metric: str) -> np.ndarray:
    if metric == "cosine":
        return x
    return np.asarray(x - (x[:, :1] if metric == "correlation" else x[:1]))


def _on_grid(x: np.ndarray, bits: int) -> tuple[np.ndarray, int] | None:
    """Return x 2⁻ᵉ and e where that is whole and below 2^bits."""
    exponent = int(np.frexp(np.abs(x).max())[1]) - bits
    moved = np.ldexp(x, -exponent)
    return (moved, exponent) if np.array_equal(moved, np.rint(moved)) else None


def plain_rows(x: torch.Tensor, few: np.ndarray) -> np.ndarray:
    """Return which rows are made of few binary digits: one-hot, saturated, counts."""
    at = np.flatnonzero(~(few.view(_bits(few)) & _low(few)).any(0))
    if len(at) > 2:
        rows = x[torch.from_numpy(at).to(x.device)].cpu().numpy()
        at = at[~(rows.view(_bits(rows)) & _low(rows)).any(1)]
    return np.asarray(at)


def _bits(x: np.ndarray) -> type[np.unsignedinteger]:
    return np.uint64 if x.dtype == np.float64 else np.uint32


def _low(x: np.ndarray) -> np.unsignedinteger:
    """Return the digits after the eleventh."""
    return _bits(x)(2**40 - 1 if x.dtype == np.float64 else 2**12 - 1)


def mirrored(values: np.ndarray, squares: np.ndarray, dtype: str) -> bool:
    """Return whether a symmetry of the layer may exchange some of its rows.

    Then these are equally long once the common mean is out, and have the same
    distances to all others but in another order: within the error of a product,
    which lengths meet by chance (n = 1,000: some twenty pairs), distances do not.
    """
    error = _ERRORS[dtype]
    # NaN, of rows without a direction, comes last.
    order = np.argsort(squares)[: np.count_nonzero(np.isfinite(squares))]
    ordered = squares[order]
    near = np.flatnonzero(np.diff(ordered) <= error * ordered[-1])
    if not len(near):
        return False
    near = near[:: -(-len(near) // _SOME)]
    profiles = np.sort(_rows(values, len(squares), order[[near, near + 1]]))
    gaps = np.abs(profiles[0] - profiles[1])
    return bool((np.nanmax(gaps, 1) <= 4 * error * np.nanmax(profiles)).any())


def _rows(values: np.ndarray, n: int, i: np.ndarray) -> np.ndarray:
    """Return the distances of some rows, NaN to themselves, given those of all."""
    i, j = i[..., None], np.arange(n)
    low, high = np.minimum(i, j), np.maximum(i, j)
    rows = values[
        np.minimum(low * n - low * (low + 1) // 2 + high - low, len(values)) - 1
    ]
    rows[i == j] = np.nan
    return np.asarray(rows)


def settle(values: np.ndarray, room: np.ndarray) -> None:
    """Make numbers equal, in place, that differ by no more than their errors, `room`.

    Neighbours within it join; a run wider than twice the error is no tie but a crowd,
    and stays as it is.
    """
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) < 2:
        return
    given = values[finite]
    order = ascending(given).order
    ordered, room = given[order], room[finite][order]
    near = np.diff(ordered) <= room[1:]
    starts = np.flatnonzero(np.concatenate([[True], ~near]))
    ends = np.append(starts[1:], len(ordered)) - 1
    spread = ordered[ends] - ordered[starts]
    if not spread.any():
        return
    level = np.where(spread <= 2 * room[ends], ordered[(starts + ends) // 2], np.nan)
    new = np.repeat(level, ends - starts + 1)
    crowd = np.isnan(new)
    new[crowd] = ordered[crowd]
    values[finite[order]] = new


def tied(values: np.ndarray, room: np.ndarray) -> bool:
    """Return whether any two finite numbers differ by no more than their errors."""
    order = np.argsort(values)
    return bool((np.diff(values[order]) <= room[order][1:]).any())
