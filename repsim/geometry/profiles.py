"""What a stack of RDMs says about depth and training: class margin, convergence."""

from typing import Literal

import numpy as np
import xarray as xr

from repsim.core.messages import unknown
from repsim.measures.dissimilarity.given import as_rdms

Distance = Literal["euclidean", "correlation"]


def class_margin(rdms: xr.DataArray) -> xr.DataArray:
    r"""Return how much farther apart examples of different classes are.

    .. math:: m = \overline{d_{ij}}_{\,y_i \ne y_j} - \overline{d_{ij}}_{\,y_i = y_j}

    Parameters
    ----------
    rdms : DataArray, dims (…, pair)
        From `repsim.rdms` of a recording with labels.

    Returns
    -------
    DataArray, dims (…)
        Mean dissimilarity between classes minus within classes, in the metric's
        unit; zero where the layer ignores classes. NaN pairs are left out.

    Raises
    ------
    ValueError
        If the pairs carry no labels, there is one class only, or a class has a
        single example.

    Examples
    --------
    >>> pairs = xr.DataArray([0.1, 0.9, 0.8, 0.9, 0.8, 0.3], dims="pair", coords={
    ...     "label_a": ("pair", [0, 0, 0, 0, 0, 1]),
    ...     "label_b": ("pair", [0, 1, 1, 1, 1, 1])})
    >>> round(float(class_margin(pairs)), 3)
    0.65
    """
    same = _same_class(rdms)
    values = rdms.transpose(..., "pair")
    within = values.isel(pair=np.flatnonzero(same)).mean("pair", dtype=np.float64)
    between = values.isel(pair=np.flatnonzero(~same)).mean("pair", dtype=np.float64)
    out = (between - within).rename("class_margin")
    return out.assign_attrs(
        {**rdms.attrs, "measure": "class_margin", "metric": rdms.attrs.get("metric")}
    )


def _same_class(rdms: xr.DataArray) -> np.ndarray:
    expect_pairs(rdms)
    if "label_a" not in rdms.coords or "label_b" not in rdms.coords:
        msg = (
            "Expected `rdms` to carry labels (label_a, label_b on `pair`), but got "
            "none; record with labels=, or add a `label` coordinate on `example`."
        )
        raise ValueError(msg)
    a, b = rdms["label_a"].values, rdms["label_b"].values
    same = np.asarray(a == b)
    classes = np.unique(np.concatenate([a, b]))
    if len(classes) < 2:
        msg = (
            "Expected examples of at least two classes, but all have the label "
            f"{classes[0]}."
        )
        raise ValueError(msg)
    alone = np.setdiff1d(classes, a[same])
    if alone.size:
        msg = (
            "Expected at least two examples of every class, but got a single one of "
            f"{', '.join(str(c) for c in alone[:5])}; leave those examples out."
        )
        raise ValueError(msg)
    return same


def expect_pairs(rdms: xr.DataArray) -> None:
    """Raise unless RDMs are a DataArray with a dim `pair`."""
    if not isinstance(rdms, xr.DataArray):
        msg = (
            "Expected `rdms` to be a DataArray from repsim.rdms, but got "
            f"{type(rdms).__name__}."
        )
        raise TypeError(msg)
    if "pair" not in rdms.dims:
        msg = (
            "Expected `rdms` to have a dim `pair`, but got "
            f"({', '.join(str(d) for d in rdms.dims)}); use repsim.rdms."
        )
        raise ValueError(msg)


def rdm_distance(
    rdms: xr.DataArray,
    *,
    along: str = "layer",
    metric: Distance = "euclidean",
    reference: str | int | None = None,
) -> xr.DataArray:
    r"""Return how far each RDM is from the last one, along depth or training.

    ``euclidean`` is :math:`\|d_l - d_L\|_2` over the condensed pairs, as in the
    paper's Figure 4; ``correlation`` is one minus the Pearson correlation of the
    pairs, which does not depend on the RDMs' scale.

    Parameters
    ----------
    rdms : DataArray, dims (…, layer, pair)
        From `repsim.rdms`.
    along : str
        "layer" compares with the last layer, "step" with the final step of the
        same layer; any dim but `pair` will do.
    metric : {"euclidean", "correlation"}
        Distance between two RDMs.
    reference : str or int, optional
        Label along that dim to compare with instead of the last: "hidden_20"; or
        "previous", each with the one before it, which shows where RDMs break.

    Returns
    -------
    DataArray, dims (…, layer)
        Zero at the reference; NaN where there is none before. Pairs that are NaN in
        any RDM of a comparison are left out of it.

    Raises
    ------
    ValueError
        If the dim, the metric or the reference does not exist.

    Examples
    --------
    >>> stack = xr.DataArray([[1.0, 2.0, 4.0], [1.0, 2.0, 3.0]], dims=("layer", "pair"),
    ...                      coords={"layer": ["a", "b"]})
    >>> rdm_distance(stack).values
    array([1., 0.])
    """
    rdms = as_rdms(rdms)
    dims = [str(d) for d in rdms.dims if d != "pair"]
    if along not in dims:
        raise ValueError(unknown("along", along, dims))
    if metric not in ("euclidean", "correlation"):
        raise ValueError(unknown("metric", metric, ["euclidean", "correlation"]))
    names = [str(v) for v in rdms[along].values] if along in rdms.coords else []
    kept, at = _reference(reference, names, rdms.sizes[along])
    values = rdms.transpose(..., along, "pair")
    flat = values.values.reshape(-1, *values.shape[-2:])
    out = np.stack([_distances(block, at, metric) for block in flat])
    result = xr.DataArray(
        out.reshape(values.shape[:-1]),
        dims=values.dims[:-1],
        coords={k: v for k, v in values.coords.items() if "pair" not in v.dims},
        name="rdm_distance",
    )
    result = result.assign_attrs(
        {
            **rdms.attrs,
            "measure": "rdm_distance",
            "distance": metric,
            "along": along,
            "reference": kept,
        }
    )
    return result.transpose(*[d for d in rdms.dims if d != "pair"])


def _reference(
    reference: str | int | None, names: list[str], size: int
) -> tuple[str | int, list[int]]:
    """Return the reference's name, and what each place is compared with."""
    if reference is None:
        return (names[-1] if names else size - 1), [size - 1] * size
    if reference == "previous" and "previous" not in names:
        return "previous", list(range(-1, size - 1))
    if str(reference) not in names:
        raise ValueError(unknown("reference", reference, [*names, "previous"]))
    return str(reference), [names.index(str(reference))] * size


def _distances(block: np.ndarray, at: list[int], metric: str) -> np.ndarray:
    """Return the distance of each row to another, a row at a time in float64."""
    out = np.full(len(block), np.nan)
    for k, row in enumerate(block):
        if at[k] < 0:
            continue
        a, b = row.astype(np.float64), block[at[k]].astype(np.float64)
        keep = np.isfinite(a) & np.isfinite(b)
        if not keep.all():
            a, b = a[keep], b[keep]
        if metric == "correlation":
            a, b = a - a.mean(), b - b.mean()
            scale = np.linalg.norm(a) * np.linalg.norm(b)
            out[k] = 1 - a @ b / scale if scale > 0 else np.nan
        else:
            out[k] = np.linalg.norm(a - b)
    return out
