"""Do rules differ by more than seeds of one rule do? At equal steps and score."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repsim.analyses import NotApplicable, _study
from repsim.core.scoring import Score, score_of
from repsim.datasets.recordings import networks
from repsim.inference import at_accuracy, describe, false_discovery, findings, seed_test
from repsim.inference.sentences import ranges
from repsim.plot.style import columns_of, layer_axis, panels

TITLE = "Do rules differ by more than seeds do?"
ORDER = 1

STEPS = "equal steps"
LEVEL = 0.05
_SURE, _SPREAD = "#d55e00", "#fff2a8"
NEAR = 0.01
"""Test scores farther apart (of their size, if no shares) are not called equal."""


def compute(study: xr.DataTree) -> xr.Dataset:
    """Test every condition against the first, layer by layer."""
    conditions = list(dict.fromkeys(condition for condition, _ in networks(study)))
    if len(conditions) < 2:
        msg = f"Expected at least two conditions, but the study has {conditions[0]!r}."
        raise NotApplicable(msg)
    reference, *others = conditions
    score = _study.score(study)
    rows = [_against(study, reference, other, score) for other in others]
    result = xr.concat(rows, xr.Variable("condition", others), combine_attrs="drop")
    attrs = [row.attrs for row in rows]
    able = xr.DataArray([one["smallest_p"] <= LEVEL for one in attrs], dims="condition")
    # Place and spread are one family: a false claim of either is a false claim.
    kinds = ("", "spread_")
    p = np.stack([result[f"{kind}p_value"].where(able).values for kind in kinds])
    for kind, q in zip(kinds, false_discovery(p), strict=True):
        result[f"{kind}q_value"] = result[f"{kind}q_value"].copy(data=q)
    rates = _study.rates(study)
    result.attrs = _study.provenance(
        analysis="seeds", measure="cka", reference=reference, level=LEVEL,
        networks=[f"{one['networks_a']} and {one['networks_b']}" for one in attrs],
        smallest_p=[one["smallest_p"] for one in attrs],
        shared_initialisations=[one["shared_initialisations"] for one in attrs],
        place_statistic=attrs[0]["place_statistic"],
        larger_is_more_similar=attrs[0]["larger_is_more_similar"],
        rates=[rates.get(name, "") for name in conditions],
        note=attrs[0]["note"], **score.attrs, **_study.split_attrs(study),
    )  # fmt: skip
    result.attrs["sentences"] = [
        sentence
        for one, other in zip(attrs, others, strict=True)
        for sentence in _sentences(result.sel(condition=other), one, score)
    ]
    return result


def _against(study: xr.DataTree, a: str, b: str, score: Score) -> xr.Dataset:
    """Return one comparison at both moments."""
    pair = xr.DataTree.from_dict(
        {
            f"{condition}/{seed}{rest}": node
            for condition in (a, b)
            for seed, branch in study[condition].children.items()
            for rest, node in (
                ("", branch.to_dataset().load()),
                *((f"/{k}", v.to_dataset().load()) for k, v in branch.children.items()),
            )
        }
    )
    moments = {STEPS: pair}
    try:
        moments[f"equal {score.words}"] = at_accuracy(pair)
    except ValueError:
        # Without steps or test scores there is one moment to compare at.
        pass
    tests = []
    for moment in moments.values():
        with warnings.catch_warnings():
            # The sentence says it.
            warnings.simplefilter("ignore", UserWarning)
            try:
                test = seed_test(moment, a, b, level=LEVEL)
            except ValueError as error:
                raise NotApplicable(str(error)) from None
        taken = _taken(moment, score)
        tests.append(test.drop_vars("step", errors="ignore").assign(taken))
    result = xr.concat(
        tests, xr.Variable("moment", list(moments)), combine_attrs="drop"
    )
    result.attrs = tests[0].attrs
    return result


def _taken(study: xr.DataTree, score: Score) -> dict[str, tuple[str, list[float]]]:
    """Return the mean step and score at which two rules were compared."""
    steps: dict[str, list[float]] = {}
    scores: dict[str, list[float]] = {}
    for (condition, seed), run in networks(study).items():
        step = run.attrs.get("matched_step", _last_step(run))
        value = run.attrs.get(f"matched_{score.name}")
        branch = study[f"{condition}/{seed}"].children
        log = branch["training"].to_dataset() if "training" in branch else xr.Dataset()
        if value is None and score.test in log:
            value = float(log[score.test].values[-1])
        steps.setdefault(condition, []).append(step)
        scores.setdefault(condition, []).append(np.nan if value is None else value)
    return {
        "step": ("rule", [float(np.mean(of)) for of in steps.values()]),
        score.name: ("rule", [float(np.mean(of)) for of in scores.values()]),
    }


def _last_step(run: xr.Dataset) -> float:
    return float(run["step"].values.max()) if "step" in run.coords else np.nan


def _sentences(result: xr.Dataset, attrs: dict[str, Any], score: Score) -> list[str]:
    """Return what one comparison found, at each moment that can find anything."""
    moments = [str(moment) for moment in result["moment"].values]
    if attrs["smallest_p"] > LEVEL:
        return [describe(result.isel(moment=0).assign_attrs(attrs))]
    sentences = []
    for moment in moments:
        one = result.sel(moment=moment)
        where = moment.capitalize()
        reached = one[score.name].values
        if np.isfinite(reached).all():
            rules = zip(
                (attrs["rule_a"], attrs["rule_b"]),
                reached,
                one["step"].values,
                strict=True,
            )
            taken = [f"{rule} {a:.3f} at step {s:.0f}" for rule, a, s in rules]
            gap = float(np.ptp(reached))
            if moment != STEPS and gap > NEAR * score.unit(reached):
                taken.append(f"not equal: the nearest recorded are {gap:.3f} apart")
            where += f" (test {score.words} {', '.join(taken)})"
        sentences.append(f"{where}: {describe(one.assign_attrs(attrs))}")
    return sentences


def found(result: xr.Dataset, rule: str, moment: str) -> dict[str, np.ndarray]:
    """Return where one comparison found a difference of place, and of spread.

    As in `repsim.inference.describe`, a layer counts only where the one test over all
    layers rejects too.
    """
    one = result.sel(condition=rule, moment=moment)
    kinds = findings(one, LEVEL).values
    sure = bool(one["omnibus_p"] <= LEVEL)
    return {
        kind: np.array([sure and kind in str(k) for k in kinds])
        for kind in ("place", "spread")
    }


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: how much less alike rules are than seeds, with intervals."""
    rules = [str(rule) for rule in result["condition"].values]
    moments = [str(moment) for moment in result["moment"].values]
    figure, axes = panels(
        len(rules) * len(moments), width=max(4.8, 6.5 / len(moments)), height=2.7,
        columns=len(moments), sharey=True,
    )  # fmt: skip
    able = dict(zip(rules, result.attrs["smallest_p"], strict=True))
    places = [(rule, moment) for rule in rules for moment in moments]
    columns = columns_of(axes)
    for k, (ax, (rule, moment)) in enumerate(zip(axes, places, strict=True)):
        _panel(ax, result, rule, moment)
        # One under the other, on a phone: a long title leaves its letter no room, and
        # the names of layers would lie screens below.
        end = ",\n" if columns == 1 else ", "
        title = f"{result.attrs['reference']} and {rule}{end}{moment}"
        ax.set_title(title + ": too few to test" * (able[rule] > LEVEL), fontsize=10)
        if k % columns == 0:
            ax.set_ylabel("CKA: within rules\nminus between them")
        lowest = k >= len(places) - columns
        if not lowest:
            ax.set_xlabel("")
        named = lowest or (columns == 1 and len(places) > 4)
        ax.tick_params(axis="x", labelbottom=named)
    handles = [
        Line2D([], [], linestyle="", marker=m, color=_SURE, label=label, mfc=face)
        for m, face, label in (
            ("o", "white", "nothing found"), ("s", _SPREAD, "spread differs"),
            ("o", _SURE, "place differs"), ("D", _SURE, "place and spread"),
        )
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2 + 2 * (columns > 1),
        frameon=False,
    )  # fmt: skip
    return {"seeds": figure}


def _panel(ax: Axes, result: xr.Dataset, rule: str, moment: str) -> None:
    one = result.sel(condition=rule, moment=moment)
    x = np.arange(one.sizes["layer"])
    middle, low, high = (one[k].values for k in ("difference", "low", "high"))
    ax.axhline(0, color="0.4", linewidth=1)
    ax.vlines(x, low, high, color="0.55", linewidth=2)
    where = found(result, rule, moment)
    place, spread = where["place"], where["spread"]
    for at, marker, face in (
        (~place & ~spread, "o", "white"), (spread & ~place, "s", _SPREAD),
        (place & ~spread, "o", _SURE), (place & spread, "D", _SURE),
    ):  # fmt: skip
        ax.plot(x[at], middle[at], marker, color=_SURE, mfc=face, ms=6)
    layer_axis(ax, [str(name) for name in one["layer"].values])
    ax.grid(axis="y", alpha=0.3)


def verdicts(result: xr.Dataset) -> list[str]:
    """Return one sentence a pair of rules: place, spread or nothing found."""
    rules = [str(rule) for rule in result["condition"].values]
    rates = [str(rate) for rate in result.attrs["rates"]]
    reference = str(result.attrs["reference"])
    said = []
    for k, rule in enumerate(rules):
        who = f"{reference} and {rule}"
        if rates[0] != rates[k + 1]:
            who += f" (learning rates {rates[0]} and {rates[k + 1]})"
        smallest = float(result.attrs["smallest_p"][k])
        if smallest > LEVEL:
            said.append(
                f"{who}: no conclusion, too few networks (the smallest attainable p is "
                f"{smallest:.2g})."
            )
            continue
        parts = [
            f"at {moment} {_words(result, rule, str(moment))}"
            for moment in result["moment"].values
        ]
        said.append(f"{who}: {'; '.join(parts)}.")
    return said


def _words(result: xr.Dataset, rule: str, moment: str) -> str:
    """Return what was found at one moment, with the largest difference's interval."""
    one = result.sel(condition=rule, moment=moment)
    names = [str(name) for name in one["layer"].values]
    total = int(np.isfinite(one["p_value"].values).sum())
    where = found(result, rule, moment)
    said = []
    if where["place"].any():
        at = np.flatnonzero(where["place"])
        said.append(
            f"they differ in place in {at.size} of {total} layers "
            f"({ranges([names[i] for i in at], names)}; {_interval(one, at, True)})"
        )
    if where["spread"].any():
        at = np.flatnonzero(where["spread"])
        more = (one["spread_ratio"].values[at] > 1).mean()
        reference = result.attrs["reference"]
        who = f"{rule if more > 0.5 else reference}'s networks vary more"
        what = "and in spread" if said else "they differ in spread alone"
        said.append(
            f"{what} in {at.size} of {total} layers "
            f"({ranges([names[i] for i in at], names)}; {who})"
        )
    if said:
        return ", ".join(said)
    every = np.arange(len(names))
    return f"nothing found ({_interval(one, every)})"


def _interval(one: xr.Dataset, at: np.ndarray, tested: bool = False) -> str:
    """Return the largest difference of some layers with its interval.

    Where it was `tested` for place, also q, and which of both decides if they disagree.
    """
    values = one["difference"].values[at]
    if not np.isfinite(values).any():
        return "no number"
    k = at[int(np.nanargmax(np.abs(values)))]
    middle, low, high = (
        f"{float(one[v].values[k]):.3f}".replace("-", "−")
        for v in ("difference", "low", "high")
    )
    said = f"largest difference in CKA {middle} [{low}, {high}]"
    if tested:
        said += f", q = {float(one['q_value'].values[k]):.2g},"
    said += f" at {one['layer'].values[k]}"
    if tested and one["low"].values[k] <= 0 <= one["high"].values[k]:
        said += ", where the permutation test rejects and the interval alone would not"
    return said


def claim(result: xr.Dataset) -> str:
    """Return in which sense each rule differs from the reference."""
    reference, parts = result.attrs["reference"], []
    for k, rule in enumerate(result["condition"].values):
        kinds = [
            kind
            for kind in ("place", "spread")
            for moment in result["moment"].values
            if found(result, str(rule), str(moment))[kind].any()
        ]
        able = float(result.attrs["smallest_p"][k]) <= LEVEL
        words = " and ".join(dict.fromkeys(kinds)) or "nothing found"
        parts.append(f"{rule}: {words if able else 'cannot be tested'}")
    return f"What differs from {reference} beyond seeds. {'; '.join(parts)}"


def cautions(result: xr.Dataset) -> list[str]:
    """Say which initialisations are shared."""
    shared = [int(n) for n in result.attrs["shared_initialisations"]]
    rules = [str(rule) for rule in result["condition"].values]
    some = [rule for rule, n in zip(rules, shared, strict=True) if n]
    if not some:
        return []
    return [
        f"Initialisations are shared between {result.attrs['reference']} and "
        f"{_study.listed(some)}: only pairs that do not share one are compared."
    ]


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return (
        "By layer, how much less alike networks of two rules are than networks of one, "
        "with 95 % intervals over networks; above 0: less alike."
    )


def details(result: xr.Dataset) -> str:
    """Return the conclusions, and how to read the figure."""
    score = score_of(result.attrs)
    best = "highest" if score.larger_is_better else "lowest"
    return (
        "\n".join(result.attrs["sentences"])
        + "\nDebiased linear CKA of matching layers between networks, all in pairs "
        "that do not share an initialisation: the mean of both rules' own pairs minus "
        "that of pairs across them, with its jackknife interval over networks. Filled: "
        "the difference is larger than permuting the rules' names over whole networks "
        "explains, at a false discovery rate of 5 % over both findings, all layers, "
        "rules and moments of this figure, and one test over all layers rejects too. "
        "A round mark says place (the rules' mean representations differ, whatever "
        "their spread), a square spread (networks of one rule vary more), a diamond "
        f"both. Equal {score.words} compares each network at the recorded step whose "
        f"test {score.words} is nearest to the {best} that all networks of the two "
        f"rules reach. {result.attrs['note']}"
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return what was found, the largest effect and the sentences."""
    numbers: dict[str, Any] = {
        "verdicts": verdicts(result),
        "sentences": list(result.attrs["sentences"]),
    }
    for rule in result["condition"].values:
        for moment in result["moment"].values:
            one = result.sel(condition=rule, moment=moment)
            where = found(result, str(rule), str(moment))
            kinds = [kind for kind, at in where.items() if at.any()]
            q, effect = one["q_value"].values, one["effect"].values
            numbers[f"{result.attrs['reference']}–{rule}, {moment}"] = {
                "found": " and ".join(kinds) or "nothing",
                "layers_that_differ_in_place": int(where["place"].sum()),
                "layers_that_differ_in_spread": int(where["spread"].sum()),
                "layers": int(np.isfinite(q).sum()),
                "omnibus_p": round(float(one["omnibus_p"]), 4),
                "largest_effect": _rounded(effect),
                "smallest_q": None if np.isnan(q).all() else float(np.nanmin(q)),
            }
    return numbers


def _rounded(effect: np.ndarray) -> float | None:
    return round(float(np.nanmax(effect)), 2) if np.isfinite(effect).any() else None
