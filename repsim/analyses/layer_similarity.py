"""Debiased CKA of all layer pairs, within a rule, between rules, and untrained."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import _study
from repsim.comparison.all_pairs import compare
from repsim.datasets.recordings import networks
from repsim.plot.style import figure_of, panels, split_positions

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
    means = _means(values, labels, inits, names)
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
            for name, array in means.items()
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
    """Return maps of the first condition with each, and minus its own map."""
    names = [str(name) for name in result["condition_b"].values]
    first = result.sel(condition_a=names[0])
    apart = [n for n in names if first["pairs"].sel(condition_b=n) > 0]
    trained = [n for n in names if n != _study.UNTRAINED]
    drawn: dict[str, Figure] = {}
    if apart:
        drawn["cka_heatmaps"] = _heatmaps(result, names[0], apart)
    others = [name for name in apart if name in trained[1:]]
    if names[0] in apart and others:
        drawn["cka_differences"] = _differences(result, names[0], others)
    if bool((first["shared_pairs"].sel(condition_b=trained) > 0).any()):
        drawn["cka_shared_initialisation"] = _shared(result, trained)
    return drawn


def _heatmaps(result: xr.Dataset, reference: str, names: list[str]) -> Figure:
    cells = result["cka"].sel(condition_a=reference, condition_b=names, drop=True)
    axes = plot.heatmaps(cells.assign_attrs(measure="cka"), col="condition_b")
    pairs = result["pairs"].sel(condition_a=reference)
    for ax, name in zip(axes, names, strict=True):
        ax.set_title(f"{reference} – {name} ({int(pairs.sel(condition_b=name))} pairs)")
        _split_lines(ax, result, reference, name)
    _study.name_sides(axes, reference)
    return figure_of(axes)


def _differences(result: xr.Dataset, reference: str, names: list[str]) -> Figure:
    """Draw each pairing minus the reference with itself, on one diverging scale."""
    cka = result["cka"].sel(condition_a=reference)
    own = cka.sel(condition_b=reference, drop=True)
    cells = cka.sel(condition_b=names) - own
    seeds = result["sd"].sel(condition_a=reference, condition_b=reference, drop=True)
    axes = plot.heatmaps(
        cells.drop_vars("condition_a").assign_attrs(measure="cka"),
        col="condition_b",
        difference=True,
        marked=abs(cells) > seeds,
    )
    for ax, name in zip(axes, names, strict=True):
        ax.set_title(f"{name} minus seeds of {reference}")
        _split_lines(ax, result, reference, name, color="0.3")
    _study.name_sides(axes, reference)
    return figure_of(axes)


def _split_lines(
    ax: Axes, result: xr.Dataset, a: str, b: str, color: str = "white"
) -> None:
    marks = _study.marks(result)
    style: dict[str, Any] = {"color": color, "linestyle": "--", "linewidth": 1.1}
    for name, dim, draw in ((a, "layer_a", ax.axhline), (b, "layer_b", ax.axvline)):
        names = [str(v) for v in result[dim].values]
        for position in split_positions(marks.get(name, []), names):
            draw(position + 0.5, **style)


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
    figure, (ax,) = panels(1, width=8.5, height=4.2)
    plot.layer_curve(curves.assign_attrs(long_name="debiased CKA"), ax=ax)
    ax.set(ylim=(0, 1.02), title="CKA of matching layers")
    return figure


def claim(result: xr.Dataset) -> str:
    """Return where matching layers of each pairing are least like the reference's."""
    names = [str(n) for n in result["condition_b"].values if n != _study.UNTRAINED]
    reference, *others = names
    own = _matching(result, reference, reference)
    if not others or not np.isfinite(own).any():
        return f"Which layers of {reference} are alike"
    parts = []
    for name in others:
        gap = _matching(result, reference, name) - own
        if np.isfinite(gap).any():
            k = int(np.nanargmin(gap))
            layer = str(result["layer_a"].values[k])
            parts.append(f"{name} at {layer} ({gap[k]:+.3f})".replace("-", "−"))
    return (
        f"CKA of matching layers with {reference}, minus that of two seeds of "
        f"{reference}, is lowest for {_study.listed(parts)}"
    )


def _matching(result: xr.Dataset, a: str, b: str) -> np.ndarray:
    return np.diagonal(result["cka"].sel(condition_a=a, condition_b=b).values)


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    reference = str(result["condition_a"].values[0])
    return (
        f"Above: mean debiased CKA; {reference} – {reference} is how alike two seeds "
        "are. Below: each map minus that one; a dot marks a difference larger than "
        f"the standard deviation over pairs of {reference}'s networks."
    )


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    reference = str(result["condition_a"].values[0])
    return (
        "Debiased linear CKA between layers of two networks, mean over pairs of "
        "networks with different initialisations (their number is in the title). The "
        f"map {reference} – {reference} is the reference: how alike two networks of "
        "the same rule and different seeds are; the maps of differences show what is "
        "above (red) and below it (blue). Dots describe, they test nothing: whether a "
        "rule's place or its spread differs from seed to seed is tested in the first "
        "section. A rule can be more like the reference than the reference's own "
        "networks are, where its networks vary less. `untrained` is "
        f"{reference} before its first update. A dashed line marks a split, after "
        "whose layer the gradient is synthesised, and is left out where a rule has "
        "more than four of them; cells below 0 have the under-colour. The curves, "
        "where drawn, show the mean over pairs for matching layers, with and without a "
        "shared initialisation."
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


def interactive(result: xr.Dataset) -> Mapping[str, Any] | None:
    """Return the heat maps that the page lets its reader choose from."""
    reference = str(result["condition_a"].values[0])
    cka = result["cka"].sel(condition_a=reference)
    names = [
        str(name)
        for name in result["condition_b"].values
        if bool(cka.sel(condition_b=name).notnull().any())
    ]
    if not names:
        return None
    cka = cka.sel(condition_b=names)
    views = [_study.view("debiased CKA", cka, 0.0, 1.0)]
    if reference in names and len(names) > 1:
        gap = cka - cka.sel(condition_b=reference, drop=True)
        top = float(np.nan_to_num(abs(gap.values)).max()) or 1.0
        views.append(_study.view(f"minus two seeds of {reference}", gap, -top, top))
    pairs = [f"{reference} – {name}" for name in names]
    return _study.explorer({"pair": pairs}, result, views)
