"""The effective dimension of every layer of a recording."""

import warnings
from collections.abc import Iterable

import numpy as np
import xarray as xr

from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import matrix, matrix_layers
from repsim.measures.dimension import ratio_of
from repsim.measures.matrices import check_finite, read


def effective_dimension(
    run: xr.Dataset, *, layers: str | Iterable[str] | None = None
) -> xr.DataArray:
    """Return the participation ratio of every layer of a recording.

    Parameters
    ----------
    run : Dataset
        A recording.
    layers : str, iterable of str or None
        Which layers; None means all.

    Returns
    -------
    DataArray, dims ([step,] layer)
        In directions; NaN where a layer is constant.

    Raises
    ------
    ValueError
        If a layer does not exist, is not a matrix, or is not finite.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> run = xr.Dataset({"h": (("example", "h_unit"), np.eye(5))})
    >>> effective_dimension(run).round(6).values.tolist()
    [4.0]
    """
    names = matrix_layers(run, layers)
    steps = run.sizes.get("step")
    moments: list[int | None] = [None] if steps is None else list(range(steps))
    values = np.array(
        [[_layer(run, name, moment) for name in names] for moment in moments]
    )
    flat = [
        n for n, column in zip(names, values.T, strict=True) if np.isnan(column).any()
    ]
    if flat:
        warnings.warn(
            "Constant over the examples, so without dimension (NaN): "
            f"{', '.join(repr(name) for name in flat)}.",
            UserWarning,
            stacklevel=2,
        )
    result = xr.DataArray(
        values,
        dims=("step", "layer"),
        coords={"layer": names},
        name="effective_dimension",
        attrs={"measure": "participation_ratio", "repsim_version": repsim_version()},
    )
    if steps is None:
        return result.isel(step=0)
    return result.assign_coords(step=run["step"]) if "step" in run.coords else result


def _layer(run: xr.Dataset, name: str, moment: int | None) -> float:
    """Return the ratio of one layer at one moment."""
    x = read(matrix(run, name, moment)).double()
    check_finite(x, f"layer {name!r}")
    return ratio_of(x)
