"""The effective dimension of every layer of a recording."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from repsim.comparison.operands import LayerSource, layer_source
from repsim.core import cluster
from repsim.core.provenance import repsim_version
from repsim.datasets.recordings import is_stored, matrix, matrix_layers
from repsim.measures.dimension import ratio_of
from repsim.measures.kernels.streamed import streamed_sums
from repsim.measures.matrices import check_finite, read


def effective_dimension(
    run: xr.Dataset,
    *,
    layers: str | Iterable[str] | None = None,
    scheduler: Any = None,
) -> xr.DataArray:
    """Return the participation ratio of every layer of a recording.

    Parameters
    ----------
    run : Dataset
        A recording.
    layers : str, iterable of str or None
        Which layers, by name or pattern; None means all.
    scheduler : distributed.Client, str or None
        Where what lies in a store is read and computed: a client, the address of a
        dask scheduler, or "threads" or "synchronous" for this process. None is the
        client in scope, if there is one.

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
    with cluster.using(scheduler):
        names = matrix_layers(run, layers)
        steps = run.sizes.get("step")
        moments: list[int | None] = [None] if steps is None else list(range(steps))
        cells = [(moment, name) for moment in moments for name in names]
        client = cluster.active() if is_stored(run, names) else None
        if client is not None and len(cells) >= FEW:
            found = cluster.spread(client, _cell, cells, run[names])
        else:
            found = [_cell(cell, run) for cell in cells]
        values = np.reshape(found, (len(moments), len(names)))
        flat = [
            n
            for n, column in zip(names, values.T, strict=True)
            if np.isnan(column).any()
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
            attrs={
                "measure": "participation_ratio",
                "repsim_version": repsim_version(),
            },
        )
        if steps is None:
            return result.isel(step=0)
        return (
            result.assign_coords(step=run["step"]) if "step" in run.coords else result
        )


FEW = 8
"""Layers and moments from which a cluster takes them apart, and not their examples."""


def _cell(cell: tuple[int | None, str], run: xr.Dataset) -> float:
    """Return the ratio of one layer at one moment."""
    moment, name = cell
    source = layer_source(run, name, moment)
    if source.stored and source.shape[1] <= source.shape[0]:
        return _streamed(source)
    x = read(matrix(run, name, moment)).double()
    check_finite(x, f"layer {name!r}")
    return ratio_of(x)


def _streamed(source: LayerSource) -> float:
    """Return the ratio from sums over blocks of examples, in memory flat in them."""
    sums, _, constant = streamed_sums([source], None, "float64", "cpu", lambda _: None)
    if constant[0]:
        return float("nan")
    # Of the covariance the squared trace, and the sum of the squared eigenvalues.
    return float(sums.totals[0] ** 2 / (sums.off + sums.diagonal)[0, 0])
