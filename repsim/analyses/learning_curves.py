"""Loss and score while training: geometry is compared knowing how well each does."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from repsim.analyses import NotApplicable, _study
from repsim.core.scoring import score_of
from repsim.plot.style import palette, panels

TITLE = "Learning curves"
ORDER = 10
NEAR = 0.02
"""Final scores farther apart (of their size, where they are no shares) are told."""


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return loss, training and test score over (condition, seed, step)."""
    record = _study.training(study)
    score = _study.score(study)
    if score.test not in record:
        msg = f"Expected training records with `{score.test}`, but they have none."
        raise NotApplicable(msg)
    wanted = ["loss", score.name, score.test]
    result = record[[name for name in wanted if name in record]]
    attrs = _study.provenance(analysis="learning_curves", **score.attrs)
    return result.assign_attrs(attrs)


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: loss, training score and test score over updates."""
    score = score_of(result.attrs)
    titles = {
        "loss": "training loss",
        score.name: f"training {score.words}",
        score.test: f"test {score.words}",
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
        elif score.share:
            # A share that is explained may begin far below zero.
            ax.set_ylim(max(-1.0, min(0.0, float(frame[name].min()))), 1.02)
    sns.despine(figure)
    return {"learning_curves": figure}


def _final(result: xr.Dataset) -> xr.DataArray:
    return result[score_of(result.attrs).test].isel(step=-1)


def claim(result: xr.Dataset) -> str:
    """Return how well each condition does in the end."""
    score, final = score_of(result.attrs), _final(result).mean("seed")
    names = final["condition"].values
    each = [f"{name} {float(final.sel(condition=name)):.3f}" for name in names]
    way = "" if score.larger_is_better else f" ({score.direction})"
    return f"Final test {score.words}{way}: {_study.listed(each)}"


def cautions(result: xr.Dataset) -> list[str]:
    """Say where conditions are compared at unequal score."""
    score, final = score_of(result.attrs), _final(result).mean("seed")
    gap = float(final.max() - final.min())
    if gap <= NEAR * score.unit(final.values):
        return []
    plural = "accuracies" if score.name == "accuracy" else f"values of {score.words}"
    return [
        f"Final test {plural} are up to {gap:.3f} apart: the comparison at equal "
        f"{score.words} is the fairer one."
    ]


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return "Line: mean over networks; band: their range (loss), one standard deviation."


def details(result: xr.Dataset) -> str:
    """Return how to read it, with each condition's final test score."""
    score, final = score_of(result.attrs), _final(result)
    said = "; ".join(
        f"{name}: {_study.spread(final.sel(condition=name))}"
        for name in final["condition"].values
    )
    below = ""
    if score.share and bool((result[score.test] < -1).any()):
        below = f" Values of {score.words} below −1 are not drawn."
    return (
        f"Loss and {score.words} ({score.direction}) at the recorded updates; line: "
        "mean over seeds, band: the range of seeds (loss) or one standard deviation."
        f"{below} Final test {score.words} (mean ± sd over seeds): {said}. "
        f"Representations at unequal {score.words} answer another question than at "
        f"equal {score.words}; read the pictures below with these numbers in mind."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return mean and spread of the final test score by condition."""
    score, final = score_of(result.attrs), _final(result)
    numbers = {}
    for name in final["condition"].values:
        one = final.sel(condition=name)
        several = int(np.isfinite(one.values).sum()) > 1
        numbers[str(name)] = {
            "mean": float(one.mean()),
            "sd": float(one.std(ddof=1)) if several else None,
            "score": f"test {score.words}",
        }
    return numbers
