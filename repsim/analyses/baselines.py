"""What a layer shares with the pixels and with its own untrained self."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.comparison.all_pairs import compare
from repsim.datasets.recordings import layers, networks
from repsim.plot.style import panels, share_legend

TITLE = "What was there before training"
ORDER = 35

KINDS = ("pixels", "untrained self", "untrained and pixels")


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return debiased CKA of trained layers with pixels and their step 0."""
    pixels = _pixels(study)
    rows: dict[str, dict[str, xr.DataArray]] = {}
    for (condition, seed), run in networks(study).items():
        trained, untrained = _study.last(run).load(), _study.first(run)
        names = layers(run)
        curves = [
            _against(trained, pixels, names),
            _to_itself(trained, untrained, names),
            _against(untrained, pixels, names),
        ]
        rows.setdefault(condition, {})[seed] = xr.DataArray(
            np.array(curves), {"baseline": list(KINDS), "layer": names}
        )
    cells = _study.stack(rows).transpose("baseline", "condition", "seed", "layer")
    if not bool(cells.notnull().any()):
        msg = "Expected recorded inputs or a step 0 in the study, but it has neither."
        raise NotApplicable(msg)
    return xr.Dataset(
        {"cka": cells},
        attrs=_study.provenance(
            analysis="baselines", measure="cka", **_study.split_attrs(study)
        ),
    )


def _pixels(study: xr.DataTree) -> xr.Dataset | None:
    root = study.to_dataset()
    if "input" not in root:
        return None
    return root[["input"]].rename_dims({root["input"].dims[-1]: "input_unit"}).load()


def _against(
    run: xr.Dataset | None, pixels: xr.Dataset | None, names: list[str]
) -> np.ndarray:
    if run is None or pixels is None or run.sizes["example"] != pixels.sizes["example"]:
        return np.full(len(names), np.nan)
    similarity = compare(run, pixels, "cka", layers=names, layers_b=["input"])
    return np.asarray(similarity.values[:, 0])


def _to_itself(
    run: xr.Dataset, untrained: xr.Dataset | None, names: list[str]
) -> np.ndarray:
    if untrained is None:
        return np.full(len(names), np.nan)
    similarity = compare(run, untrained.load(), "cka", layers=names)
    return np.asarray(np.diagonal(similarity.values))


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: a panel a baseline that the study has."""
    there = [k for k in KINDS if bool(result["cka"].sel(baseline=k).notnull().any())]
    figure, axes = panels(len(there), sharey=True)
    for ax, kind in zip(axes, there, strict=True):
        curve = result["cka"].sel(baseline=kind, drop=True)
        curve = curve.assign_attrs(long_name="debiased CKA")
        plot.layer_curve(curve, ax=ax, splits=_study.marks(result))
        ax.set_title(kind)
    share_legend(figure)
    return {"baselines": figure}


def claim(result: xr.Dataset) -> str:
    """Return how much of the untrained network each rule keeps."""
    kept = result["cka"].mean(("seed", "layer"))
    kind = next(k for k in KINDS[1::-1] if bool(kept.sel(baseline=k).notnull().any()))
    values = kept.sel(baseline=kind)
    each = _study.listed(
        f"{c} {float(values.sel(condition=c)):.2f}" for c in values["condition"].values
    )
    what = "their untrained selves" if kind == KINDS[1] else "the pixels"
    return f"Trained layers share with {what} (mean CKA): {each}"


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return "Debiased CKA by layer; line: mean over networks, band: one sd."


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    return (
        "Debiased linear CKA of each layer after training with the input pixels, with "
        "the same layer of the same network before training, and, for comparison, of "
        "the untrained layer with the pixels. Line: mean over seeds, band: one "
        "standard deviation. What two trained networks share may be no more than what "
        "they both kept of the pixels or of a random projection of them."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return each condition's mean over layers and seeds, by baseline."""
    mean = result["cka"].mean(("seed", "layer"))
    return {
        str(condition): {
            kind: round(float(mean.sel(condition=condition, baseline=kind)), 4)
            for kind in KINDS
            if bool(mean.sel(condition=condition, baseline=kind).notnull())
        }
        for condition in mean["condition"].values
    }
