"""Debiased CKA of all layer pairs, within a rule, between rules, and untrained."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import _study
from repsim.comparison.all_pairs import compare
from repsim.datasets.recordings import networks
from repsim.plot.style import panels

TITLE = "Which layers are alike"
ORDER = 30


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return mean debiased linear CKA between conditions, over pairs of networks.

    A pair of networks counts only where their initialisations differ, since two
    networks that began alike look alike for that reason alone; conditions that share
    initialisations are therefore also given by `shared`, over exactly those pairs.
    """
    trained = networks(study)
    reference = next(iter(trained))[0]
    moments = {f"{c}/{s}": _study.last(run).load() for (c, s), run in trained.items()}
    for (condition, seed), run in trained.items():
        start = _study.first(run)
        if condition == reference and start is not None:
            moments[f"{_study.UNTRAINED}/{seed}"] = start.load()
    cells = compare(xr.DataTree.from_dict(moments), measure="cka")
    inits = np.array([str(_study.initialisation(run)) for run in moments.values()])
    labels = np.array([path.split("/")[0] for path in moments])
    names = list(dict.fromkeys(labels))
    values = cells.transpose("network_a", "network_b", "layer_a", "layer_b").values
    found = _means(values, labels, inits, names)
    coords = {
        "condition_a": names,
        "condition_b": names,
        "layer_a": cells["layer_a"].values,
        "layer_b": cells["layer_b"].values,
    }
    matrix = ("condition_a", "condition_b", "layer_a", "layer_b")
    return xr.Dataset(
        {
            name: (matrix if array.ndim == 4 else matrix[:2], array)
            for name, array in found.items()
        },
        coords=coords,
        attrs=_study.provenance(
            analysis="layer_similarity", **cells.attrs, **_study.split_attrs(study)
        ),
    )


def _means(
    values: np.ndarray, labels: np.ndarray, inits: np.ndarray, names: list[str]
) -> dict[str, np.ndarray]:
    """Average over pairs of different networks, apart where they began alike."""
    size = (len(names), len(names), *values.shape[2:])
    out = {name: np.full(size, np.nan) for name in ("cka", "sd", "shared")}
    out["pairs"] = np.zeros(size[:2], dtype=int)
    out["shared_pairs"] = np.zeros(size[:2], dtype=int)
    different = ~np.eye(len(labels), dtype=bool)
    alike = (inits[:, None] == inits[None]) & (inits != "None")[:, None]
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            pair = np.outer(labels == a, labels == b) & different
            apart, together = values[pair & ~alike], values[pair & alike]
            # Within a condition the two orders of a pair are both in the matrix.
            orders = 2 if i == j else 1
            out["pairs"][i, j] = len(apart) // orders
            out["shared_pairs"][i, j] = len(together) // orders
            if len(apart):
                out["cka"][i, j] = apart.mean(0)
                out["sd"][i, j] = apart.std(0)
            if len(together):
                out["shared"][i, j] = together.mean(0)
    return out


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return heat maps of the first condition with each, and the matched layers."""
    names = [str(name) for name in result["condition_b"].values]
    first = result.sel(condition_a=names[0])
    apart = [n for n in names if first["pairs"].sel(condition_b=n) > 0]
    trained = [n for n in names if n != _study.UNTRAINED]
    drawn: dict[str, Figure] = {}
    if apart:
        drawn["cka_heatmaps"] = _heatmaps(result, names[0], apart)
    if bool((first["shared_pairs"].sel(condition_b=trained) > 0).any()):
        drawn["cka_shared_initialisation"] = _shared(result, trained)
    return drawn


def _heatmaps(result: xr.Dataset, reference: str, names: list[str]) -> Figure:
    figure, axes = panels(len(names), width=4.6, height=4.0)
    for ax, name in zip(axes, names, strict=True):
        cell = result["cka"].sel(condition_a=reference, condition_b=name)
        pairs = int(result["pairs"].sel(condition_a=reference, condition_b=name))
        cell = cell.assign_attrs(measure="cka").transpose("layer_a", "layer_b")
        marks = _study.marks(result)
        plot.heatmap(
            cell,
            ax=ax,
            splits={
                "layer_a": marks.get(reference, []),
                "layer_b": marks.get(name, []),
            },
        )
        ax.set(
            title=f"{reference} – {name} ({pairs} pairs)",
            xlabel=f"layer of {name}",
            ylabel=f"layer of {reference}",
        )
    return figure


def _shared(result: xr.Dataset, names: list[str]) -> Figure:
    """Draw matched layers: same initialisation, own initialisation, and within."""
    reference = names[0]
    size = len(result["layer_a"])
    index = xr.DataArray(np.arange(size), dims="layer")
    lines, labels = [], []
    for name in names:
        where = {"condition_a": reference, "condition_b": name}
        for variable, words in (("cka", "different"), ("shared", "the same")):
            line = result[variable].sel(where)
            if not bool(line.notnull().any()):
                continue
            diagonal = line.isel(layer_a=index, layer_b=index)
            lines.append(diagonal.drop_vars(["condition_a", "condition_b"]))
            labels.append(f"{reference} – {name}, {words} initialisation")
    curves = xr.concat(
        [line.drop_vars(["layer_a", "layer_b"]) for line in lines],
        xr.Variable("condition", labels),
    ).assign_coords(layer=result["layer_a"].values)
    figure, ax = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
    plot.layer_curve(curves.assign_attrs(long_name="debiased CKA"), ax=ax)
    ax.set(ylim=(0, 1.02), title="CKA of matching layers")
    return figure


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    reference = str(result["condition_a"].values[0])
    return (
        "Debiased linear CKA between layers of two networks, mean over pairs of "
        f"networks with different initialisations (their number is in the title). The "
        f"map {reference} – {reference} is the reference: how alike two networks of "
        "the same rule and different seeds are. A rule represents the data "
        "differently only where its map falls below that one. `untrained` is "
        f"{reference} before its first update. The same colour scale (0–1) "
        "everywhere; a pairing without such pairs has no map; a dashed line marks a "
        "split, after whose layer the gradient is synthesised, and is left out where a "
        "rule has more than four of them, as at every layer; cells below 0 have the "
        "under-colour. The curves, where drawn, show the mean over pairs for matching "
        "layers, with and without a shared initialisation; the spread of pairs that do "
        "not share one is in the section on seeds."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return the mean CKA of matching hidden layers with the first condition."""
    reference = str(result["condition_a"].values[0])
    numbers: dict[str, Any] = {}
    for name in result["condition_b"].values:
        where = {"condition_a": reference, "condition_b": name}
        for variable in ("cka", "shared"):
            diagonal = np.diagonal(result[variable].sel(where).values)
            if np.isfinite(diagonal).any():
                key = f"{reference}–{name}" + (
                    " shared" if variable == "shared" else ""
                )
                numbers[key] = round(float(np.nanmean(diagonal)), 4)
    return numbers
