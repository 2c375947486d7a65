"""Loss and accuracy while training: geometry is compared knowing how well each does."""

from collections.abc import Mapping
from typing import Any

import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from repsim.analyses import _study
from repsim.plot.style import palette, panels

TITLE = "Learning curves"
ORDER = 10


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return loss, training and test accuracy over (condition, seed, step)."""
    record = _study.training(study)
    wanted = ["loss", "accuracy", "test_accuracy"]
    result = record[[name for name in wanted if name in record]]
    return result.assign_attrs(_study.provenance(analysis="learning_curves"))


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: loss, training accuracy and test accuracy over updates."""
    titles = {
        "loss": "training loss",
        "accuracy": "training accuracy",
        "test_accuracy": "test accuracy",
    }
    names = [name for name in titles if name in result]
    figure, axes = panels(len(names), width=4.2, height=3.4)
    colours = palette(result["condition"].values)
    for ax, name in zip(axes, names, strict=True):
        frame = result[name].to_dataframe().reset_index().dropna(subset=[name])
        sns.lineplot(
            frame,
            x="step",
            y=name,
            hue="condition",
            style="condition",
            # A deviation would go below zero, where the axis has no place for it.
            errorbar=("pi", 100) if name == "loss" else "sd",
            palette=colours,
            ax=ax,
            legend=name == names[0],
        )
        ax.set(title=titles[name], xlabel="updates", ylabel="")
        if name == "loss":
            ax.set_yscale("log")
        else:
            ax.set_ylim(0, 1.02)
    sns.despine(figure)
    return {"learning_curves": figure}


def claim(result: xr.Dataset) -> str:
    """Return how well each condition does in the end."""
    final = result["test_accuracy"].isel(step=-1).mean("seed")
    names = final["condition"].values
    each = [f"{name} {float(final.sel(condition=name)):.3f}" for name in names]
    return f"Final test accuracy: {_study.listed(each)}"


def cautions(result: xr.Dataset) -> list[str]:
    """Say where conditions are compared at unequal accuracy."""
    final = result["test_accuracy"].isel(step=-1).mean("seed")
    gap = float(final.max() - final.min())
    if gap <= 0.02:
        return []
    return [
        f"Final test accuracies are up to {gap:.3f} apart: the comparison at equal "
        "accuracy is the fairer one."
    ]


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return "Line: mean over networks; band: their range (loss), one standard deviation."


def details(result: xr.Dataset) -> str:
    """Return how to read it, with each condition's final test accuracy."""
    final = result["test_accuracy"].isel(step=-1)
    said = "; ".join(
        f"{name}: {_study.spread(final.sel(condition=name))}"
        for name in final["condition"].values
    )
    return (
        "Loss and accuracy at the recorded updates; line: mean over seeds, band: the "
        "range of seeds (loss) or one standard deviation. Final test accuracy (mean ± "
        f"sd over seeds): {said}. "
        "Representations at unequal accuracy answer another question than at equal "
        "accuracy; read the pictures below with these numbers in mind."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return mean and spread of the final test accuracy by condition."""
    final = result["test_accuracy"].isel(step=-1)
    return {
        str(name): {
            "mean": float(final.sel(condition=name).mean()),
            "sd": float(final.sel(condition=name).std(ddof=1))
            if int(final.sel(condition=name).notnull().sum()) > 1
            else None,
        }
        for name in final["condition"].values
    }
