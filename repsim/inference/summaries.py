"""What a result says, as one sentence and as a tidy table."""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from repsim.datasets.recordings import layers, networks
from repsim.inference.sentences import describe

Result = xr.DataArray | xr.Dataset | xr.DataTree


def summary(result: Result) -> str:
    """Return what a result, a recording or a study says, in a sentence or two.

    Of results with steps, the last step is told; means are over networks.

    Parameters
    ----------
    result : DataArray, Dataset or DataTree
        From `compare`, `rdms`, probes, `inference`, `record` or `open_study`.

    Returns
    -------
    str
        Numbers as in the result, rounded.

    Raises
    ------
    TypeError
        If it is no object of xarray.
    ValueError
        If it is none of these results.

    Examples
    --------
    >>> cells = xr.DataArray(
    ...     [[0.9, 0.2], [0.3, 0.6]], dims=("layer_a", "layer_b"), name="cka",
    ...     coords={"layer_a": ["h1", "h2"], "layer_b": ["h1", "h2"]},
    ... )
    >>> print(summary(cells))
    cka of 2 × 2 layers: matching layers from 0.900 (h1) down to 0.600 (h2), mean 0.750.
    """
    if isinstance(result, xr.DataTree):
        return _study(result)
    if not isinstance(result, xr.DataArray | xr.Dataset):
        msg = (
            "Expected a DataArray, Dataset or DataTree of repsim, but got "
            f"{type(result).__name__}."
        )
        raise TypeError(msg)
    if isinstance(result, xr.DataArray):
        kind = _array_kind(result)
    else:
        named = [make for names, make in _KINDS if names <= set(map(str, result))]
        kind = named[0] if named else _recording if layers(result) else None
    if kind is None:
        held = [str(d) for d in result.dims]
        msg = (
            "Expected a result of compare, rdms, probes or inference, a recording or "
            f"a study, but got a {type(result).__name__} of dims ({', '.join(held)}); "
            "look at its values instead."
        )
        raise ValueError(msg)
    return kind(result)


def table(result: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Return a result as a tidy table: a row a cell, a column a coordinate or value.

    Parameters
    ----------
    result : DataArray or Dataset
        Of a Dataset, the variables that share the dims of the first.

    Returns
    -------
    DataFrame
        With a plain index.

    Examples
    --------
    >>> table(xr.DataArray([0.5], dims="layer", name="r2")).columns.tolist()
    ['layer', 'r2']
    """
    if isinstance(result, xr.DataArray):
        named = result if result.name is not None else result.rename("value")
        for dim in named.dims:
            if dim not in named.coords:
                named = named.assign_coords({dim: np.arange(named.sizes[dim])})
        return named.to_dataframe().reset_index()
    first = next(v for v in result.data_vars.values() if v.ndim)
    same = [n for n, v in result.data_vars.items() if v.dims == first.dims]
    return result[same].to_dataframe().reset_index()


def _text(value: Any) -> str:
    return f"{float(value):.3f}".replace("-", "−")


def _span(values: np.ndarray) -> str:
    low, high = np.nanmin(values), np.nanmax(values)
    return _text(low) if low == high else f"{_text(low)} to {_text(high)}"


def _moment(result: Any) -> tuple[Any, str]:
    """Return the last moment of a result, and words for it."""
    if "step" in result.dims:
        return result.isel(step=-1), f" at step {int(result['step'].values[-1])}"
    if "step" in result.coords and result["step"].ndim == 0:
        return result, f" at step {int(result['step'])}"
    return result, ""


def _mean(values: xr.DataArray, keep: set[Hashable]) -> tuple[xr.DataArray, str]:
    """Return the mean over all other dims, and words for it."""
    others = [d for d in values.dims if d not in keep]
    if not others:
        return values, ""
    named = [str(d) for d in others if d != "pair"]
    words = f" (mean over {' and '.join(named)})" if named else ""
    return values.mean(others), words


def _array_kind(result: xr.DataArray) -> Callable[[Any], str] | None:
    if {"layer_a", "layer_b"} <= set(result.dims):
        return _matrix
    if "pair" in result.dims:
        return _rdms
    return _curve if "layer" in result.dims else None


def _between_networks(cells: xr.DataArray) -> str:
    """Tell the mean over matching layers, within each condition and between them."""
    last, when = _moment(cells)
    size = min(last.sizes["layer_a"], last.sizes["layer_b"])
    at = xr.DataArray(np.arange(size), dims="layer")
    mean = last.isel(layer_a=at, layer_b=at).mean("layer")
    values = mean.transpose("network_a", "network_b").values.copy()
    if values.shape[0] == values.shape[1]:
        np.fill_diagonal(values, np.nan)  # a network with itself says nothing
    a, b = (
        mean[name].values.astype(str)
        if name in mean.coords
        else np.full(mean.sizes[dim], "all")
        for name, dim in (("condition_a", "network_a"), ("condition_b", "network_b"))
    )
    said: list[str] = []
    for one in dict.fromkeys(a):
        for other in dict.fromkeys(b):
            both = values[np.ix_(a == one, b == other)]
            pair = {f"{one} – {other}", f"{other} – {one}"}
            if np.isfinite(both).any() and not any(p in t for p in pair for t in said):
                said.append(f"{one} – {other} {_text(np.nanmean(both))}")
    name = cells.attrs.get("measure") or cells.name or "value"
    return (
        f"{name} of matching layers{when}, mean over pairs of different networks: "
        + (", ".join(said) or "no pair has a value")
        + "."
    )


def _matrix(cells: xr.DataArray) -> str:
    """Tell matching layers where both sides have the same, else the extremes."""
    if {"network_a", "network_b"} <= set(cells.dims):
        return _between_networks(cells)
    name = str(cells.attrs.get("measure") or cells.name or "value")
    last, when = _moment(cells)
    mean, over = _mean(last, {"layer_a", "layer_b"})
    mean = mean.transpose("layer_a", "layer_b")
    rows, columns = (mean[d].values.astype(str) for d in ("layer_a", "layer_b"))
    names = [cells.attrs.get(f"recording_{side}") for side in "ab"]
    whose = f" ({names[0]} – {names[1]})" if all(names) else ""
    head = f"{name} of {len(rows)} × {len(columns)} layers{whose}{when}{over}: "
    values = mean.values
    if not np.isfinite(values).any():
        return f"{head}no cell has a value."
    if list(rows) == list(columns) and len(rows) > 1:
        line = np.diagonal(values)
        if np.isfinite(line).any() and np.nanmin(line) < 1 - 1e-9:
            high, low = int(np.nanargmax(line)), int(np.nanargmin(line))
            text = f"matching layers from {_text(line[high])} ({rows[high]}) down to "
            text += f"{_text(line[low])} ({rows[low]}), mean {_text(np.nanmean(line))}"
            return f"{head}{text}{_since(cells)}."
        # A recording with itself: matching layers are equal by definition.
        values = np.where(np.eye(len(rows), dtype=bool), np.nan, values)
    ends = np.nanargmax(values), np.nanargmin(values)
    (a, b), (c, d) = (np.unravel_index(k, values.shape) for k in ends)
    return (
        f"{head}from {_text(values[a, b])} ({rows[a]} – {columns[b]}) down to "
        f"{_text(values[c, d])} ({rows[c]} – {columns[d]})."
    )


def _since(cells: xr.DataArray) -> str:
    """Return what the mean of matching layers was at the first step."""
    if cells.sizes.get("step", 1) < 2:
        return ""
    first, _ = _mean(cells.isel(step=0), {"layer_a", "layer_b"})
    was = np.nanmean(np.diagonal(first.transpose("layer_a", "layer_b").values))
    return f"; at step {int(cells['step'].values[0])} it was {_text(was)}"


def _rdms(rdms: xr.DataArray) -> str:
    last, when = _moment(rdms)
    metric = str(rdms.attrs.get("metric") or rdms.name or "")
    n = int((1 + np.sqrt(1 + 8 * rdms.sizes["pair"])) / 2)
    text = f"{metric} dissimilarities of {n} examples{when}".strip()
    if "layer" not in last.dims:
        return f"{text}: {_span(last.values)}."
    mean, over = _mean(last, {"layer"})
    names = mean["layer"].values.astype(str)
    text += f" in {len(names)} layers{over}: "
    if "label_a" not in last.coords:
        return f"{text}mean from {_text(mean[0])} ({names[0]}) to {_ends(mean, names)}."
    within = (last["label_a"] == last["label_b"]).values
    gap = _mean(last.isel(pair=~within), {"layer"})[0]
    gap = gap - _mean(last.isel(pair=within), {"layer"})[0]
    return (
        f"{text}between minus within classes from {_text(gap[0])} ({names[0]}) to "
        f"{_ends(gap, names)}."
    )


def _ends(line: xr.DataArray, names: np.ndarray) -> str:
    return f"{_text(line[-1])} ({names[-1]})"


def _curve(curve: xr.DataArray) -> str:
    last, when = _moment(curve)
    mean, over = _mean(last, {"layer"})
    names = mean["layer"].values.astype(str)
    what = str(curve.attrs.get("long_name") or curve.name or "value")
    if not mean.notnull().any():
        return f"{what}{when}{over}: no layer has a value."
    best = int(np.nanargmax(mean.values))
    return (
        f"{what}{when}{over}: from {_text(mean[0])} ({names[0]}) to "
        f"{_ends(mean, names)}, largest {_text(mean[best])} ({names[best]})."
    )


def _probe(result: xr.Dataset) -> str:
    name = "accuracy" if "accuracy" in result else "r2"
    chance = (
        f"; the best constant has {_text(result['chance'].mean())}"
        if "chance" in result
        else ""
    )
    of = f"Linear probes for {result.attrs.get('target', 'label')}, held out: "
    return of + _curve(result[name])[:-1] + f"{chance}."


def _length(result: xr.Dataset) -> str:
    of = f"Code length of {result.attrs.get('target', 'label')}: "
    return of + _curve(result["compression"].assign_attrs(long_name="compression"))


def _test(result: xr.Dataset) -> str:
    last, when = _moment(result)
    return describe(last) + (f" (Told{when}.)" if "step" in result.dims else "")


def _interval(result: xr.Dataset) -> str:
    last, when = _moment(result)
    over = result.attrs.get("over", "example")
    level = float(result.attrs.get("level", 0.95))
    name = result.attrs.get("measure", "value")
    estimate = last["estimate"].values
    if not np.isfinite(estimate).any():
        return f"{name}{when}: no pair of layers has a value."
    said = []
    for k in dict.fromkeys((np.nanargmax(estimate), np.nanargmin(estimate))):
        where = np.unravel_index(k, estimate.shape)
        at = dict(zip(last["estimate"].dims, where, strict=True))
        one = last.isel(at)
        pair = " – ".join(str(last[d].values[i]) for d, i in at.items())
        said.append(
            f"{_text(one['estimate'])} [{_text(one['low'])}, "
            f"{_text(one['high'])}] ({pair})"
        )
    joined = " down to ".join(said)
    lead = "from " if len(said) > 1 else ""
    return f"{name}{when} with {level:.0%} intervals over {over}: {lead}{joined}."


def _permutation(result: xr.Dataset) -> str:
    last, when = _moment(result)
    sure, total = int((last["q_value"] <= 0.05).sum()), last["q_value"].size
    return (
        f"{sure} of {total} pairs of layers{when} are related beyond what shuffled "
        f"examples give (q ≤ 0.05, {result.attrs.get('permutations')} shuffles)."
    )


def _models(result: xr.Dataset) -> str:
    best = int(np.nanargmax(result["estimate"].values))
    one = result.isel(model=best)
    low, high = result.attrs["ceiling_low"], result.attrs["ceiling_high"]
    ceiling = (
        f" The noise ceiling is {_text(low)} to {_text(high)}."
        if np.isfinite(low) and np.isfinite(high)
        else ""
    )
    said = (
        f"Of {result.sizes['model']} models {one['model'].item()!r} explains most: "
        f"{result.attrs['method']} {_text(one['estimate'])} [{_text(one['low'])}, "
        f"{_text(one['high'])}], p = {float(one['p_value']):.2g} against nothing."
    )
    if result.sizes["model"] > 1:
        p = result["p_difference"].values[best]
        sure = int((np.delete(p, best) <= 1 - float(result.attrs["level"])).sum())
        others = result.sizes["model"] - 1
        said += f" It explains more than {sure} of {others} others beyond chance."
    return said + ceiling


def _recording(run: xr.Dataset) -> str:
    count = {"example": run.sizes.get("example", 0), "layer": len(layers(run))}
    parts = [f"{n} {what}{'' if n == 1 else 's'}" for what, n in count.items()]
    if "step" in run.dims:
        steps = run["step"].values
        several = f"{len(steps)} moments (steps {steps[0]} to {steps[-1]})"
        parts.append(several if len(steps) > 1 else f"1 moment (step {steps[0]})")
    who = run.attrs.get("network", "a network")
    rule = f" under {run.attrs['rule']}" if "rule" in run.attrs else ""
    open_ = "" if run.attrs.get("complete", 1) else "; not complete"
    return f"A recording of {who}{rule}: {', '.join(parts)}{open_}."


def _study(study: xr.DataTree) -> str:
    found = networks(study)
    count: dict[str, int] = {}
    for condition, _ in found:
        count[condition] = count.get(condition, 0) + 1
    each = ", ".join(f"{name} ({n})" for name, n in count.items())
    first = _recording(next(iter(found.values()))) if found else ""
    return f"{len(found)} networks: {each}. The first: {first}"


_KINDS: list[tuple[set[str], Callable[[Any], str]]] = [
    ({"estimate", "p_ceiling"}, _models),
    ({"estimate", "null_mean"}, _permutation),
    ({"estimate", "low", "high"}, _interval),
    ({"q_value", "difference"}, _test),
    ({"p_value", "low", "high"}, _test),
    ({"accuracy", "train_accuracy"}, _probe),
    ({"r2"}, _probe),
    ({"codelength"}, _length),
]
