"""Linear probes along depth: what each layer makes linearly readable."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.datasets.recordings import networks
from repsim.plot.style import panels, share_legend
from repsim.probes import probe_input, probe_layers

TITLE = "Linear probes"
ORDER = 60
TEST_SIZE = 0.5
SEED = 0


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return what linear probes read per layer, with their baselines."""
    last: dict[str, xr.Dataset] = {}
    begin: dict[str, xr.Dataset] = {}
    reference, one = next((key[0], run) for key, run in networks(study).items())
    target, numeric = _study.target(study, one), _study.is_numeric(study, one)
    for (condition, seed), run in networks(study).items():
        _study.target(study, run)  # refuses a recording that has none
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
    options: dict[str, Any] = {"test_size": TEST_SIZE, "seed": SEED}
    options |= {"task": "regression"} if numeric else {}
    try:
        result = probe_layers(
            xr.DataTree.from_dict(moments), target, groups=kin, **options
        )
        if "input" in study.data_vars:
            pixels = probe_input(study, target, **options)
            for name in _panels(result):
                result[f"input_{name}"] = pixels[name]
    except ValueError as error:
        raise NotApplicable(str(error)) from error
    if "output" in result.dims:  # several numbers at once: their mean
        result = result.mean("output", keep_attrs=True)
    result["chance"] = result["chance"].isel(condition=0).mean()
    return result.assign_attrs(
        _study.provenance(analysis="probe", **_study.split_attrs(study))
    )


def _panels(result: xr.Dataset) -> tuple[str, str]:
    """Return the score that is drawn left, and the error that is drawn right."""
    return ("accuracy", "log_loss") if "accuracy" in result else ("r2", "rmse")


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: held-out score and error along depth by condition."""
    figure, axes = panels(2, width=5.5, height=4.2)
    score, error = _panels(result)
    references: dict[str, dict[str, float | xr.DataArray]] = {
        score: {"best constant": float(result["chance"])},
        error: {},
    }
    if error == "log_loss":
        constant = float(result["chance_log_loss"].mean())
        references[error]["best constant"] = constant
    for ax, (name, levels) in zip(axes, references.items(), strict=True):
        if f"input_{name}" in result:
            levels["input"] = float(result[f"input_{name}"])
        plot.layer_curve(
            result[name], ax=ax, baselines=levels, splits=_study.marks(result)
        )
    if error == "log_loss":
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
    what = "the class best" if "accuracy" in result else "the target best (R²)"
    return f"A linear probe reads {what} from: {each}{pixels}"


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    if "accuracy" in result:
        return "a: held-out accuracy; b: held-out log loss, logarithmic."
    return "a: held-out R² (higher is better); b: held-out RMSE (lower is)."


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    held = result.attrs["n_test"]
    score, _ = _panels(result)
    pixels = (
        ", and of the same probe on the input" if f"input_{score}" in result else ""
    )
    after = (
        "Line: mean over seeds, band: one standard "
        "deviation; 'untrained' is the first condition before its first update. "
        "Horizontal lines: scores of "
        f"the best answer that needs no input{pixels}. Every probe is fitted to the "
        f"same {result.attrs['n_train']} examples and tested on the same {held}"
    )
    reads = ". What a probe reads says what is there, not what the network uses."
    if score == "r2":
        return (
            "Linear probes: what a ridge regression (its penalty chosen by leaving one "
            "out, one scale for each layer) reads of the target of held-out inputs "
            "from a layer's activations, by layer, at the last recorded step. a: "
            "the share of the target's variance that it explains, R², below 0 where "
            "it is worse than the mean. b: its root mean squared error, in the "
            f"target's unit. {after}{reads}"
        )
    error = 0.5 / np.sqrt(held)
    return (
        "Linear probes: what a logistic regression (C = 1, one scale for each layer) "
        "reads of the class of held-out inputs from a layer's activations, by layer, "
        "at the last recorded step. a: the share it names rightly. b, on a "
        "logarithmic axis: its log loss, which still tells layers apart where "
        f"accuracies are saturated. {after}, so "
        f"one accuracy carries a sampling error of up to {error:.3f}{reads}"
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return each condition's mean score at its best, first and last layer."""
    score, _ = _panels(result)
    mean = result[score].mean("seed")
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
    if f"input_{score}" in result:
        numbers["input"] = round(float(result[f"input_{score}"]), 4)
    numbers["chance"] = round(float(result["chance"]), 4)
    return numbers
