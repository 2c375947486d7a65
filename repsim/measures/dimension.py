"""Effective dimension: in how many directions a representation spreads."""

import warnings
from collections.abc import Iterable
from importlib.metadata import version

import numpy as np
import torch
import xarray as xr

from repsim.datasets.recordings import matrix, matrix_layers
from repsim.measures.inputs import Matrix, check_finite, read, warn_constant
from repsim.measures.inputs import matrix as checked


def participation_ratio(x: Matrix) -> float:
    r"""Effective number of directions of a representation.

    With the eigenvalues :math:`\lambda_i` of its covariance over examples,

    .. math:: PR = \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}.

    Parameters
    ----------
    x : array, tensor or DataArray, shape (examples, units)
        A representation.

    Returns
    -------
    float
        Between 1 (a line) and min(n − 1, units) (a ball); NaN with a warning where
        the representation is constant.

    Raises
    ------
    ValueError
        If it is not a matrix or not finite.

    Notes
    -----
    Invariant to rotation, reordering, uniform scaling and shifts. The value of a
    sample lies below that of the population, visibly so once units outnumber a tenth
    of the examples; compare values of the same examples. Costs
    min(n units², n² units) operations.

    References
    ----------
    Gao et al. (2017), doi:10.1101/214262.

    Examples
    --------
    >>> import numpy as np
    >>> round(participation_ratio(np.eye(5)), 6)
    4.0
    """
    rows = checked(x, "x")
    if warn_constant(rows):
        return float("nan")
    return _ratio(rows)


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
        attrs={"measure": "participation_ratio", "repsim_version": version("repsim")},
    )
    if steps is None:
        return result.isel(step=0)
    return result.assign_coords(step=run["step"]) if "step" in run.coords else result


def _layer(run: xr.Dataset, name: str, moment: int | None) -> float:
    """Return the ratio of one layer at one moment."""
    x = read(matrix(run, name, moment)).double()
    check_finite(x, f"layer {name!r}")
    return _ratio(x)


def _ratio(x: torch.Tensor) -> float:
    """Return the ratio of finite float64 numbers, NaN where they do not vary."""
    x = x - x[:1]
    x = x - x.mean(dim=0, keepdim=True)
    total = float(x.square().sum())
    if total == 0:
        return float("nan")
    x = x / total**0.5
    small = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    return 1 / float(small.square().sum())
