"""An RDM of networks: which layers, rules and seeds see the data alike."""

from typing import Literal

import numpy as np
import xarray as xr

from repsim.core.messages import unknown
from repsim.core.provenance import repsim_version
from repsim.measures.dissimilarity.comparators import METHODS, Method, compare_rdms
from repsim.measures.dissimilarity.given import as_rdms, n_examples

Items = Literal["layers", "networks"]


def network_rdm(
    rdms: xr.DataArray, *, items: Items = "layers", method: Method = "spearman"
) -> xr.DataArray:
    """Return the dissimilarities between layers, or whole networks, by their RDMs.

    The distance of two layers is one minus the similarity of their RDMs; that of two
    networks is its mean over matching layers.

    Parameters
    ----------
    rdms : DataArray, dims ([network,] layer, pair)
        From `repsim.rdms` of a study at one step, or of one recording.
    items : {"layers", "networks"}
        What the new RDM is about: every layer of every network, or networks.
    method : str
        As in `repsim.compare_rdms`.

    Returns
    -------
    DataArray, dims (pair)
        Condensed, in scipy's order, with the coordinates `condition_a`, `seed_a`,
        `layer_a`, `depth_a` (position of the layer, from 0) and the same with `_b`
        on `pair`: ready for `repsim.model_rdms`, `repsim.embed` and
        `repsim.plot.mds`.

    Raises
    ------
    ValueError
        If dims are others, or `items` or `method` is unknown, or there are fewer
        than three items.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> stack = xr.DataArray(rng.random((3, 10)), dims=("layer", "pair"),
    ...                      coords={"layer": ["a", "b", "c"]})
    >>> network_rdm(stack).sizes["pair"]
    3
    """
    rdms = as_rdms(rdms)
    if items not in ("layers", "networks"):
        raise ValueError(unknown("items", items, ["layers", "networks"]))
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    dims = {str(d) for d in rdms.dims}
    if not {"layer", "pair"} <= dims <= {"network", "layer", "pair"}:
        msg = (
            "Expected `rdms` to have dims ([network,] layer, pair), but got "
            f"({', '.join(str(d) for d in rdms.dims)}); select one moment first, as "
            "in rdms.isel(step=-1), or rename what to compare, as in "
            "rdms.rename(subject='layer')."
        )
        raise ValueError(msg)
    if "network" not in dims:
        rdms = rdms.expand_dims("network")
    rdms = rdms.transpose("network", "layer", "pair")
    networks, layers = rdms.sizes["network"], rdms.sizes["layer"]
    size = networks * layers if items == "layers" else networks
    if size < 3:
        msg = f"Expected at least three {items} to compare, but got {size}."
        raise ValueError(msg)
    if items == "layers":
        stack = rdms.values.reshape(size, -1)
        square = 1 - np.asarray(compare_rdms(stack, stack, method=method))
    else:
        cells = [
            1 - np.asarray(compare_rdms(part, part, method=method))
            for part in np.moveaxis(rdms.values, 1, 0)
        ]
        square = np.mean(cells, axis=0)
    i, j = np.triu_indices(size, 1)
    names = _names(rdms, items)
    return xr.DataArray(
        np.maximum(square[i, j], 0),
        dims="pair",
        coords={
            f"{name}_{side}": ("pair", values[index])
            for name, values in names.items()
            for side, index in (("a", i), ("b", j))
        },
        attrs={
            **rdms.attrs,
            "measure": "network_rdm",
            "items": items,
            "method": method,
            "repsim_version": repsim_version(),
        },
        name="network_rdm",
    )


def _names(rdms: xr.DataArray, items: str) -> dict[str, np.ndarray]:
    networks, layers = rdms.sizes["network"], rdms.sizes["layer"]
    repeats = layers if items == "layers" else 1
    labels = {
        name: np.repeat(rdms[name].values.astype(str), repeats)
        for name in ("condition", "seed")
        if name in rdms.coords and rdms[name].dims == ("network",)
    }
    labels["network"] = np.repeat(np.arange(networks, dtype=np.int32), repeats)
    if items == "layers":
        labels["layer"] = np.tile(rdms["layer"].values.astype(str), networks)
        labels["depth"] = np.tile(np.arange(layers, dtype=np.int32), networks)
    return labels


def items_of(rdm: xr.DataArray) -> dict[str, np.ndarray]:
    """Return the coordinates of the things an RDM compares, one value a thing."""
    m = rdm.sizes["pair"]
    n = n_examples(m)
    if n is None:
        msg = (
            f"Expected `pair` to hold the n (n - 1) / 2 pairs of n things, but got {m}."
        )
        raise ValueError(msg)
    return {
        str(key)[:-2]: np.concatenate(
            [rdm[key].values[:1], rdm[f"{str(key)[:-2]}_b"].values[: n - 1]]
        )
        for key in rdm.coords
        if str(key).endswith("_a") and rdm[key].dims == ("pair",)
    }
