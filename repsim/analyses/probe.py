"""Linear probes along depth: what each layer makes linearly readable."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.datasets.recordings import networks
from repsim.plot.style import share_legend
from repsim.probes import probe_input, probe_layers

TITLE = "Linear probes"
ORDER = 60
TEST_SIZE = 0.5
SEED = 0


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return what linear probes read per layer, with their baselines."""
    last: dict[str, xr.Dataset] = {}
    begin: dict[str, xr.Dataset] = {}
    reference = next(iter(networks(study)))[0]
    for (condition, seed), run in networks(study).items():
        if "label" not in run.coords:
            msg = "Expected recordings with a `label` coordinate, but they have none."
            raise NotApplicable(msg)
        last[f"{condition}/{seed}"] = _study.last(run)
        start = _study.first(run)
        if condition == reference and start is not None:
            begin[f"{_study.UNTRAINED}/{seed}"] = start
    # Reduced to one moment each, the recordings no longer share a `step` index.
    moments = {
        name: run.drop_vars("step", errors="ignore")
        for name, run in {**last, **begin}.items()
    }
    kin = _study.kin(next(iter(moments.values())))
    try:
        result = probe_layers(
            xr.DataTree.from_dict(moments), test_size=TEST_SIZE, seed=SEED, groups=kin
        )
        if "input" in study.data_vars:
            pixels = probe_input(study, test_size=TEST_SIZE, seed=SEED)
            for name in ("accuracy", "log_loss"):
                result[f"input_{name}"] = pixels[name]
    except ValueError as error:
        raise NotApplicable(str(error)) from error
    result["chance"] = result["chance"].isel(condition=0).mean()
    return result.assign_attrs(
        _study.provenance(analysis="probe", **_study.split_attrs(study))
    )


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: held-out accuracy and log loss along depth by condition."""
    figure, axes = plt.subplots(1, 2, figsize=(11.0, 4.2), layout="constrained")
    references: dict[str, dict[str, float | xr.DataArray]] = {
        "accuracy": {"best constant": float(result["chance"])},
        "log_loss": {"best constant": float(result["chance_log_loss"].mean())},
    }
    for ax, (name, levels) in zip(axes, references.items(), strict=True):
        if f"input_{name}" in result:
            levels["input"] = float(result[f"input_{name}"])
        plot.layer_curve(
            result[name], ax=ax, baselines=levels, splits=_study.marks(result)
        )
    axes[1].set_yscale("log")
    share_legend(figure)
    return {"probe_accuracy": figure}


def claim(result: xr.Dataset) -> str:
    """Return what is readable at the best layer."""
    numbers = summary(result)
    each = _study.listed(
        f"{name} {of['best']:.3f} ({of['best_at']})"
        for name, of in numbers.items()
        if isinstance(of, dict) and name != _study.UNTRAINED
    )
    pixels = f"; from the input {numbers['input']:.3f}" if "input" in numbers else ""
    return f"A linear probe reads the class best from: {each}{pixels}"


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return "Left: held-out accuracy; right: held-out log loss, logarithmic."


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    held = result.attrs["n_test"]
    error = 0.5 / np.sqrt(held)
    pixels = (
        ", and of the same probe on the input" if "input_accuracy" in result else ""
    )
    return (
        "Linear probes: what a logistic regression (C = 1, one scale for each layer) "
        "reads of the class of held-out images from a layer's activations, by layer, "
        "at the last recorded step. Left: the share it names rightly. Right, on a "
        "logarithmic axis: its log loss, which still tells layers apart where "
        "accuracies are saturated. Line: mean over seeds, band: one standard "
        "deviation; 'untrained' is the first condition before its first update. "
        "Horizontal lines: scores of "
        f"the best answer that needs no image{pixels}. Every probe is fitted to the "
        f"same {result.attrs['n_train']} examples and tested on the same {held}, so "
        f"one accuracy carries a sampling error of up to {error:.3f}. What a probe "
        "reads says what is there, not what the network uses."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return each condition's mean accuracy at its best, first and last layer."""
    mean = result["accuracy"].mean("seed")
    numbers: dict[str, Any] = {}
    for name in mean["condition"].values:
        along = mean.sel(condition=name)
        best = int(np.argmax(along.values))
        numbers[str(name)] = {
            "best": round(float(along.values[best]), 4),
            "best_at": str(along["layer"].values[best]),
            "first_layer": round(float(along.values[0]), 4),
            "last_layer": round(float(along.values[-1]), 4),
        }
    if "input_accuracy" in result:
        numbers["input"] = round(float(result["input_accuracy"]), 4)
    numbers["chance"] = round(float(result["chance"]), 4)
    return numbers
