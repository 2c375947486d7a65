"""Recordings to netCDF and pandas, and back."""

import json
import os
from collections.abc import Hashable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from repsim.datasets.imports import expect_at_once
from repsim.datasets.recordings import layers
from repsim.datasets.store.attributes import attribute, example_coordinates
from repsim.datasets.store.places import refused
from repsim.datasets.store.untrusted import memory_fault
from repsim.datasets.validation import validate

_JSON = "json:"
_KEPT = "repsim_table"


def to_netcdf(run: xr.Dataset, path: str | Path) -> None:
    """Write a recording as one netCDF-4 file.

    Needs h5netcdf and h5py (`pip install repsim-toolkit[netcdf]`).
    """
    _expect_h5netcdf()
    target = Path(path)
    if target.exists():
        msg = f"Expected a new file, but {target} exists; choose another name."
        raise FileExistsError(msg)
    attrs = {k: _packed(attribute(str(k), v)) for k, v in run.attrs.items()}
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        run.assign_attrs(attrs).to_netcdf(beside, engine="h5netcdf")
        os.replace(beside, target)
    except OSError as error:
        raise refused(error, target, "no part of it was left") from error
    finally:
        beside.unlink(missing_ok=True)


def from_netcdf(path: str | Path, *, chunks: Any = None) -> xr.Dataset:
    """Open a recording that `to_netcdf` wrote, lazily."""
    _expect_h5netcdf()
    try:
        _check_claims(path)
        run = xr.open_dataset(path, engine="h5netcdf", chunks=chunks, cache=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        msg = (
            f"Expected {path} to be a netCDF-4 file, but it cannot be read ({error}): "
            "cut short, or of another kind. It cannot be repaired; write it again."
        )
        raise ValueError(msg) from error
    attrs = {k: _unpacked(v) for k, v in run.attrs.items()}
    run.attrs = attrs
    listed = attrs.get("layers")
    if isinstance(listed, list):
        signals = [n for n in run.data_vars if n not in listed]
        order: list[Hashable] = []
        for name in listed:
            mine = [s for s in signals if str(s).rpartition("@")[0] == name]
            order += [name, *mine]
        order += [s for s in signals if s not in order]
        # A mask, whose tokens are no layer's dim, is no coordinate of the layers alone.
        run = run[order].assign_coords(run.coords).assign_attrs(attrs)
    return validate(run, str(path))


def from_other(path: str | Path) -> xr.Dataset:
    """Open a netCDF file of another tool, unless it claims more than memory holds."""
    if find_spec("h5py"):
        import h5py

        if h5py.is_hdf5(path):
            _check_claims(path)
    data = xr.open_dataset(path)
    if fault := memory_fault(data.nbytes):
        data.close()
        msg = f"Expected {path} to fit into memory, but it claims {fault}; free some."
        raise ValueError(msg)
    return data


def _check_claims(path: str | Path) -> None:
    """Refuse a file that claims more than can be, before anything of it is read."""
    import h5py

    with h5py.File(path) as file:
        try:
            expect_at_once(file)
        except ValueError as error:
            msg = (
                f"Expected {path} to fit into memory, but {error}; free some, or write "
                "the file again."
            )
            raise ValueError(msg) from error


def _expect_h5netcdf() -> None:
    """Say which extra brings netCDF where it is missing."""
    missing = [name for name in ("h5netcdf", "h5py") if find_spec(name) is None]
    if missing:
        msg = (
            f"Expected h5netcdf and h5py for netCDF files, but {' and '.join(missing)} "
            "cannot be imported; run `pip install repsim-toolkit[netcdf]`."
        )
        raise ImportError(msg)


def _packed(value: Any) -> Any:
    # netCDF keeps a list of one as its element, and no empty list at all.
    return f"{_JSON}{json.dumps(value)}" if isinstance(value, list) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_JSON):
        return json.loads(value.removeprefix(_JSON))
    return value.item() if isinstance(value, np.generic) else value


def to_dataframe(run: xr.Dataset) -> pd.DataFrame:
    """Return a recording as a long table, one row for each number.

    Parameters
    ----------
    run : Dataset
        A recording.

    Returns
    -------
    DataFrame
        Columns `variable` (the layer, or `<layer>@error`), `step` and `example`
        where there are such dims, further coordinates such as `label`, then the
        place in the layer (`unit`, `token`, `channel`, `y`, `x`; missing where a
        layer has no such dim) and `value`. `frame.attrs` holds the attributes, and
        what else `from_dataframe` needs to give the same recording again.

    Examples
    --------
    >>> run = xr.Dataset({"a": (("example", "a_unit"), np.ones((2, 3)))})
    >>> to_dataframe(run).columns.tolist()
    ['variable', 'example', 'unit', 'value']
    """
    example_coordinates(run)  # others would be lost
    names = [str(n) for n, v in run.data_vars.items() if "example" in v.dims]
    frames = [_long(run, name) for name in names]
    frame = pd.concat(frames, ignore_index=True)
    places = [c for c in frame.columns if c not in ("variable", "value")]
    kept = [c for c in ("step", "example") if c in places]
    given = [c for c in places if c in run.coords and c not in kept]
    inner = [c for c in places if c not in kept and c not in given]
    for column in inner:
        frame[column] = frame[column].astype("Int64")
    frame = frame[["variable", *kept, *given, *inner, "value"]]
    frame.attrs = {**run.attrs, "layers": layers(run), _KEPT: _kept(run, names)}
    return frame


def _kept(run: xr.Dataset, names: list[str]) -> str:
    """Return as JSON what a column of values cannot say: types, scalars, attributes."""
    variables = {n: [str(run[n].dtype), run[n].attrs] for n in names}
    scalars = {str(n): c.item() for n, c in run.coords.items() if not c.dims}
    return json.dumps([variables, scalars], default=np.generic.tolist)


def _long(run: xr.Dataset, name: str) -> pd.DataFrame:
    variable = run[name]
    layer = _layer(name)
    sizes = {str(d): n for d, n in variable.sizes.items()}
    places = np.indices(tuple(sizes.values()), np.int64)
    columns: dict[str, Any] = {"variable": pd.Categorical([name] * variable.size)}
    for (dim, _), place in zip(sizes.items(), places, strict=True):
        flat = place.reshape(-1)
        if dim in ("step", "example"):
            given = [c for c, v in run.coords.items() if v.dims == (dim,)]
            columns[dim] = run[dim].values[flat] if dim in run.coords else flat
            for coordinate in given:
                columns[str(coordinate)] = run[coordinate].values[flat]
        else:
            columns[dim.removeprefix(f"{layer}_")] = flat
    columns["value"] = variable.values.reshape(-1)
    frame = pd.DataFrame(columns)
    return frame.assign(variable=frame["variable"].astype(str))


def _layer(name: str) -> str:
    return name.removesuffix("@true_error").removesuffix("@error")


def from_dataframe(frame: pd.DataFrame) -> xr.Dataset:
    """Return the recording that `to_dataframe` made a table of."""
    missing = {"variable", "example", "value"} - set(frame.columns)
    if missing:
        msg = (
            "Expected a table with the columns variable, example and value, but "
            f"{', '.join(sorted(missing))} is missing; make it with to_dataframe."
        )
        raise ValueError(msg)
    inner = [c for c in _PLACES if c in frame.columns] + [
        c for c in frame.columns if str(c).startswith("axis")
    ]
    attrs = dict(frame.attrs)
    variables, scalars = json.loads(attrs.pop(_KEPT, "[{}, {}]"))
    arrays = {}
    for name, part in frame.groupby("variable", sort=False, observed=True):
        wide = _wide(str(name), part, inner)
        dtype, own = variables.get(str(name), [wide.dtype, {}])
        if wide.dtype.kind == "c" and np.dtype(dtype).kind != "c":
            wide = wide.real  # beside a complex layer all values are complex
        arrays[str(name)] = wide.astype(dtype).assign_attrs(own)
    run = xr.Dataset(arrays, attrs=attrs).assign_coords(scalars)
    for column in frame.columns:
        if column not in ("variable", "value", "step", "example", *inner):
            rows = frame.drop_duplicates("example").set_index("example")[column]
            values = rows.reindex(run["example"].values).to_numpy()
            run = run.assign_coords({str(column): ("example", values)})
    return validate(run, "the table")


_PLACES = ("token", "channel", "z", "y", "x", "unit")


def _wide(name: str, part: pd.DataFrame, inner: list[Any]) -> xr.DataArray:
    lead = [c for c in ("step", "example") if c in part.columns]
    mine = [c for c in inner if part[c].notna().all()]
    axes = {c: pd.unique(part[c]) for c in lead}
    # Of steps and examples the order matters; places in a layer are counted.
    shape = [len(axes[c]) for c in lead] + [int(part[c].max()) + 1 for c in mine]
    if int(np.prod(shape)) != len(part):
        msg = (
            f"Expected {int(np.prod(shape))} rows for {name!r}, one for each place of "
            f"{tuple(shape)}, but got {len(part)}."
        )
        raise ValueError(msg)
    where = [pd.Index(axes[c]).get_indexer(pd.Index(part[c])) for c in lead]
    where += [part[c].to_numpy(np.int64) for c in mine]
    values = np.empty(shape, part["value"].to_numpy().dtype)
    values[tuple(where)] = part["value"].to_numpy()
    dims = [*lead, *(f"{_layer(name)}_{c}" for c in mine)]
    return xr.DataArray(values, axes, dims)
