"""Whether numbers along depth differ between rules by more than between seeds."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeClassifier

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.datasets.recordings import layers, networks
from repsim.geometry.stacks import class_margin, rdm_distance, rdms
from repsim.inference import describe, false_discovery, profile_test
from repsim.plot.style import palette, panels, share_legend
from repsim.probes import probe_layers

TITLE = "Do depth profiles differ by more than seeds do?"
ORDER = 2

LEVEL = 0.05
WORDS = {
    "class_margin": "class margin",
    "rdm_to_last": "distance of the RDM to the last layer's",
    "displacement": "displacement of the weights",
    "probe_accuracy": "held-out accuracy of a ridge probe",
    "probe_r2": "held-out R² of a ridge probe",
}
UNITS = {
    "class_margin": " (1 − r)",
    "displacement": "\n‖W − W₀‖ / ‖W₀‖",
}


def profiles(study: xr.DataTree, *, probes: bool = True) -> xr.Dataset:
    """Return numbers along depth of every network at its last moment."""
    rows, place = [], []
    for (condition, seed), run in networks(study).items():
        rows.append(_profile(study, condition, seed, _study.last(run).load(), probes))
        place.append((condition, seed, _study.initialisation(run)))
    statistics = xr.concat(rows, "network", join="outer", combine_attrs="drop")
    inits = [np.nan if init is None else float(str(init)) for _, _, init in place]
    return statistics.assign_coords(
        condition=("network", [c for c, _, _ in place]),
        seed=("network", [s for _, s, _ in place]),
        init_seed=("network", inits),
    )


def _profile(
    study: xr.DataTree, condition: str, seed: str, run: xr.Dataset, probes: bool
) -> xr.Dataset:
    geometry = rdms(run, metric="correlation", layers=_study.spread_out(run))
    distance = rdm_distance(geometry, metric="correlation")
    # Of the last layer it is zero by definition, and its round-off tells nothing.
    curves = {"rdm_to_last": distance.where(distance["layer"] != distance["layer"][-1])}
    kin = _study.kin(run)
    if _study.is_numeric(study, run):
        if probes:
            target = _study.target(study, run)
            ridge = probe_layers(run, target, task="regression", groups=kin)
            r2 = ridge["r2"]
            curves["probe_r2"] = r2.mean("output") if "output" in r2.dims else r2
    elif "label" in run.coords:
        curves["class_margin"] = class_margin(geometry)
        if probes:
            # A ridge probe has a closed form: logistic ones would take a minute here.
            ridge = probe_layers(run, estimator=RidgeClassifier(), groups=kin)
            curves["probe_accuracy"] = ridge["accuracy"]
    branch = study[f"{condition}/{seed}"].children
    record = branch["training"].to_dataset() if "training" in branch else xr.Dataset()
    if "displacement" in record:
        moved = record["displacement"]
        if "step" in moved.dims:
            at = (
                run["step"].item() if "step" in run.coords else moved["step"].values[-1]
            )
            moved = moved.sel(step=at)
        known = [name for name in layers(run) if name in moved["layer"].values]
        curves["displacement"] = moved.sel(layer=known).load()
    plain = {
        name: one.reset_coords(drop=True).drop_attrs() for name, one in curves.items()
    }
    return xr.Dataset(plain).reindex(layer=layers(run))


def compute(study: xr.DataTree) -> xr.Dataset:
    """Test every condition's profiles against the first's."""
    conditions = list(dict.fromkeys(condition for condition, _ in networks(study)))
    if len(conditions) < 2:
        msg = f"Expected at least two conditions, but the study has {conditions[0]!r}."
        raise NotApplicable(msg)
    statistics = profiles(study)
    reference, *others = conditions
    table = statistics.to_dataarray("statistic", name="profile")
    rows = []
    with warnings.catch_warnings():
        # The sentence says it.
        warnings.simplefilter("ignore", UserWarning)
        try:
            for rule in others:
                rows.append(profile_test(table, reference, rule, level=LEVEL))
        except ValueError as error:
            # Networks without a single number, such as constant ones.
            raise NotApplicable(str(error)) from error
    result = xr.concat(rows, xr.Variable("rule", others), combine_attrs="drop")
    attrs = [row.attrs for row in rows]
    able = xr.DataArray([one["smallest_p"] <= LEVEL for one in attrs], dims="rule")
    q = false_discovery(result["p_value"].where(able).values)
    result["q_value"] = result["q_value"].copy(data=q)
    result = result.transpose("statistic", "rule", "layer")
    sentences = [
        sentence
        for rule, one in zip(others, attrs, strict=True)
        for sentence in _sentences(result.sel(rule=rule).assign_attrs(one))
    ]
    result["profile"] = _by_seed(table)
    result.attrs = _study.provenance(
        analysis="depth_profiles", reference=reference, level=LEVEL,
        smallest_p=[one["smallest_p"] for one in attrs], sentences=sentences,
        **_study.split_attrs(study),
    )  # fmt: skip
    return result


def _sentences(result: xr.Dataset) -> list[str]:
    """Return what two rules' profiles say, once where they cannot say anything."""
    sentences = [
        f"{_title(str(name))}: {describe(result.sel(statistic=name))}"
        for name in result["statistic"].values
    ]
    if result.attrs["smallest_p"] > LEVEL:
        return [describe(result.isel(statistic=0))]
    return sentences


def _title(name: str) -> str:
    words = WORDS.get(name, name)
    return words[0].upper() + words[1:]


def _by_seed(table: xr.DataArray) -> xr.DataArray:
    """Return profiles over (statistic, condition, seed, layer)."""
    rows: dict[str, dict[str, xr.DataArray]] = {}
    for index in range(table.sizes["network"]):
        one = table.isel(network=index)
        place = str(one["condition"].item()), str(one["seed"].item())
        rows.setdefault(place[0], {})[place[1]] = one.reset_coords(drop=True)
    order = ("statistic", "condition", "seed", "layer")
    return _study.stack(rows).transpose(*order)


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: a panel a statistic, layers that differ marked beneath."""
    names = [str(name) for name in result["statistic"].values]
    figure, axes = panels(len(names), width=5.5, height=3.8, columns=2)
    colours = palette(result["condition"].values)
    for ax, name in zip(axes, names, strict=True):
        curve = result["profile"].sel(statistic=name, drop=True)
        curve = curve.assign_attrs(
            long_name=WORDS.get(name, name) + UNITS.get(name, "")
        )
        plot.layer_curve(curve, ax=ax, splits=_study.marks(result))
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.03 * (len(result["rule"]) + 1) * (high - low), high)
        for place, rule in enumerate(result["rule"].values):
            q = result["q_value"].sel(statistic=name, rule=rule).values
            x = np.flatnonzero(q <= LEVEL)
            colour = colours[str(rule)]
            height = np.full(len(x), 0.02 + 0.03 * place)
            ax.plot(
                x, height, "s", ms=4, color=colour, transform=ax.get_xaxis_transform()
            )
    share_legend(figure)
    return {"depth_profiles": figure}


def claim(result: xr.Dataset) -> str:
    """Return in how many of the numbers each rule differs from the reference."""
    reference, total = result.attrs["reference"], result.sizes["statistic"]
    alike: dict[str, list[str]] = {}
    for rule, smallest in zip(
        result["rule"].values, result.attrs["smallest_p"], strict=True
    ):
        if smallest > LEVEL:
            alike.setdefault("cannot be tested", []).append(str(rule))
            continue
        some = (result["q_value"].sel(rule=rule) <= LEVEL).any("layer").values
        names = [WORDS.get(str(n), str(n)) for n in result["statistic"].values[some]]
        where = f"{len(names)} of {total} ({_study.listed(names)})"
        if len(names) in (0, total):
            where = f"all {total}" if names else "none"
        alike.setdefault(where, []).append(str(rule))
    parts = [f"{_study.listed(rules)} {where}" for where, rules in alike.items()]
    return f"Numbers along depth that differ from {reference}'s: {'; '.join(parts)}"


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    reference = result.attrs["reference"]
    if min(result.attrs["smallest_p"]) > LEVEL:
        return (
            f"Line: mean over networks, band: one sd. Too few networks to test which "
            f"layers differ from {reference}'s."
        )
    if not bool((result["q_value"] <= LEVEL).any()):
        return (
            "Line: mean over networks, band: one sd. No layer differs from "
            f"{reference}'s by more than seeds do (q ≤ {LEVEL:g})."
        )
    return (
        "Squares at the bottom: layers where a rule differs from "
        f"{reference} by more than seeds do (q ≤ {LEVEL:g})."
    )


def details(result: xr.Dataset) -> str:
    """Return the conclusions, and how to read the figure."""
    return (
        "\n".join(result.attrs["sentences"])
        + "\nNumbers along depth at the last step; "
        "line: mean over seeds, band: one standard deviation. Squares at the "
        "bottom, in a rule's colour: layers where it differs from "
        f"{result.attrs['reference']} by more than permuting the rules' "
        "names over whole networks explains (two-sided, false "
        "discovery rate of 5 % over all layers, rules and statistics)."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return, by statistic and rule, how many layers differ and the sentences."""
    numbers: dict[str, Any] = {"sentences": list(result.attrs["sentences"])}
    for name in result["statistic"].values:
        for rule in result["rule"].values:
            q = result["q_value"].sel(statistic=name, rule=rule).values
            numbers[f"{name}, {rule}"] = {
                "layers_that_differ": int((q <= LEVEL).sum()),
                "layers": int(np.isfinite(q).sum()),
            }
    return numbers
