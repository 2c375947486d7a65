"""Do rules differ by more than seeds of one rule do? At equal steps and accuracy."""

import warnings
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repsim.analyses import NotApplicable, _study
from repsim.datasets.recordings import networks
from repsim.inference import at_accuracy, describe, false_discovery, findings, seed_test

TITLE = "Do rules differ by more than seeds do?"
ORDER = 1

MOMENTS = ("equal steps", "equal accuracy")
LEVEL = 0.05
NEAR = 0.01
"""Test accuracies farther apart are not called equal."""


def compute(study: xr.DataTree) -> xr.Dataset:
    """Test every condition against the first, layer by layer."""
    conditions = list(dict.fromkeys(condition for condition, _ in networks(study)))
    if len(conditions) < 2:
        msg = f"Expected at least two conditions, but the study has {conditions[0]!r}."
        raise NotApplicable(msg)
    reference, *others = conditions
    rows = [_against(study, reference, other) for other in others]
    result = xr.concat(rows, xr.Variable("condition", others), combine_attrs="drop")
    attrs = [row.attrs for row in rows]
    able = xr.DataArray([one["smallest_p"] <= LEVEL for one in attrs], dims="condition")
    # Place and spread are one family: a false claim of either is a false claim.
    kinds = ("", "spread_")
    p = np.stack([result[f"{kind}p_value"].where(able).values for kind in kinds])
    for kind, q in zip(kinds, false_discovery(p), strict=True):
        result[f"{kind}q_value"] = result[f"{kind}q_value"].copy(data=q)
    result.attrs = _study.provenance(
        analysis="seeds", measure="cka", reference=reference, level=LEVEL,
        networks=[f"{one['networks_a']} and {one['networks_b']}" for one in attrs],
        smallest_p=[one["smallest_p"] for one in attrs],
        shared_initialisations=[one["shared_initialisations"] for one in attrs],
        note=attrs[0]["note"], **_study.split_attrs(study),
    )  # fmt: skip
    result.attrs["sentences"] = [
        sentence
        for one, other in zip(attrs, others, strict=True)
        for sentence in _sentences(result.sel(condition=other), one)
    ]
    return result


def _against(study: xr.DataTree, a: str, b: str) -> xr.Dataset:
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
    moments = {MOMENTS[0]: pair}
    try:
        moments[MOMENTS[1]] = at_accuracy(pair)
    except ValueError:
        # Without steps or test accuracies there is one moment to compare at.
        pass
    found = []
    for moment in moments.values():
        with warnings.catch_warnings():
            # The sentence says it.
            warnings.simplefilter("ignore", UserWarning)
            try:
                test = seed_test(moment, a, b, level=LEVEL)
            except ValueError as error:
                raise NotApplicable(str(error)) from None
        found.append(test.drop_vars("step", errors="ignore").assign(_taken(moment)))
    result = xr.concat(
        found, xr.Variable("moment", list(moments)), combine_attrs="drop"
    )
    result.attrs = found[0].attrs
    return result


def _taken(study: xr.DataTree) -> dict[str, tuple[str, list[float]]]:
    """Return the mean step and accuracy at which two rules were compared."""
    steps: dict[str, list[float]] = {}
    scores: dict[str, list[float]] = {}
    for (condition, seed), run in networks(study).items():
        step = run.attrs.get("matched_step", _last_step(run))
        score = run.attrs.get("matched_accuracy")
        branch = study[f"{condition}/{seed}"].children
        log = branch["training"].to_dataset() if "training" in branch else xr.Dataset()
        if score is None and "test_accuracy" in log:
            score = float(log["test_accuracy"].values[-1])
        steps.setdefault(condition, []).append(step)
        scores.setdefault(condition, []).append(np.nan if score is None else score)
    return {
        "step": ("rule", [float(np.mean(of)) for of in steps.values()]),
        "accuracy": ("rule", [float(np.mean(of)) for of in scores.values()]),
    }


def _last_step(run: xr.Dataset) -> float:
    return float(run["step"].values.max()) if "step" in run.coords else np.nan


def _sentences(result: xr.Dataset, attrs: dict[str, Any]) -> list[str]:
    """Return what one comparison found, at each moment that can find anything."""
    moments = [str(moment) for moment in result["moment"].values]
    if attrs["smallest_p"] > LEVEL:
        return [describe(result.isel(moment=0).assign_attrs(attrs))]
    found = []
    for moment in moments:
        one = result.sel(moment=moment)
        where = moment.capitalize()
        if np.isfinite(one["accuracy"].values).all():
            rules = zip(
                (attrs["rule_a"], attrs["rule_b"]),
                one["accuracy"].values,
                one["step"].values,
                strict=True,
            )
            taken = [f"{rule} {a:.3f} at step {s:.0f}" for rule, a, s in rules]
            gap = float(np.ptp(one["accuracy"].values))
            if moment == "equal accuracy" and gap > NEAR:
                taken.append(f"not equal: the nearest recorded are {gap:.3f} apart")
            where += f" (test accuracy {', '.join(taken)})"
        found.append(f"{where}: {describe(one.assign_attrs(attrs))}")
    return found


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: CKA within the reference and between rules, by layer."""
    rules, moments = result["condition"].values, result["moment"].values
    figure, axes = plt.subplots(
        len(rules), len(moments),
        figsize=(max(6.5, 4.8 * len(moments)), 1.0 + 3.0 * len(rules)),
        squeeze=False, sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    for row, rule in zip(axes, rules, strict=True):
        for ax, moment in zip(row, moments, strict=True):
            _panel(ax, result.sel(condition=rule, moment=moment), str(rule))
            reference = result.attrs["reference"]
            ax.set_title(f"{reference} and {rule}, {moment}", fontsize=10)
    for ax in axes[:, 0]:
        ax.set_ylabel("CKA of matching layers")
    for ax in axes[-1]:
        ax.tick_params(axis="x", rotation=60)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=3 if len(moments) > 1 else 2,
        frameon=False,
    )
    return {"seeds": figure}


def _panel(ax: Axes, one: xr.Dataset, rule: str) -> None:
    x = np.arange(one.sizes["layer"])
    within, spread = one["within"].values, one["deviation"].values
    between = one["between"].values
    ax.fill_between(
        x, within - spread, within + spread, color="0.85",
        label="pairs of one rule, ± 1 standard deviation",
    )  # fmt: skip
    ax.plot(x, one["within_a"].values, "-", color="0.3", label="within the reference")
    ax.plot(x, one["within_b"].values, ":", color="0.3", label="within the other rule")
    ax.plot(x, between, "o-", color="C3", mfc="white", label="between the rules")
    middle = between + one["difference"].values
    ax.vlines(
        x, middle - one["high"].values, middle - one["low"].values, color="C3", lw=1,
        label="interval of the difference, 95 %",
    )  # fmt: skip
    kinds = findings(one, LEVEL).values
    place, loose = (np.array([k in one for one in kinds]) for k in ("place", "spread"))
    ax.plot(x[place], between[place], "o", color="C3", label=f"place, q ≤ {LEVEL:g}")
    ax.plot(
        x[loose], within[loose], "s", color="0.3", mfc="white",
        label=f"spread, q ≤ {LEVEL:g}",
    )  # fmt: skip
    ax.set_xticks(x, [str(name) for name in one["layer"].values])
    ax.grid(alpha=0.3)


def caption(result: xr.Dataset) -> str:
    """Return the caption: the conclusion first, then how to read the figure."""
    reference = result.attrs["reference"]
    return (
        "\n".join(result.attrs["sentences"])
        + "\nDebiased linear CKA of matching layers "
        f"between networks, all in pairs that do not share an initialisation. Grey: "
        f"pairs of networks of one rule, the reference that any difference must be "
        f"held against (solid {reference}, dotted the other rule, band one standard "
        "deviation of the pairs). Red: pairs across the two rules, with the interval "
        "of their difference from the mean of both rules' own pairs; filled where the "
        "rules differ in place, squares where one rule's networks vary more than the "
        "other's, both by more than permuting the rules' names over whole networks "
        "explains, at a false discovery rate of 5 % over both findings, all layers, "
        "rules and moments of this figure. Equal accuracy compares each network at "
        "the recorded step whose test accuracy is nearest to the highest that all "
        f"networks of the two rules reach. {result.attrs['note']}"
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return layers that differ, the largest effect and the sentences."""
    numbers: dict[str, Any] = {"sentences": list(result.attrs["sentences"])}
    for rule in result["condition"].values:
        for moment in result["moment"].values:
            one = result.sel(condition=rule, moment=moment)
            q, effect = one["q_value"].values, one["effect"].values
            numbers[f"{result.attrs['reference']}–{rule}, {moment}"] = {
                "layers_that_differ": int((q <= LEVEL).sum()),
                "layers_that_differ_in_spread": int(
                    (one["spread_q_value"].values <= LEVEL).sum()
                ),
                "finding": findings(one, LEVEL).values.tolist(),
                "omnibus_p": float(one["omnibus_p"]),
                "layers": int(np.isfinite(q).sum()),
                "largest_effect": _rounded(effect),
                "smallest_q": None if np.isnan(q).all() else float(np.nanmin(q)),
            }
    return numbers


def _rounded(effect: np.ndarray) -> float | None:
    return round(float(np.nanmax(effect)), 2) if np.isfinite(effect).any() else None
