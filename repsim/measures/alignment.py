"""Whose row is whose: sides that carry ids are brought to one order, or refused."""

from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)


def ids(side: Any, dim: str = "example") -> pd.Index | None:
    """Return the ids of a side along a dim, None where it has none.

    Along `pair` they are the unordered pairs of `example_a` and `example_b`.
    """
    if not isinstance(side, xr.DataArray | xr.Dataset) or dim not in side.dims:
        return None
    if dim != "pair":
        return pd.Index(side[dim].values) if dim in side.coords else None
    if not {"example_a", "example_b"} <= set(side.coords):
        return None
    ends = np.stack([side[f"example_{end}"].values for end in "ab"])
    return pd.MultiIndex.from_arrays(list(np.sort(ends, axis=0)))


def order(
    have: pd.Index, want: pd.Index, names: tuple[str, str], dim: str = "example"
) -> np.ndarray | None:
    """Return where each wanted id stands, None where all stand there already.

    `names` are those of the sides that want and have, for the error's sentence.
    """
    if have.equals(want):
        return None
    what = "pairs of examples" if dim == "pair" else f"{dim}s"
    first, second = names
    if have.has_duplicates or want.has_duplicates:
        msg = (
            f"Expected {first} and {second} to have the same {what} in the same order "
            "or ids that tell them apart, but got ids that repeat; give each its own "
            f"id and bring them to one order with .reindex({dim}=…)."
        )
        raise ValueError(msg)
    lone = len(have.symmetric_difference(want))
    if lone:
        msg = (
            f"Expected {first} and {second} to have the same {what}, but {lone} ids "
            f"are on one side only (of {len(want)} and {len(have)}); take common ones "
            f"with xarray.align, or bring one side to the other's ids with .reindex."
        )
        raise ValueError(msg)
    return np.asarray(have.get_indexer(want))


def aligned(
    first: Any,
    second: Any,
    names: tuple[str, str] = ("`x`", "`y`"),
    dim: str = "example",
) -> Any:
    """Return the second side in the first one's order, where both have ids.

    Raises
    ------
    ValueError
        If the ids are not the same, or repeat in another order; names `reindex`.
    """
    want, have = ids(first, dim), ids(second, dim)
    if want is None or have is None:
        return second
    places = order(have, want, names, dim)
    return second if places is None else second.isel({dim: places})
