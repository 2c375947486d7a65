"""Whether a Dataset is a recording, and if not: what, where, and what helps."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from repsim.datasets.recordings import SCHEMA

SIGNALS = ("@error", "@true_error")


def problems(run: xr.Dataset) -> list[str]:
    """Return what keeps a Dataset from being a recording, a sentence each.

    Parameters
    ----------
    run : Dataset
        What claims to be a recording.

    Returns
    -------
    list of str
        Empty where all is well. Each sentence ends with whether and how it can be
        repaired.

    Examples
    --------
    >>> run = xr.Dataset({"a": (("example", "a_unit"), np.ones((2, 3)))})
    >>> problems(run.assign_attrs(layers=["a", "b"]))[0][:36]
    "layer 'b' is listed, but not there: "
    """
    return [*_attributes(run), *_layers(run), *_coordinates(run)]


def validate(run: xr.Dataset, where: str = "the recording") -> xr.Dataset:
    """Return a Dataset that is a recording, or say all that is wrong with it."""
    faults = problems(run)
    if faults:
        msg = f"Expected {where} to be a recording, but {'; '.join(faults)}."
        raise ValueError(msg)
    return run


def _attributes(run: xr.Dataset) -> Iterator[str]:
    schema = run.attrs.get("repsim_schema", SCHEMA)
    if not isinstance(schema, int | np.integer) or schema > SCHEMA:
        yield (
            f"it has schema {schema!r} and this repsim knows {SCHEMA}: install a newer "
            "repsim"
        )
    listed = run.attrs.get("layers", [])
    here = any("example" in variable.dims for variable in run.data_vars.values())
    if not here and "repsim_schema" not in run.attrs:
        yield "no variable has an `example` dim: it is something else"
    names = [listed] if isinstance(listed, str) else listed
    if isinstance(names, np.ndarray):
        names = names.tolist()
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, str) for name in names
    ):
        yield (
            f"its attrs['layers'] are {str(names)[:60]!r}, no list of names: it can be "
            "repaired by writing one"
        )
        return
    for name in names:
        if name not in run.data_vars:
            yield (
                f"layer {name!r} is listed, but not there: its values cannot be "
                "repaired; take it out of attrs['layers'], or record again"
            )


def _layers(run: xr.Dataset) -> Iterator[str]:
    for name, variable in run.data_vars.items():
        dims = [str(d) for d in variable.dims]
        if "example" not in dims:
            continue
        lead = ["step", "example"] if "step" in dims else ["example"]
        if dims[: len(lead)] != lead:
            yield (
                f"layer {name!r} has dims ({', '.join(dims)}): it can be repaired with "
                f"run.transpose({', '.join(map(repr, lead))}, ...)"
            )
        if variable.dtype.kind not in "fciub":
            yield f"layer {name!r} holds {variable.dtype}, not numbers: record it again"
        layer = str(name)
        for signal in SIGNALS:
            layer = layer.removesuffix(signal)
        if layer != name and layer not in run.data_vars:
            yield (
                f"{name!r} has no layer {layer!r} beside it: it can be repaired by "
                "dropping it"
            )


def _coordinates(run: xr.Dataset) -> Iterator[str]:
    if "step" in run.dims:
        if "step" not in run.coords:
            yield "its `step` has no values: repair it with run.assign_coords(step=…)"
        elif not np.all(np.diff(run["step"].values) > 0):
            yield (
                "its steps do not increase: it can be repaired with "
                "run.sortby('step').drop_duplicates('step')"
            )
    for name, dtype in (("step", "iu"), ("example", "iu")):
        if name in run.coords and run[name].dtype.kind not in dtype:
            yield (
                f"its {name} values are {run[name].dtype}, not integers: it can be "
                "repaired with run.assign_coords"
            )
    sizes = {d for d in run.coords if d in ("label",)}
    for name in sizes:
        if run[name].dims not in (("example",), ("example", "token"), ()):
            yield f"its {name} has dims {run[name].dims}, not `example`: assign it anew"
