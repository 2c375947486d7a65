"""Every layer against dissimilarities that were measured, such as a brain's."""

import warnings
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.datasets.recordings import networks
from repsim.geometry.ceilings import noise_ceiling
from repsim.geometry.regression import partial_rsa
from repsim.geometry.stacks import rdms
from repsim.inference import false_discovery, profile_test
from repsim.inference.nearness import Nearness, difference
from repsim.measures.dissimilarity.comparators import compare_rdms
from repsim.plot.style import figure_of, panels, share_legend

TITLE = "How near each layer comes to the measured geometry"
ORDER = 3
LEVEL = 0.05


def compute(study: xr.DataTree) -> xr.Dataset:
    """Compare all layers at all steps with the measured RDMs of the study's root."""
    root = study.to_dataset()
    if "measured_rdm" not in root:
        msg = "No measured RDMs were given (repsim study --rdm FILE)."
        raise NotApplicable(msg)
    measured = root["measured_rdm"].values
    pixels = _pixels(root)
    near: dict[str, dict[str, xr.DataArray]] = {}
    beyond: dict[str, dict[str, xr.DataArray]] = {}
    ends: dict[str, Nearness] = {}
    kinds: set[tuple[str, ...]] = set()
    for (condition, seed), run in networks(study).items():
        stack = rdms(run.load(), layers=_study.spread_out(run))
        near.setdefault(condition, {})[seed] = _against(stack, measured)
        end = _last(stack)
        # Tokens of one input are no stimuli of their own.
        kinds.add(("tokens",) if _study.kin(run) else tuple(end["layer"].values))
        if len(kinds) == 1:
            ends.setdefault(condition, Nearness()).add(end.values, measured)
        if pixels is not None:
            beyond.setdefault(condition, {})[seed] = _beyond(stack, measured, pixels)
    result = xr.Dataset({"rsa": _study.stack(near)})
    if beyond:
        result["partial"] = _study.stack(beyond)
    attrs = {"subjects": len(measured), "examples": root.sizes.get("example", 0)}
    if len(measured) > 1:
        bounds = noise_ceiling(
            xr.DataArray(measured, dims=("subject", "pair")), dim="subject"
        )
        result["lower"], result["upper"] = bounds["lower"], bounds["upper"]
    tests = _tests(study, _last(result["rsa"]))
    if tests is not None:
        result = result.assign(
            {name: tests[name] for name in ("difference", "p_value", "q_value")}
        )
    if len(kinds) == 1 and ("tokens",) not in kinds:
        result = _over_both(result, ends)
    return result.assign_attrs(
        _study.provenance(
            analysis="measured_geometry", metric="correlation", method="spearman",
            **attrs, **_study.split_attrs(study),
        )
    )  # fmt: skip


def _bare(stack: xr.DataArray) -> xr.DataArray:
    return stack.reset_coords(drop=True).drop_attrs()


def _against(stack: xr.DataArray, measured: np.ndarray) -> xr.DataArray:
    """Return the rank correlation with each subject's RDM, its mean over subjects."""
    lead = stack.dims[:-1]
    flat = stack.values.reshape(-1, stack.sizes["pair"])
    correlations = np.asarray(compare_rdms(flat, measured)).mean(1)
    shape = [stack.sizes[dim] for dim in lead]
    coords = {dim: stack[dim].values for dim in lead}
    return xr.DataArray(correlations.reshape(shape), coords, lead)


def _beyond(
    stack: xr.DataArray, measured: np.ndarray, pixels: xr.DataArray
) -> xr.DataArray:
    """Return the partial correlation with the subjects' mean RDM, a step at a time.

    Pairs without a distance leave all RDMs of one call, so no step decides for others.
    """
    mean = xr.DataArray(measured.mean(0), dims="pair")
    if "step" not in stack.dims:
        return partial_rsa(_bare(stack), mean, pixels)
    moments = [
        partial_rsa(_bare(stack.isel(step=k)), mean, pixels)
        for k in range(stack.sizes["step"])
    ]
    return xr.concat(moments, xr.Variable("step", stack["step"].values))


def _pixels(root: xr.Dataset) -> xr.DataArray | None:
    if "input" not in root:
        return None
    inputs = root[["input"]].rename_dims({root["input"].dims[-1]: "input_unit"}).load()
    return _bare(rdms(inputs.reset_coords(drop=True)).isel(layer=0))


def _last(values: xr.DataArray) -> xr.DataArray:
    return values.isel(step=-1, drop=True) if "step" in values.dims else values


def _tests(study: xr.DataTree, near: xr.DataArray) -> xr.Dataset | None:
    """Return tests of every rule against the first, over networks."""
    reference, *others = [str(name) for name in near["condition"].values]
    if not others or near.sizes["seed"] < 2:
        return None
    inits = {
        (c, s): _study.initialisation(run) for (c, s), run in networks(study).items()
    }
    flat = near.stack(network=("condition", "seed")).dropna("network", how="all")
    keys = [(str(c), str(s)) for c, s in flat["network"].values]
    begun = [inits.get(key) for key in keys]
    table = flat.drop_vars(["network", "condition", "seed"]).assign_coords(
        condition=("network", [c for c, _ in keys]),
        init_seed=("network", [np.nan if b is None else float(str(b)) for b in begun]),
    )
    with warnings.catch_warnings():
        # Too few networks: the caption says it.
        warnings.simplefilter("ignore", UserWarning)
        rows = [profile_test(table, reference, rule) for rule in others]
    result = xr.concat(rows, xr.Variable("rule", others), combine_attrs="drop")
    able = xr.DataArray([r.attrs["smallest_p"] <= LEVEL for r in rows], dims="rule")
    q = false_discovery(result["p_value"].where(able).values)
    return result.assign(q_value=result["q_value"].copy(data=q))


def _over_both(result: xr.Dataset, ends: Mapping[str, Nearness]) -> xr.Dataset:
    """Add every two rules' differences over networks and stimuli, (rules, layer)."""
    pairs = [
        (a, b) for a, b in combinations(ends, 2) if ends[a].enough and ends[b].enough
    ]
    if not pairs:
        return result
    found = [difference(ends[a], ends[b]) for a, b in pairs]
    for name in found[0]:
        rows = np.array([one[name] for one in found])
        result[f"both_{name}"] = ("rules", "layer"), rows
    q = false_discovery(result["both_p_value"].values)
    result["both_q_value"] = ("rules", "layer"), q
    return result.assign_coords(rules=[f"{b} and {a}" for a, b in pairs])


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return the curves along depth with the noise ceiling, and over training."""
    names = [name for name in ("rsa", "partial") if name in result]
    figure, axes = panels(len(names), width=5.5, height=3.8, columns=2)
    for ax, name in zip(axes, names, strict=True):
        words = {"rsa": "rank correlation", "partial": "the same, pixels taken out"}
        curve = _last(result[name]).assign_attrs(long_name=words[name])
        levels = {}
        if "step" in result["rsa"].dims and _starts_untrained(result):
            start = result[name].isel(step=0, drop=True)
            levels["untrained"] = start.mean(("condition", "seed"))
        plot.layer_curve(curve, ax=ax, baselines=levels, splits=_study.marks(result))
        if name == "rsa" and "lower" in result:
            ax.axhspan(
                float(result["lower"]), float(result["upper"]), color="0.85", zorder=0
            )
    share_legend(figure)
    drawn = {"measured_geometry": figure}
    if result["rsa"].sizes.get("step", 1) > 1:
        cells = result["rsa"].mean("seed").transpose("condition", "layer", "step")
        over = plot.heatmaps(
            cells.assign_attrs(long_name="rank correlation"), col="condition"
        )
        drawn["measured_geometry_over_training"] = figure_of(over)
    return drawn


def _starts_untrained(result: xr.Dataset) -> bool:
    return int(result["step"].values[0]) == 0


def claim(result: xr.Dataset) -> str:
    """Return where each rule comes nearest, against the ceiling."""
    mean = _last(result["rsa"]).mean("seed")
    each = []
    for name in mean["condition"].values:
        along = mean.sel(condition=name).dropna("layer")
        best = int(along.argmax("layer"))
        each.append(f"{name} {float(along[best]):.3f} ({along['layer'].values[best]})")
    ceiling = ""
    if "lower" in result:
        low, high = float(result["lower"]), float(result["upper"])
        ceiling = f"; the noise ceiling is {low:.3f} to {high:.3f}"
    text = f"Nearest to the measured geometry: {_study.listed(each)}{ceiling}"
    return text.replace("-", "−")


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return (
        "Spearman correlation of each layer's RDM with the measured one; grey: noise "
        "ceiling; b: partial correlation given the pixels."
    )


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    text = (
        "Rank correlation between the correlation-distance RDM of a layer and each "
        f"subject's measured RDM, mean over {result.attrs['subjects']} subject(s). "
        "Line: mean over networks, band: one standard deviation; the untrained network "
        "is what architecture and input alone give. "
    )
    if "lower" in result:
        text += (
            "No model can be expected above the grey band, the range of the noise "
            "ceiling (Nili et al. 2014). "
        )
    if "q_value" in result:
        reference = str(result["condition"].values[0])
        for rule in result["rule"].values:
            q = result["q_value"].sel(rule=rule)
            if not bool(q.notnull().any()):
                text += f"{rule} and {reference}: too few networks to test. "
                continue
            at = [str(v) for v in result["layer"].values[(q <= LEVEL).values]]
            text += (
                f"{rule} differs from {reference} in {len(at)} of {q.size} layers "
                f"({', '.join(at)}). "
                if at
                else f"{rule} and {reference}: no layer differs by more than seeds do. "
            )
    return text + "".join(f"{said} " for said in _told(result))


def _told(result: xr.Dataset) -> list[str]:
    """Return what holds for other networks and stimuli: a sentence a finding."""
    if "both_q_value" not in result:
        return []
    said, alike = [], []
    for rules in result["rules"].values:
        one = result.sel(rules=rules)
        sure = (one["both_q_value"] <= LEVEL).values
        if not sure.any():
            alike.append(str(rules))
            continue
        sizes = np.where(sure, np.abs(one["both_difference"].values), -1.0)
        at = int(sizes.argmax())
        names = [str(v) for v in result["layer"].values[sure]]
        middle, low, high = (
            f"{float(one[f'both_{k}'][at]):.3f}".replace("-", "−")
            for k in ("difference", "low", "high")
        )
        said.append(
            f"Over networks and stimuli, {rules} differ in {len(names)} of {sure.size} "
            f"layers ({', '.join(names)}; at {result['layer'].values[at]} {middle} "
            f"[{low}, {high}])."
        )
    if alike:
        pairs = ", ".join(alike)
        said.append(f"Over networks and stimuli, no layer differs between {pairs}.")
    return said


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return the nearest layer of each rule, and the ceiling."""
    mean = _last(result["rsa"]).mean("seed")
    numbers: dict[str, Any] = {}
    for name in mean["condition"].values:
        along = mean.sel(condition=name).dropna("layer")
        best = int(along.argmax("layer"))
        numbers[str(name)] = {
            "nearest": round(float(along[best]), 4),
            "nearest_at": str(along["layer"].values[best]),
        }
    if "lower" in result:
        numbers["noise_ceiling"] = [
            round(float(result[k]), 4) for k in ("lower", "upper")
        ]
    return numbers
