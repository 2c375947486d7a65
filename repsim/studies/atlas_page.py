"""The atlas in numbers and pictures: what differs, where, since when, and a map."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repsim import learning
from repsim.analyses.figure4 import hidden
from repsim.analyses.seeds import LEVEL, STEPS, found
from repsim.core.files import SUMMARY, write_whole
from repsim.core.threads import one_thread
from repsim.datasets.recordings import networks
from repsim.datasets.results import restored, storable
from repsim.datasets.store import opened
from repsim.datasets.studies import open_study
from repsim.geometry.between_networks import network_rdm
from repsim.geometry.embedding import embed
from repsim.geometry.stacks import rdms
from repsim.inference import false_discovery, seed_test
from repsim.plot.style import name_points, palette, panels
from repsim.studies.completeness import runs_of
from repsim.studies.depths import final_scores
from repsim.studies.facts import attributes, study_facts
from repsim.studies.fingerprints import PAGE
from repsim.studies.report import RESULTS, drawn, render

STORE = "atlas.zarr"
SINCE, MAP = "atlas_since", "atlas_map"
DEPTHS = ("first", "middle", "last")
"""Hidden layers by which networks of different kinds are put on one map."""

_MARKERS = "osD^vP*X"


def write_page(out: Path, left_out: Mapping[str, Mapping[str, str]]) -> Path:
    """Write the page over all studies of an atlas, and its numbers beside it.

    Beside the studies of this plan, whose left-out rules are given, stand those that
    earlier plans have finished in the folder.
    """
    left_out = {**_earlier(out, next(iter(left_out))), **left_out}
    places = list(left_out)
    kept = {name: _numbers(out / name) for name in places}
    for name, result in kept.items():
        result.attrs["left_out"] = json.dumps(left_out[name])
        storable(result).to_zarr(
            out / STORE, group=name, mode="w", consolidated=False, zarr_format=3
        )
    maps = _maps(out, {name: _scored(result) for name, result in kept.items()})
    colours = _colours(kept)
    sections = [
        _differs(out, kept),
        _where(out, kept),
        _when(out, kept),
        *(_map(out, data, points, colours) for data, points in maps.items()),
    ]
    sections[0]["links"] = [(name, f"{name}/{PAGE}") for name in places]
    content = json.loads((out / places[-1] / SUMMARY).read_text())
    text = render(
        question="Which learning rules represent the data differently from "
        f"{_reference(kept)}, where and since when?",
        setting=f"{len(places)} studies, a page each: {', '.join(places)}",
        cautions=_cautions(kept, left_out),
        sections=sections,
        settings={k: content["spec"][k] for k in ("steps", "seeds", "grid", "record")}
        | content["versions"],
        folder=out / "figures",
    )
    write_whole(out / PAGE, text.encode())
    return out / PAGE


def _earlier(out: Path, like: str) -> dict[str, dict[str, str]]:
    """Return the studies of the page that there is, and what they lack.

    Those with another first rule, or with more or fewer examples on a map, stay out.
    """
    spec = _spec(out / like)
    return {
        folder.name: json.loads(
            attributes(out / STORE / folder.name).get("left_out", "{}")
        )
        for folder in sorted(path.parent for path in out.glob(f"*/{SUMMARY}"))
        if (out / STORE / folder.name).is_dir()
        and _spec(folder)["conditions"][0] == spec["conditions"][0]
        and _spec(folder)["examples"] == spec["examples"]
    }


def _scored(result: xr.Dataset) -> list[str]:
    """Return the rules of a study that its numbers are of, the reference too."""
    return [str(rule) for rule in result["scored"].values]


def _colours(kept: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Return a colour a rule, the same on every map of the page."""
    met = dict.fromkeys(rule for result in kept.values() for rule in _scored(result))
    known = [rule for rule in learning.names() if rule in met]
    return palette([*known, *met])


def _too_few(kept: Mapping[str, xr.Dataset]) -> list[str]:
    """Return the studies that can find nothing, whatever their networks do."""
    return [name for name, one in kept.items() if one.attrs["smallest_p"] > LEVEL]


def _none(kept: Mapping[str, xr.Dataset]) -> str:
    few = _too_few(kept) == list(kept)
    return "no conclusion, too few networks" if few else "none found"


def _reference(kept: Mapping[str, xr.Dataset]) -> str:
    return str(next(iter(kept.values())).attrs["reference"])


@one_thread()
def _numbers(folder: Path) -> xr.Dataset:
    """Return a study's findings over (rule, moment, layer), and since when."""
    tests = restored(opened(folder / RESULTS / "seeds", None).load())
    rules = [str(rule) for rule in tests["condition"].values]
    moments = [str(moment) for moment in tests["moment"].values]
    shape = (len(rules), len(moments), tests.sizes["layer"])
    marks = {kind: np.zeros(shape, dtype=bool) for kind in ("place", "spread")}
    for i, rule in enumerate(rules):
        for k, moment in enumerate(moments):
            for kind, at in found(tests, rule, moment).items():
                marks[kind][i, k] = at
    scores, score = final_scores(folder)
    result = xr.Dataset(
        {
            "difference": tests["difference"].transpose("condition", "moment", "layer"),
            **{
                name: (("condition", "moment", "layer"), v) for name, v in marks.items()
            },
        },
        attrs={
            "reference": tests.attrs["reference"],
            "smallest_p": max(np.atleast_1d(tests.attrs["smallest_p"]).tolist()),
            **score.attrs,
        },
    ).rename(condition="rule")
    result["score"] = scores.mean("seed").rename(condition="scored")
    result["score_sd"] = scores.std("seed", ddof=1).rename(condition="scored")
    return result.merge(_since(folder, str(tests.attrs["reference"]), rules))


def _since(folder: Path, reference: str, rules: list[str]) -> xr.Dataset:
    """Return the p-value of the place test at each recorded step, and since when.

    A rule differs since the first step from which on every recorded one rejects, at a
    rate of false discoveries of 5 % over the rule's steps.
    """
    rows = [_place_p(folder, reference, rule) for rule in rules]
    begins = []
    for p in rows:
        rejected = false_discovery(p.values) <= LEVEL
        stays = np.logical_and.accumulate(rejected[::-1])[::-1]
        at = p["step"].values[stays]
        begins.append(float(at[0]) if at.size else np.nan)
    along = xr.Variable("rule", rules)
    return xr.Dataset({"place_p": xr.concat(rows, along), "since": ("rule", begins)})


def _place_p(folder: Path, reference: str, rule: str) -> xr.DataArray:
    """Return a rule's p-values by step, kept with what they were computed from."""
    facts = study_facts(runs_of(folder))
    cells = [f"{c.seed} {c.mark}" for r in (reference, rule) for c in facts.of(r)]
    mark = hashlib.sha256("\n".join(cells).encode()).hexdigest()
    store, group = folder / RESULTS, f"{SINCE}/{_stem(rule)}"
    if attributes(store / group).get("fingerprint") == mark:
        return opened(store / group, None)["place_p"].load().drop_attrs()
    pair = {
        "/".join(key): run.load()
        for key, run in networks(open_study(runs_of(folder))).items()
        if key[0] in (reference, rule)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few networks: said elsewhere
        tree = xr.DataTree.from_dict(pair)
        test = seed_test(tree, reference, rule, step="all")
    p = test["omnibus_place_p"].drop_attrs()
    result = storable(p.to_dataset(name="place_p")).assign_attrs(fingerprint=mark)
    result.to_zarr(store, group=group, mode="w", consolidated=False, zarr_format=3)
    return p


def _section(
    out: Path, draw: Callable[[], Figure], name: str, title: str, claim: str,
    **parts: Any,
) -> dict[str, Any]:  # fmt: skip
    empty: dict[str, Any] = {"summary": {}, "missing": "", "details": ""}
    section = empty | {"name": name, "title": title, "claim": claim} | parts
    return section | {"figures": drawn(lambda: {name: draw()}, out / "figures", claim)}


def _draw_differs(kept: Mapping[str, xr.Dataset]) -> Figure:
    """Draw in how many layers each rule differs, at equal steps and equal score."""
    moments = [str(m) for m in next(iter(kept.values()))["moment"].values]
    figure, axes = panels(len(moments), width=5.5, height=0.32 * len(_rules(kept)) + 2)
    for ax, moment in zip(axes, moments, strict=True):
        shares = {
            name: result["place"].sel(moment=moment).mean("layer").to_pandas()
            for name, result in kept.items()
            if moment in result["moment"].values
        }
        table = _table(shares, _rules(kept))
        _heat(ax, table, moment, "rocket_r")
    return figure


def _differs(out: Path, kept: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Return the section on which rules differ."""
    some = {
        rule: [
            name
            for name, result in kept.items()
            if rule in result["rule"].values and result["place"].sel(rule=rule).any()
        ]
        for rule in _rules(kept)
    }
    those = [
        f"{rule} ({len(at)} of {_in(kept, rule)})" for rule, at in some.items() if at
    ]
    claim = (
        f"Rules that represent differently from {_reference(kept)} beyond seeds (in so "
        f"many of their studies): {', '.join(those) or _none(kept)}"
    )
    summary = {
        name: {
            f"{rule}": f"{float(result['score'].sel(scored=rule)):.3f} ± "
            f"{float(result['score_sd'].sel(scored=rule)):.3f}"
            for rule in result["scored"].values
        }
        for name, result in kept.items()
    }
    words = {str(r.attrs["metric_words"]) for r in kept.values()}
    return _section(
        out,
        lambda: _draw_differs(kept),
        "differs",
        "Which rules represent the data differently",
        claim,
        caption="Share of layers in which a rule's networks stand at another place "
        "than the first rule's, by more than seeds explain; empty: not trained there.",
        details="Each study's own test (its page has the intervals): permuting the "
        "rules' names over whole networks, a false discovery rate of 5 % over layers, "
        "rules and moments of a study, and one test over all layers that rejects too. "
        "Rates were chosen from one grid with as many networks for every rule. "
        f"Below: final test {', '.join(sorted(words))} (mean ± sd over seeds).",
        summary=summary,
    )


def _in(kept: Mapping[str, xr.Dataset], rule: str) -> int:
    return sum(rule in result["rule"].values for result in kept.values())


def _rules(kept: Mapping[str, xr.Dataset]) -> list[str]:
    """Return every rule of the studies but the reference, in order."""
    return list(dict.fromkeys(str(r) for k in kept.values() for r in k["rule"].values))


def _table(values: Mapping[str, Any], rules: list[str]) -> Any:
    import pandas as pd

    return pd.DataFrame(values).reindex(rules)


def _heat(ax: Axes, table: Any, title: str, colours: str, **options: Any) -> None:
    number = {"annot": True, "fmt": ".2f", "vmin": 0, "vmax": 1} | options
    sns.heatmap(table, ax=ax, cmap=colours, annot_kws={"fontsize": 7}, **number)
    ax.set(title=title, xlabel="", ylabel="")
    ax.tick_params(labelsize=7, rotation=0)
    ax.tick_params(axis="x", rotation=30)


def _draw_where(kept: Mapping[str, xr.Dataset]) -> Figure:
    """Draw the differences by layer, those found marked."""
    height = 0.3 * max(r.sizes["rule"] for r in kept.values()) + 1.6
    figure, axes = panels(len(kept), width=4.8, height=height, columns=3)
    for ax, (name, result) in zip(axes, kept.items(), strict=True):
        at = _last_moment(kept, result)
        cells = result["difference"].sel(moment=at).transpose("rule", "layer")
        sure = result["place"].sel(moment=at).transpose("rule", "layer").values
        top = float(np.nanmax(np.abs(cells.values))) or 1.0
        sns.heatmap(
            cells.to_pandas(), ax=ax, cmap="RdBu_r", vmin=-top, vmax=top,
            annot=np.where(sure, "●", ""), fmt="", annot_kws={"fontsize": 7},
        )  # fmt: skip
        ax.set(title=f"{name}, {at}", xlabel="", ylabel="")
        ax.tick_params(labelsize=7, rotation=0)
        ax.tick_params(axis="x", rotation=45)
    return figure


def _last_moment(kept: Mapping[str, xr.Dataset], result: xr.Dataset) -> str:
    """Return the atlas' last moment, or the one that every study has."""
    moment = str(next(iter(kept.values()))["moment"].values[-1])
    return moment if moment in result["moment"].values else STEPS


def _where(out: Path, kept: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Return the section on where in depth rules differ."""
    parts = []
    for name, result in kept.items():
        at = _last_moment(kept, result)
        sure = result["place"].sel(moment=at).transpose("rule", "layer").values
        if sure.any():
            share = sure.mean(0)
            layer = str(result["layer"].values[int(share.argmax())])
            parts.append(f"{name}: {layer} ({share.max():.0%} of rules)")
    moment = str(next(iter(kept.values()))["moment"].values[-1])
    claim = "Layers where the most rules differ: " + ("; ".join(parts) or _none(kept))
    return _section(
        out,
        lambda: _draw_where(kept),
        "where",
        "Where in depth",
        claim,
        caption=f"CKA within rules minus between them at {moment}, by layer; dots: "
        "beyond seeds.",
    )


def _draw_when(kept: Mapping[str, xr.Dataset]) -> Figure:
    """Draw the p-values by step."""
    height = 0.3 * max(r.sizes["rule"] for r in kept.values()) + 1.6
    figure, axes = panels(len(kept), width=4.8, height=height, columns=3)
    for ax, (name, result) in zip(axes, kept.items(), strict=True):
        p = result["place_p"].transpose("rule", "step").to_pandas()
        _heat(ax, p, f"{name}: p by updates", "rocket", fmt=".3f", vmax=0.2)
    return figure


def _when(out: Path, kept: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Return the section on since when in training rules differ."""
    summary: dict[str, Any] = {}
    for name, result in kept.items():
        summary[name] = {
            str(rule): "not" if np.isnan(since) else f"since update {since:.0f}"
            for rule, since in zip(
                result["rule"].values, result["since"].values, strict=True
            )
        }
    firsts = [v for result in kept.values() for v in result["since"].values]
    early = np.isfinite(firsts)
    claim = (
        f"{int(early.sum())} of {len(firsts)} comparisons differ in place at the end "
        "of training"
    )
    if _too_few(kept) == list(kept):
        claim = f"No rule's beginning: {_none(kept)}"
    if early.any():
        median = np.median(np.array(firsts)[early])
        claim += f", the median one since update {median:.0f}"
    return _section(
        out,
        lambda: _draw_when(kept),
        "when",
        "Since when in training",
        claim,
        caption="p of one test of place over all layers, by recorded update.",
        details="Since: the first recorded update from which on all later ones reject "
        "(false discovery rate of 5 % over a rule's updates). Moments are compared at "
        "equal updates.",
        summary=summary,
    )


@one_thread()
def _maps(out: Path, places: Mapping[str, list[str]]) -> dict[str, xr.DataArray]:
    """Return the networks of these rules as points by their RDMs, by data set."""
    data = {name: _spec(out / name)["dataset"] for name in places}
    maps = {}
    for dataset, names in groupby(sorted(places, key=data.__getitem__), data.get):
        stacks = [
            _stack(out / name, _spec(out / name)["network"], places[name])
            for name in names
        ]
        together = xr.concat(
            stacks, "network", coords="minimal", compat="override", join="exact",
            combine_attrs="drop",
        )  # fmt: skip
        # A constant layer or example has no distances, and so no place on a map.
        whole = together.notnull().all(("layer", "pair")).values
        together = together.isel(network=whole)
        if together.sizes["network"] < 4:
            continue
        points = embed(network_rdm(together, items="networks"), method="metric")
        points = points.assign_coords(kind=("item", together["kind"].values))
        maps[str(dataset)] = points
        plain = points.drop_attrs().to_dataset(name="point")
        storable(plain.assign_attrs(stress=points.attrs["stress"])).to_zarr(
            out / STORE, group=_stem(f"{MAP}_{dataset}"), mode="w", consolidated=False,
            zarr_format=3,
        )  # fmt: skip
    return maps


def _stem(text: str) -> str:
    return text.replace(":", "_").replace("/", "_")


def _spec(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / SUMMARY).read_text())["spec"])


def _stack(folder: Path, kind: str, rules: list[str]) -> xr.DataArray:
    """Return RDMs of three hidden layers, (network, layer, pair)."""
    moments = {}
    for (condition, seed), run in networks(open_study(runs_of(folder))).items():
        if condition not in rules:  # another call is at it
            continue
        names = hidden(run)
        at = np.linspace(0, len(names) - 1, len(DEPTHS)).round().astype(int)
        end = run.isel(step=-1, drop=True)
        moments[condition, seed] = [end[names[i]].load() for i in at]
    rows = []
    for layers in moments.values():
        one = {
            new: (("example", f"{new}_unit"), layer.values)
            for new, layer in zip(DEPTHS, layers, strict=True)
        }
        rows.append(rdms(xr.Dataset(one, {"example": layers[0]["example"].values})))
    stack = xr.concat(rows, "network", coords="minimal", compat="override")
    return stack.drop_attrs().assign_coords(
        condition=("network", [condition for condition, _ in moments]),
        seed=("network", [seed for _, seed in moments]),
        kind=("network", [kind] * len(moments)),
    )


def _draw_map(data: str, points: xr.DataArray, colours: Mapping[str, Any]) -> Figure:
    """Draw the map of all networks on one data set."""
    rules, kinds = (points[name].values.astype(str) for name in ("condition", "kind"))
    figure, axes = panels(1, width=8.5, height=6)
    middles = []
    for k, kind in enumerate(dict.fromkeys(kinds)):
        marker = _MARKERS[k % len(_MARKERS)]
        for rule in dict.fromkeys(rules[kinds == kind]):
            at = points.values[(kinds == kind) & (rules == rule)]
            axes[0].scatter(
                at[:, 0], at[:, 1], s=34, color=[colours[rule]], alpha=0.7,
                marker=marker,
            )  # fmt: skip
            # More rules than colours that eyes tell apart: each has its name there.
            middle = at[np.linalg.norm(at - np.median(at, axis=0), axis=1).argmin()]
            middles.append((rule, middle))
        axes[0].scatter([], [], s=34, color="0.4", marker=marker, label=kind)
    axes[0].set_aspect("equal", adjustable="datalim")
    stress = float(points.attrs["stress"])
    axes[0].set(
        xlabel="dimension 1", ylabel="dimension 2", title=f"{data}, stress {stress:.2f}"
    )
    axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    names, at = zip(*middles, strict=True)
    name_points(axes[0], names, np.array(at), points.values, colours)
    return figure


def _map(
    out: Path, data: str, points: xr.DataArray, colours: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the section with the map of all networks on one data set."""
    rules, kinds = (points[name].values.astype(str) for name in ("condition", "kind"))
    apart = np.linalg.norm(points.values[:, None] - points.values[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(1)
    same = float((rules[nearest] == rules).mean())
    alike = float((kinds[nearest] == kinds).mean())
    return _section(
        out,
        lambda: _draw_map(data, points, colours),
        _stem(f"map_{data}"),
        f"A map of all networks on {data}",
        f"On the map the nearest network follows the same rule for {same:.0%} and is "
        f"of the same kind for {alike:.0%} of {len(rules)} networks",
        caption="Metric MDS of one minus the Spearman correlation of the networks' "
        f"RDMs ({', '.join(DEPTHS)} hidden layer, their mean); colour and name: rule, "
        "marker: network. Stress above 0.2: read neighbourhoods, not distances. "
        "A network with a layer that is constant for an example has no place here.",
    )


def _cautions(
    kept: Mapping[str, xr.Dataset], left_out: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Say what was left out, and that the numbers of one page are many tests."""
    said = [
        f"{name} without {rule}: {why}"
        for name, of in left_out.items()
        for rule, why in of.items()
    ]
    said += [
        f"{name} has too few networks a rule to tell any apart (the smallest "
        f"attainable p is {kept[name].attrs['smallest_p']:.2g})"
        for name in _too_few(kept)
    ]
    return [
        *said,
        f"{len(kept)} studies of one page are tested each for itself: with the level "
        "of 5 % some of many studies find something by chance.",
    ]
