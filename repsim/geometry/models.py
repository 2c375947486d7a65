"""Model RDMs: what classes, inputs, depth or training time say about pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from repsim.core.messages import unknown
from repsim.core.provenance import repsim_version
from repsim.measures.alignment import ids, order
from repsim.measures.dissimilarity import rdm
from repsim.measures.dissimilarity.distances import Metric
from repsim.measures.dissimilarity.given import as_rdms, in_order, n_examples

_SAME = ("label", "condition", "seed")
_APART = ("depth", "step")


def model_rdms(
    rdms: xr.DataArray,
    *,
    same: Sequence[str] | None = None,
    apart: Sequence[str] | None = None,
    inputs: ArrayLike | xr.DataArray | None = None,
    metric: Metric = "correlation",
) -> xr.DataArray:
    """Return what simple models say about the pairs of some RDMs.

    Parameters
    ----------
    rdms : DataArray, dims (…, pair)
        From `repsim.rdms` (pairs of examples) or `repsim.network_rdm` (pairs of
        layers or networks). Only the coordinates of `pair` are read.
    same : sequence of str, optional
        Coordinates whose model is 0 where a pair agrees and 1 where it does not; by
        default those of `label`, `condition`, `seed` that exist and vary.
    apart : sequence of str, optional
        Numeric coordinates whose model is the absolute difference; by default those
        of `depth`, `step` that exist and vary.
    inputs : array_like or DataArray, shape (example, feature), optional
        The inputs themselves: their RDM is the model "inputs" (pixels). With ids
        (`example`) they are matched to those of the pairs.
    metric : str
        Of the inputs' RDM, as in `repsim.rdm`.

    Returns
    -------
    DataArray, dims (model, pair)
        With the pairs' coordinates.

    Raises
    ------
    ValueError
        If a coordinate is missing, the inputs' number does not fit, or there is no
        model left.

    Examples
    --------
    >>> pairs = xr.DataArray([0.2, 0.9, 0.8], dims="pair", coords={
    ...     "label_a": ("pair", [0, 0, 0]), "label_b": ("pair", [0, 1, 1])})
    >>> model_rdms(pairs).sel(model="label").values
    array([0., 1., 1.])
    """
    rdms = in_order(as_rdms(rdms))
    models: dict[str, np.ndarray] = {}
    for names, defaults, distance in ((same, _SAME, _differ), (apart, _APART, _gap)):
        for name in defaults if names is None else names:
            if names is None and f"{name}_a" not in rdms.coords:
                continue
            a, b = _coordinate(rdms, name)
            values = distance(a, b)
            if names is not None or values.min() < values.max():
                models[name] = values
    if inputs is not None:
        models["inputs"] = _inputs(rdms, inputs, metric)
    if not models:
        msg = (
            "Expected `rdms` to carry coordinates that models can be made from "
            f"({', '.join(_SAME + _APART)}), but got none that vary; name them with "
            "same= or apart=, or pass inputs=."
        )
        raise ValueError(msg)
    return xr.DataArray(
        np.stack(list(models.values())),
        dims=("model", "pair"),
        coords={"model": list(models)}
        | {k: v for k, v in rdms.coords.items() if v.dims == ("pair",)},
        attrs={"measure": "model_rdm", "repsim_version": repsim_version()},
        name="model_rdm",
    )


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a != b, dtype=np.float64)


def _gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(np.float64) - b.astype(np.float64))


def _coordinate(rdms: xr.DataArray, name: str) -> tuple[np.ndarray, np.ndarray]:
    if f"{name}_a" not in rdms.coords or f"{name}_b" not in rdms.coords:
        known = [str(k)[:-2] for k in rdms.coords if str(k).endswith("_a")]
        raise ValueError(unknown("model", name, known))
    return rdms[f"{name}_a"].values, rdms[f"{name}_b"].values


def _inputs(rdms: xr.DataArray, inputs: Any, metric: Metric) -> np.ndarray:
    known = ids(inputs)
    if known is not None and "example_a" in rdms.coords:
        n = n_examples(rdms.sizes["pair"]) or 0
        ends = [rdms[f"example_{end}"].values for end in "ab"]
        want = pd.Index(np.concatenate([ends[0][:1], ends[1][: n - 1]]))
        places = order(known, want, ("`rdms`", "`inputs`"))
        if places is not None:
            inputs = inputs.isel(example=places)
    rows = np.asarray(inputs, dtype=np.float64)
    rows = rows.reshape(len(rows), -1)
    if len(rows) * (len(rows) - 1) // 2 != rdms.sizes["pair"]:
        msg = (
            f"Expected `inputs` to hold the examples behind {rdms.sizes['pair']} "
            f"pairs, but got {len(rows)} rows."
        )
        raise ValueError(msg)
    return rdm(rows, metric=metric)
