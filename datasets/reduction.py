"""Maps and tokens of a recording as units."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import xarray as xr

from repsim.datasets.recordings import layers

How = Literal["mean", "flatten"] | Callable[[Any], Any]


def reduce(run: xr.Dataset, how: How) -> xr.Dataset:
    r"""Turn the maps and tokens of a recording into units.

    The mean over space or tokens, or all values side by side:

    .. math:: h_{ic} = \frac{1}{|P|} \sum_{p \in P} a_{icp}
        \qquad\text{or}\qquad h_{i,(c,p)} = a_{icp}

    Parameters
    ----------
    run : Dataset
        A recording; layers with dims ([step,] example, <layer>_channel,
        <layer>_y, <layer>_x) or ([step,] example, <layer>_token, <layer>_unit) are
        reduced. Those that have units already are kept by "mean" and "flatten".
    how : "mean", "flatten" or callable
        A callable maps every layer's tensor (example, …) to (example, units), one
        step at a time.

    Returns
    -------
    Dataset
        Layers with dims ([step,] example, <layer>_unit); `attrs["reduce"]` says how.

    Raises
    ------
    ValueError
        If `how` is none of these, or a callable returns another shape.

    Examples
    --------
    >>> maps = np.arange(24.0).reshape(2, 3, 2, 2)
    >>> dims = ("example", "conv_channel", "conv_y", "conv_x")
    >>> reduce(xr.Dataset({"conv": (dims, maps)}), "mean")["conv"].values[0]
    array([1.5, 5.5, 9.5])
    """
    if not callable(how) and how not in ("mean", "flatten"):
        msg = f"Expected `how` to be 'mean', 'flatten' or a callable, but got {how!r}."
        raise ValueError(msg)
    known = layers(run)
    signals = [f"{n}@{s}" for n in known for s in ("error", "true_error")]
    reduced = {}
    for name in (*known, *(s for s in signals if s in run.data_vars)):
        variable = run[name].variable
        inner = [d for d in variable.dims if d not in ("step", "example")]
        if len(inner) != 1 or callable(how):
            reduced[name] = _reduced(name, variable, how)
    label = how if isinstance(how, str) else getattr(how, "__qualname__", "callable")
    # Dropped first: a dim such as <layer>_unit may change its length.
    rest = run.drop_vars([*reduced, *_lost(run, reduced)])
    merged = rest.assign(reduced)
    order = [n for n in run.data_vars if n in merged.data_vars]
    return merged[order].assign_attrs({**run.attrs, "reduce": str(label)})


def _lost(run: xr.Dataset, reduced: dict[str, xr.Variable]) -> list[str]:
    """Name the coordinates along dims that are reduced away."""
    dims = {d for n in reduced for d in run[n].dims} - {"step", "example"}
    return [str(n) for n, c in run.coords.items() if dims & set(c.dims)]


def _reduced(name: str, variable: xr.Variable, how: How) -> xr.Variable:
    lead = [d for d in ("step", "example") if d in variable.dims]
    ordered = variable.transpose(*lead, ...)
    layer = name.removesuffix("@true_error").removesuffix("@error")
    dims = (*lead, f"{layer}_unit")
    if "step" not in lead:
        return xr.Variable(dims, _rows(name, ordered, how), variable.attrs)
    parts = [_rows(name, ordered.isel(step=i), how) for i in range(ordered.shape[0])]
    if not parts:
        return xr.Variable(dims, np.empty((0, ordered.shape[1], 0)), variable.attrs)
    return xr.Variable(dims, np.stack(parts), variable.attrs)


def _rows(name: str, moment: xr.Variable, how: How) -> np.ndarray:
    """Reduce one moment, read once: (example, …) to (example, unit)."""
    values = np.asarray(moment.values)
    if how == "flatten":
        return values.reshape(len(values), -1)
    if how == "mean":
        token = str(moment.dims[1]).endswith("_token")
        axes = (1,) if token else tuple(range(2, values.ndim))
        wide = np.float32 if values.dtype == np.float16 else values.dtype
        mean: np.ndarray = values.mean(axis=axes, dtype=wide).astype(values.dtype)
        return mean if mean.ndim == 2 else mean[:, None]
    return _called(name, values, how)


def _called(name: str, values: np.ndarray, how: Callable[[Any], Any]) -> np.ndarray:
    import torch

    try:
        out = np.asarray(how(torch.from_numpy(values)))
    except Exception as error:
        error.add_note(f"(`how` was called with layer {name!r}, {values.shape})")
        raise
    if out.ndim != 2 or len(out) != len(values):
        msg = (
            f"Expected `how` to map layer {name!r} from {values.shape} to (example, "
            f"units), but got {out.shape}."
        )
        raise ValueError(msg)
    return out
