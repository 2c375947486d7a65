"""Attributes and coordinates in the form that zarr, netCDF and JSON all keep."""

import hashlib
import json
from typing import Any

import numpy as np
import xarray as xr

from repsim.datasets.store.places import RESERVED, check_name


def attribute(name: str, value: Any) -> Any:
    """Return an attribute's value as text, a number or a list of them."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple | list) and all(
        isinstance(v, str | int | float) and not isinstance(v, bool) for v in value
    ):
        return list(value)
    try:
        return json.dumps(value)
    except TypeError:
        msg = (
            f"Expected the attribute {name!r} to be text, numbers or JSON of them, but "
            f"got {type(value).__name__}."
        )
        raise TypeError(msg) from None


def coordinate(name: str, values: np.ndarray) -> np.ndarray:
    """Return one value for each example: numbers, truth values or text."""
    text = values.dtype.kind == "O" and all(isinstance(v, str) for v in values.flat)
    if values.dtype.kind not in "iufbU" and not text:
        msg = (
            f"Expected `{name}` to hold numbers or text for the examples, but got "
            f"{values.dtype}; turn them into text first."
        )
        raise TypeError(msg)
    return values


def dims_of(name: str, ndim: int) -> tuple[str, ...]:
    """Return the dims of a coordinate: `mask` and `label` may lie on tokens, too."""
    if ndim == 1:
        return ("example",)
    own = name.endswith("_mask")
    return ("example", f"{name.removesuffix('_mask')}_token" if own else "token")


def example_coordinates(run: xr.Dataset) -> dict[str, np.ndarray]:
    """Return a recording's coordinates over `example`, ids included."""
    coordinates = {"example": np.arange(run.sizes["example"], dtype=np.int64)}
    for name, values in run.coords.items():
        if not values.dims or (name, values.dims) == ("step", ("step",)):
            continue
        if values.dims != dims_of(str(name), values.ndim):
            msg = (
                f"Expected coordinates on `example`, but {str(name)!r} lies on "
                f"({', '.join(map(str, values.dims))}) and would be lost; drop it with "
                "run.drop_vars, or save as netCDF."
            )
            raise ValueError(msg)
        if name not in RESERVED:
            check_name(str(name), "coordinate")
        coordinates[str(name)] = coordinate(str(name), np.asarray(values.values))
    return coordinates


def mask_hash(mask: np.ndarray) -> str:
    """Return what tells one mask (example, token) from another."""
    packed = np.packbits(mask).tobytes()
    return hashlib.sha256(str(mask.shape).encode() + packed).hexdigest()[:16]
