"""What comes as RDMs: vectors, stacks and squares, with labels and without."""

import os
from math import isqrt
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from repsim.measures import alignment
from repsim.measures.dissimilarity.triangle import n_pairs

_SLACK = 1e-3
"""Share of the largest distance that rounding may leave on a diagonal.

A Euclidean distance of an example to itself, computed in single precision from inner
products, is the root of some 1e-7.
"""


def n_examples(pairs: int) -> int | None:
    """Return n where there are n (n − 1) / 2 pairs, else None."""
    n = (1 + isqrt(1 + 8 * pairs)) // 2
    return n if n_pairs(n) == pairs else None


def as_pairs(rdms: Any, name: str) -> xr.DataArray | np.ndarray:
    """Return RDMs with their pairs last: condensed, and floats.

    Squares are recognised by their shape, or by the dims `example_a` and `example_b`,
    checked with a tolerance and condensed.

    Raises
    ------
    ValueError
        If a square is not symmetric or not zero on its diagonal.
    TypeError
        If a file's name or a recording came instead.
    """
    if isinstance(rdms, str | os.PathLike):
        msg = (
            f"Expected `{name}` to be RDMs, but got the path {str(rdms)!r}; read it "
            f"first, as in np.load({str(rdms)!r})."
        )
        raise TypeError(msg)
    if isinstance(rdms, xr.Dataset):
        msg = (
            f"Expected `{name}` to be RDMs, but got a Dataset; take repsim.rdms of a "
            "recording first."
        )
        raise TypeError(msg)
    if isinstance(rdms, xr.DataArray):
        if {"example_a", "example_b"} <= set(rdms.dims):
            return _labelled(rdms, name)
        if "pair" in rdms.dims:
            condensed: xr.DataArray = _same_pairs(rdms.transpose(..., "pair"), name)
            if _is_square(condensed.values):
                dims = ", ".join(str(d) for d in condensed.dims)
                msg = (
                    f"Expected `{name}` to be condensed along `pair`, but got a square "
                    f"RDM, dims ({dims}); call its two last dims example_a and "
                    "example_b, or pass its values."
                )
                raise ValueError(msg)
            return condensed
        rdms = rdms.values
    if isinstance(rdms, torch.Tensor):
        rdms = rdms.detach().cpu()
        rdms = (rdms.float() if rdms.dtype == torch.bfloat16 else rdms).numpy()
    if np.ma.isMaskedArray(rdms):
        rdms = np.ma.filled(rdms.astype(np.float64), np.nan)
    values = np.asarray(rdms)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    if values.ndim < 2 or values.shape[-1] != values.shape[-2]:
        return values
    # Three RDMs of three pairs are a square too: told by their symmetry.
    stacked = values.ndim == 2 and n_examples(len(values)) is not None
    return values if stacked and not _is_square(values) else _condense(values, name)


def as_rdms(rdms: Any, name: str = "rdms") -> xr.DataArray:
    """Return RDMs as a DataArray whose last dim is `pair`, whatever came."""
    pairs = as_pairs(rdms, name)
    if isinstance(pairs, xr.DataArray):
        return pairs
    if isinstance(rdms, xr.DataArray):
        msg = (
            f"Expected `{name}` to have a dim `pair`, or example_a and example_b, but "
            f"got ({', '.join(str(d) for d in rdms.dims)}); use repsim.rdms."
        )
        raise ValueError(msg)
    if pairs.ndim not in (1, 2):
        msg = (
            f"Expected `{name}` to be RDMs with a dim `pair`, but got shape "
            f"{pairs.shape}; name the dims, as in xr.DataArray(x, dims=('subject', "
            "'pair')), or make RDMs of responses first, with "
            "repsim.rdms(repsim.datasets.from_responses(x, axes=...))."
        )
        raise ValueError(msg)
    return xr.DataArray(pairs, dims=("rdm", "pair")[2 - pairs.ndim :])


def aligned(first: Any, second: Any, names: tuple[str, str]) -> Any:
    """Return the second RDMs with their pairs in the order of the first."""
    both = isinstance(first, xr.DataArray) and isinstance(second, xr.DataArray)
    if both and all(
        f"example_{end}" in part.coords for part in (first, second) for end in "ab"
    ):
        ends = ("example_a", "example_b")
        if all(np.array_equal(first[end].values, second[end].values) for end in ends):
            return second
    return alignment.aligned(first, second, names, dim="pair")


def in_order(rdms: xr.DataArray, name: str = "rdms") -> xr.DataArray:
    """Return labelled pairs in scipy's order: (0, 1), (0, 2), ….

    Raises
    ------
    ValueError
        If they are not all pairs of some examples, each once.
    """
    n = n_examples(rdms.sizes["pair"])
    if n is None or not {"example_a", "example_b"} <= set(rdms.coords):
        return rdms
    a, b = rdms["example_a"].values, rdms["example_b"].values
    examples = np.concatenate([a[:1], b[: n - 1]])
    i, j = np.triu_indices(n, 1)
    if np.array_equal(a, examples[i]) and np.array_equal(b, examples[j]):
        return rdms
    examples = pd.unique(np.column_stack([a, b]).ravel())
    known = pd.Index(examples)
    ends = np.stack([known.get_indexer(a), known.get_indexer(b)])
    low, high = ends.min(0), ends.max(0)
    place = low * n - low * (low + 1) // 2 + high - low - 1
    if len(examples) != n or len(np.unique(place[low < high])) != len(a):
        msg = (
            f"Expected `{name}` to hold every pair of {n} examples once, but got "
            f"{len(examples)} examples in {len(a)} pairs; keep missing pairs as NaN."
        )
        raise ValueError(msg)
    order = np.argsort(place)
    out = rdms.isel(pair=order)
    turned = ends[0][order] > ends[1][order]
    both = [
        k
        for k in map(str, out.coords)
        if k.endswith("_a") and f"{k[:-2]}_b" in out.coords
    ]
    for key in both:
        first, second = out[key].values, out[f"{key[:-2]}_b"].values
        out = out.assign_coords(
            {
                key: ("pair", np.where(turned, second, first)),
                f"{key[:-2]}_b": ("pair", np.where(turned, first, second)),
            }
        )
    return out


def crossed(
    values: np.ndarray, left: xr.DataArray, right: xr.DataArray, name: str
) -> xr.DataArray:
    """Return values of every RDM of one stack with every one of another, labelled.

    Dims, and coordinates along them, that both have get the suffixes `_a` and `_b`.
    """
    shared = {*left.dims} & {*right.dims} - {"pair"}
    dims: list[str] = []
    coords: dict[str, Any] = {}
    for part, end in ((left, "_a"), (right, "_b")):
        new = {d: f"{d}{end}" if d in shared else str(d) for d in part.dims[:-1]}
        dims += new.values()
        for key, value in part.coords.items():
            if "pair" in value.dims:
                continue
            along = [new[d] for d in value.dims]
            both = bool(shared & {*value.dims})
            coords.setdefault(
                f"{key}{end}" if both else str(key), (along, value.values)
            )
    shape = left.shape[:-1] + right.shape[:-1]
    return xr.DataArray(values.reshape(shape), dims=dims, coords=coords, name=name)


def _same_pairs(rdms: xr.DataArray, name: str) -> xr.DataArray:
    """Bring RDMs whose pairs differ along another dim, as of subjects, to one order."""
    wide = [
        str(d)
        for end in "ab"
        if f"example_{end}" in rdms.coords
        for d in rdms[f"example_{end}"].dims
        if d != "pair"
    ]
    if not wide:
        return rdms
    dim = wide[0]
    parts = [rdms.isel({dim: k}) for k in range(rdms.sizes[dim])]
    moved = [
        aligned(parts[0], part, (f"{dim} 0 of `{name}`", f"{dim} {k}"))
        for k, part in enumerate(parts)
    ]
    ends = {
        key: parts[0][key].variable
        for key in map(str, rdms.coords)
        if rdms[key].dims in ((dim, "pair"), ("pair", dim))
    }
    out = rdms.drop_vars(list(ends)).transpose(dim, ..., "pair")
    values = np.stack([part.transpose(*out.dims[1:]).values for part in moved])
    return out.copy(data=values).assign_coords(ends).transpose(*rdms.dims)


def _labelled(rdms: xr.DataArray, name: str) -> xr.DataArray:
    """Condense squares with the dims `example_a` and `example_b`."""
    rdms = rdms.transpose(..., "example_a", "example_b")
    if {"example_a", "example_b"} <= set(rdms.coords):
        first, second = (pd.Index(rdms[f"example_{end}"].values) for end in "ab")
        names = (f"`example_a` of `{name}`", "`example_b`")
        places = alignment.order(second, first, names)
        if places is not None:
            rdms = rdms.isel(example_b=places)
    i, j = np.triu_indices(rdms.sizes["example_a"], 1)
    coords: dict[str, Any] = {
        str(k): v
        for k, v in rdms.coords.items()
        if not {"example_a", "example_b"} & {*v.dims}
    }
    for end, places in (("a", i), ("b", j)):
        for key, value in rdms.coords.items():
            if value.dims == (f"example_{end}",):
                coords[str(key)] = ("pair", value.values[places])
    return xr.DataArray(
        _condense(rdms.values, name),
        dims=(*rdms.dims[:-2], "pair"),
        coords=coords,
        attrs=rdms.attrs,
        name=rdms.name,
    )


def _is_square(values: np.ndarray) -> bool:
    """Return whether the last two axes are symmetric, with one value as diagonal."""
    if values.ndim < 2 or values.shape[-1] != values.shape[-2] or values.shape[-1] < 3:
        return False
    slack = _SLACK * _largest(values)
    own = np.diagonal(values, axis1=-2, axis2=-1)
    return bool(
        _largest(own - own[..., :1]) <= slack and _largest(_turned(values)) <= slack
    )


def _condense(values: np.ndarray, name: str) -> np.ndarray:
    """Return the upper triangles of square RDMs, or say why they are none."""
    i, j = np.triu_indices(values.shape[-1], 1)
    upper, lower = values[..., i, j], values[..., j, i]
    own = np.diagonal(values, axis1=-2, axis2=-1)
    slack = _SLACK * _largest(upper)
    if _largest(_turned(values)) > slack or (np.isnan(upper) != np.isnan(lower)).any():
        msg = (
            f"Expected `{name}` to be condensed or symmetric, but got a square matrix "
            "whose halves differ; average it with its transpose where both directions "
            "mean the same."
        )
        raise ValueError(msg)
    if _largest(own) > slack:
        known = own[np.isfinite(own)]
        alike = np.ptp(known) <= slack and known.min() >= np.nanmax(upper) - slack
        advice = (
            "as a matrix of similarities has (np.corrcoef); pass dissimilarities, as "
            f"1 - {name}"
            if alike
            else "where an example's distance to itself belongs; set it to 0 or NaN"
        )
        msg = (
            f"Expected `{name}` to be zero on the diagonal of a square RDM, but got "
            f"{known[np.abs(known).argmax()]:.3g}, {advice}."
        )
        raise ValueError(msg)
    return np.asarray(upper / 2 + lower / 2)


def _turned(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(values - np.swapaxes(values, -1, -2))


def _largest(values: np.ndarray) -> float:
    """Return the largest finite size, 0 where there is none."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
