"""Walking over a recording's layers and steps, and over several recordings."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from repsim.core.provenance import made_by
from repsim.datasets.recordings import matrix, matrix_layers, networks

Moment = tuple[str, int | None]
"""A layer's name and a position along `step`, None where there is no such dim."""


def moments(run: xr.Dataset) -> list[tuple[tuple[int, ...], Moment]]:
    """Return where each result goes, the layer and the position along `step`.

    Steps run fastest: neighbouring steps of a layer resemble each other most, which
    is where a warm start saves most.
    """
    layers, steps = matrix_layers(run), run.sizes.get("step")
    for layer in layers:
        if run[layer].dtype.kind not in "fiub":
            msg = (
                f"Expected layer {layer!r} to hold real numbers, but got values of "
                f"type {run[layer].dtype}."
            )
            raise ValueError(msg)
        if not run[layer].size and steps != 0:
            msg = (
                f"Expected layer {layer!r} to have units, but got shape "
                f"{run[layer].shape}."
            )
            raise ValueError(msg)
    if steps is None:
        return [((place,), (layer, None)) for place, layer in enumerate(layers)]
    if not steps:
        msg = "Expected a recording of at least one step, but got none."
        raise ValueError(msg)
    return [
        ((step, place), (layer, step))
        for place, layer in enumerate(layers)
        for step in range(steps)
    ]


def features(run: xr.Dataset, moment: Moment) -> np.ndarray:
    """Return a layer's activations at one moment, float32 or float64, and finite."""
    layer, step = moment
    x = matrix(run, layer, step)
    wide = x.dtype.kind == "f" and x.dtype.itemsize >= 8
    x = x.astype(np.float64 if wide else np.float32, copy=False)
    wrong = x.size - int(np.isfinite(x).sum())
    if wrong:
        when = "" if step is None else f" at step {run['step'].values[step]}"
        msg = (
            f"Expected layer {layer!r} to be finite, but {wrong} of {x.size} values"
            f"{when} are NaN or infinite."
        )
        raise ValueError(msg)
    return x


def frame(
    run: xr.Dataset,
    cells: Mapping[tuple[int, ...], Mapping[str, Any]],
    extra: Mapping[str, tuple[str, ...]] | None = None,
) -> Any:
    """Return a Dataset ([step,] layer[, extra dims of a variable]) of scores."""
    names = matrix_layers(run)
    dims: tuple[str, ...] = ("layer",)
    shape: tuple[int, ...] = (len(names),)
    coords: dict[str, Any] = {"layer": names}
    if "step" in run.dims:
        dims, shape = ("step", *dims), (run.sizes["step"], *shape)
        coords["step"] = run["step"].values if "step" in run.coords else range(shape[0])
    variables: dict[str, np.ndarray] = {}
    for place, values in cells.items():
        for name, value in values.items():
            if name not in variables:
                variables[name] = np.full((*shape, *np.shape(value)), np.nan)
            variables[name][place] = value
    extra = extra or {}
    return xr.Dataset(
        {name: ((*dims, *extra.get(name, ())), v) for name, v in variables.items()},
        coords,
    )


def provenance(**options: Any) -> dict[str, Any]:
    """Return a result's `attrs`: the options and the versions that made it."""
    return made_by("scikit-learn", "torch", **options)


def over_networks(
    runs: xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset] | Iterable[xr.Dataset],
    function: Callable[[xr.Dataset], xr.Dataset],
) -> xr.Dataset:
    """Return a function's result for one recording, or for many along new dims."""
    if isinstance(runs, xr.Dataset):
        return function(runs)
    if isinstance(runs, xr.DataTree):
        return _over_study(runs, function)
    if isinstance(runs, Mapping):
        named = dict(runs)
    elif isinstance(runs, Iterable) and not isinstance(runs, (str, xr.DataArray)):
        named = dict(enumerate(runs))
    else:
        named = {0: runs}
    wrong = [run for run in named.values() if not isinstance(run, xr.Dataset)]
    if wrong or not named:
        came = type(wrong[0]).__name__ if wrong else "none"
        msg = (
            "Expected `run` to be a recording (xarray.Dataset), a study, or a mapping "
            f"or list of recordings, but got {came}."
        )
        raise TypeError(msg) if wrong else ValueError(msg)
    results = [
        _named(function, run, f"network {name!r}") for name, run in named.items()
    ]
    return _stack(results, "network", list(named))


def _named(
    function: Callable[[xr.Dataset], xr.Dataset], run: xr.Dataset, name: str
) -> xr.Dataset:
    """Return the function's result, or say whose recording it was that failed."""
    try:
        return function(run)
    except ValueError as error:
        msg = f"In {name}: {error}"
        raise ValueError(msg) from error


def _over_study(
    study: xr.DataTree, function: Callable[[xr.Dataset], xr.Dataset]
) -> xr.Dataset:
    results = {
        (condition, seed): _named(function, run, f"{condition}/{seed}")
        for (condition, seed), run in networks(study).items()
    }
    conditions = list(dict.fromkeys(condition for condition, _ in results))
    seeds = sorted({seed for _, seed in results}, key=lambda s: (not s.isdigit(), s))
    if all(seed.isdigit() for seed in seeds):
        seeds.sort(key=int)
    labels: list[Any] = [int(s) if s.isdigit() else s for s in seeds]
    if not all(isinstance(label, int) for label in labels):
        labels = seeds
    rows = []
    for condition in conditions:
        own = [s for s in seeds if (condition, s) in results]
        row = _stack([results[condition, s] for s in own], "seed", own)
        rows.append(row.reindex(seed=seeds))
    return _stack(rows, "condition", conditions).assign_coords(seed=labels)


def _stack(results: list[xr.Dataset], dim: str, labels: list[Any]) -> xr.Dataset:
    """Join results along a new first dim, keeping the layers' order."""
    names = list(dict.fromkeys(n for r in results for n in r["layer"].values.tolist()))
    results = [result.reindex(layer=names) for result in results]
    joined = xr.concat(
        results,
        dim,
        join="outer",
        data_vars="all",
        coords="minimal",
        compat="override",
        combine_attrs="drop_conflicts",
    )
    return joined.assign_coords({dim: labels})
