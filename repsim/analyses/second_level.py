"""Networks as points: whether they cluster by rule or by seed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.analyses.figure4 import hidden
from repsim.datasets.recordings import networks
from repsim.geometry.between_networks import items_of, network_rdm
from repsim.geometry.models import model_rdms
from repsim.geometry.regression import rdm_regression
from repsim.geometry.stacks import rdms, squareform
from repsim.plot.style import panels

TITLE = "Do networks cluster by rule or by seed?"
ORDER = 47


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return the RDM of all networks, and what explains it."""
    runs = networks(study)
    if len(runs) < 3:
        msg = "Expected at least three networks to compare."
        raise NotApplicable(msg)
    names = hidden(next(iter(runs.values())))
    if any(hidden(run) != names for run in runs.values()):
        msg = "Expected networks with the same layers."
        raise NotApplicable(msg)
    # One moment of each, and nothing of the rest is read.
    moments = {
        f"{c}/{s}": _study.last(run)[names].load() for (c, s), run in runs.items()
    }
    stack = rdms(xr.DataTree.from_dict(moments), layers=names)
    of_networks = network_rdm(stack, items="networks")
    if _comparable(of_networks).sizes["pair"] < 3:
        msg = "Expected at least three networks with examples in common."
        raise NotApplicable(msg)
    inits = np.array([str(_study.initialisation(run)) for run in runs.values()])
    fit = _explained(of_networks, inits)
    result = xr.Dataset(
        {
            "networks": of_networks.drop_attrs(),
            "neighbour": ("network", _neighbours(of_networks)),
        },
        coords={"network": list(moments)},
        attrs=_study.provenance(
            analysis="second_level", metric="correlation", method="spearman"
        ),
    )
    return result if fit is None else result.assign(unique=fit)


def _explained(rdm: xr.DataArray, inits: np.ndarray) -> xr.DataArray | None:
    """Return what rule and shared initialisation each explain alone."""
    i, j = np.triu_indices(len(inits), 1)
    rdm = rdm.assign_coords(
        initialisation_a=("pair", inits[i]), initialisation_b=("pair", inits[j])
    )
    same = []
    for name in ("condition", "initialisation"):
        differ = rdm[f"{name}_a"].values != rdm[f"{name}_b"].values
        if differ.any() and not differ.all():
            same.append(name)
    if not same:
        return None
    models = model_rdms(rdm, same=same, apart=())
    if len(same) == 2 and np.array_equal(models.values[0], models.values[1]):
        models = models.isel(model=[0])
    return rdm_regression(rdm, models)["unique"].drop_attrs()


def _neighbours(rdm: xr.DataArray) -> np.ndarray:
    """Return whose nearest network follows its rule; NaN where none can be compared."""
    square = np.array(squareform(rdm.values))
    square[np.isnan(square)] = np.inf
    np.fill_diagonal(square, np.inf)
    conditions = items_of(rdm)["condition"]
    same = conditions[square.argmin(1)] == conditions
    return np.where(np.isfinite(square.min(1)), same, np.nan)


def _comparable(rdm: xr.DataArray) -> xr.DataArray:
    """Return the RDM without the fewest items that leave no pair NaN.

    Networks whose layers are dead for most examples may have no pair of examples in
    common.
    """
    missing = np.isnan(squareform(rdm.values))
    kept = np.arange(len(missing))
    while (lost := missing[np.ix_(kept, kept)].sum(1)).any():
        kept = np.delete(kept, lost.argmax())
    i, j = np.triu_indices(len(missing), 1)
    return rdm.isel(pair=np.isin(i, kept) & np.isin(j, kept))


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return dendrogram and MDS of networks."""
    of_networks = _comparable(result["networks"])
    tall = max(3.2, 0.24 * len(result["network"]) + 1.2)
    figure, axes = panels(2, width=6.5, height=tall)
    plot.dendrogram(of_networks, ax=axes[0])
    plot.mds(of_networks, ax=axes[1], method="metric")
    return {"second_level_networks": figure}


def chance(conditions: np.ndarray) -> float:
    """Return how often a random other network follows the same rule."""
    counts = np.unique(conditions, return_counts=True)[1]
    n = counts.sum()
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))


def _shares(result: xr.Dataset) -> tuple[float, float]:
    conditions = np.array([str(n).split("/")[0] for n in result["network"].values])
    return float(result["neighbour"].mean()), chance(conditions)


def claim(result: xr.Dataset) -> str:
    """Return whether neighbours follow the same rule, against chance."""
    share, by_chance = _shares(result)
    return (
        f"The nearest network follows the same rule for {share:.0%} of networks "
        f"(by chance {by_chance:.0%})"
    )


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    text = (
        "Networks as leaves of a tree and as points; near means alike (1 − Spearman "
        "correlation of their RDMs, mean over matching layers)."
    )
    if bool(result["networks"].isnull().any()):
        text += " Not drawn: what has no examples in common with others."
    return text


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    share, by_chance = _shares(result)
    text = (
        "The distance of two networks is one minus the Spearman correlation of their "
        "layers' dissimilarity matrices, mean over matching layers; in b as "
        "nearly as two dimensions can show it (metric MDS, stress in the title; above "
        "0.2 read neighbourhoods, not distances). Colour and marker: rule. The nearest "
        f"network follows the same rule for {share:.0%} of networks; one drawn at "
        f"random from the others would for {by_chance:.0%}"
    )
    if "unique" in result:
        parts = [
            f"{str(n)} {float(v):.0%}"
            for n, v in zip(
                result["model"].values, result["unique"].values, strict=True
            )
        ]
        text += "; share of their distances explained only by " + ", ".join(parts)
    return text + "."


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return the share of nearest neighbours of one rule, and what explains what."""
    numbers: dict[str, Any] = {
        "nearest_follows_same_rule": round(_shares(result)[0], 4),
        "by_chance": round(_shares(result)[1], 4),
    }
    if "unique" in result:
        for name, value in zip(
            result["model"].values, result["unique"].values, strict=True
        ):
            numbers[f"explained_only_by_{name}"] = round(float(value), 4)
    return numbers
