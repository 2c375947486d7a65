"""Results on disk: what zarr keeps of a labelled result."""

import numpy as np
import xarray as xr


def storable(result: xr.Dataset) -> xr.Dataset:
    """Return a result whose texts zarr keeps in its specified string type."""
    texts = {
        name: variable.astype(np.dtypes.StringDType())
        for name, variable in result.variables.items()
        if variable.dtype.kind in "UO"
    }
    return result.assign_coords(
        {n: v for n, v in texts.items() if n in result.coords}
    ).assign({n: v for n, v in texts.items() if n not in result.coords})


def restored(result: xr.Dataset) -> xr.Dataset:
    """Return a stored result with its texts as they were before `storable`."""
    texts = {
        name: (variable.dims, np.array(variable.values.tolist(), dtype=str))
        for name, variable in result.variables.items()
        if variable.dtype.kind in "TO"
    }
    return result.assign_coords(
        {n: v for n, v in texts.items() if n in result.coords}
    ).assign({n: v for n, v in texts.items() if n not in result.coords})
