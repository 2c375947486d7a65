"""How well any model could do: what networks of one condition share."""

import warnings

import numpy as np
import xarray as xr

from repsim.core.messages import unknown
from repsim.core.provenance import repsim_version
from repsim.measures.dissimilarity.comparators import METHODS, Method, similarities
from repsim.measures.dissimilarity.given import as_rdms
from repsim.measures.dissimilarity.ranks import doubled
from repsim.measures.magnitudes import array_near_one


def noise_ceiling(
    rdms: xr.DataArray, *, dim: str | None = None, method: Method = "spearman"
) -> xr.Dataset:
    """Return the range in which the best possible model's RSA lies.

    Seeds play the part of subjects. The upper bound compares each seed's RDM with the
    mean over all seeds (its own included, hence too high), the lower bound with the
    mean over the others (too low). RDMs are put on one scale before averaging: ranks
    for rank methods, unit variance for Pearson, unit length for cosine.

    Parameters
    ----------
    rdms : DataArray, dims (…, seed, pair) or (network, …, pair)
        From `repsim.rdms`, of at least two seeds; or measured ones, dims
        (subject, pair), or square ones. The networks of a study are grouped by their
        coordinate `condition`.
    dim : str, optional
        The dim of the subjects: by default `seed`, else the only other one.
    method : str
        As in `repsim.compare_rdms`.

    Returns
    -------
    Dataset, dims ([condition,] …)
        `lower` and `upper`, means over seeds.

    Raises
    ------
    ValueError
        If the dim or the method does not exist, or a condition has one seed only.

    References
    ----------
    Nili et al. (2014). A toolbox for representational similarity analysis. PLOS
    Comput. Biol. 10, e1003553. https://doi.org/10.1371/journal.pcbi.1003553

    Examples
    --------
    >>> seeds = xr.DataArray([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]], dims=("seed", "pair"))
    >>> bounds = noise_ceiling(seeds)
    >>> round(float(bounds["lower"]), 6), round(float(bounds["upper"]), 6)
    (1.0, 1.0)
    """
    rdms = as_rdms(rdms)
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    others = [str(d) for d in rdms.dims if d != "pair"]
    networks = "network" in others and "condition" in rdms.coords
    if dim is None:
        dim = others[0] if len(others) == 1 and not networks else "seed"
    if dim not in others and networks:
        names = list(dict.fromkeys(str(c) for c in rdms["condition"].values))
        parts = []
        for name in names:
            chosen = rdms.isel(network=np.flatnonzero(rdms["condition"].values == name))
            chosen = chosen.drop_vars(["condition", "seed"], errors="ignore")
            parts.append(noise_ceiling(chosen, dim="network", method=method))
        return xr.concat(parts, xr.Variable("condition", names))
    if dim not in others:
        raise ValueError(unknown("dim", dim, others))
    if rdms.sizes[dim] < 2:
        msg = (
            f"Expected RDMs of at least two along `{dim}`, but got {rdms.sizes[dim]}: "
            "one has nothing to share."
        )
        raise ValueError(msg)
    stack = rdms.transpose(..., dim, "pair")
    blocks = stack.values.reshape(-1, *stack.shape[-2:])
    bounds = np.array([_bounds(block.astype(np.float64), method) for block in blocks])
    gone = int(np.isnan(blocks).any(1).sum(1).max())
    if gone:
        warnings.warn(
            f"Up to {gone} of {blocks.shape[-1]} pairs are NaN in one of the RDMs and "
            "were left out.",
            stacklevel=2,
        )
    if np.isnan(bounds).any():
        flat = np.isnan(bounds).any(1).sum()
        warnings.warn(
            f"{flat} of {len(bounds)} ceilings are NaN: an RDM is constant, or has "
            f"fewer than three pairs left for {method}.",
            stacklevel=2,
        )
    outer = stack.shape[:-2]
    return xr.Dataset(
        {
            name: (stack.dims[:-2], bounds[:, k].reshape(outer))
            for k, name in enumerate(("lower", "upper"))
        },
        coords={
            k: v
            for k, v in stack.coords.items()
            if "pair" not in v.dims and dim not in v.dims
        },
        attrs={
            **rdms.attrs,
            "measure": "noise_ceiling",
            "method": method,
            "subjects": int(rdms.sizes[dim]),
            "repsim_version": repsim_version(),
        },
    )


def _bounds(stack: np.ndarray, method: Method) -> tuple[float, float]:
    scaled = np.stack([on_scale(row, method) for row in stack])
    total = scaled.sum(0)
    lower: list[float] = []
    upper: list[float] = []
    for own, row in zip(scaled, stack, strict=True):
        for bound, mean in ((lower, total - own), (upper, total)):
            similarity, _ = similarities(mean[None], row[None], method)
            bound.append(float(similarity[0, 0]))
    return float(np.mean(lower)), float(np.mean(upper))


def on_scale(row: np.ndarray, method: str) -> np.ndarray:
    """Put an RDM on the scale on which the method compares."""
    # No comparator sees the scale, and squares of any number shall be in range.
    row, keep = array_near_one(row)[0], ~np.isnan(row)
    out = np.full(len(row), np.nan)
    if not keep.any():
        return out
    if method in ("spearman", "rho-a", "kendall", "tau-a"):
        out[keep] = doubled(row[keep])
    elif method.endswith("pearson"):
        spread = row[keep].std()
        out[keep] = (row[keep] - row[keep].mean()) / (spread if spread > 0 else np.nan)
    else:
        length = np.sqrt(np.mean(row[keep] ** 2))
        out[keep] = row[keep] / (length if length > 0 else np.nan)
    return out
