"""How far each layer's weights moved from where they began."""

from collections.abc import Mapping
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.plot.style import panels, share_legend

TITLE = "Where the weights move"
ORDER = 70


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return displacement and weight norm over (condition, seed, step, layer)."""
    record = _study.training(study)
    if "displacement" not in record:
        msg = "Expected training records with `displacement`, but they have none."
        raise NotApplicable(msg)
    result = record[["displacement", "weight_norm"]]
    return result.assign_attrs(
        _study.provenance(analysis="displacement", **_study.split_attrs(study))
    )


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one figure: displacement and squared norm along depth, last step."""
    final = result.isel(step=-1)
    norm = final["weight_norm"] ** 2
    norm = (norm / norm.mean("layer")).assign_attrs(long_name="‖W‖² / mean over layers")
    moved = final["displacement"].assign_attrs(long_name="‖W − W₀‖ / ‖W₀‖")
    figure, axes = panels(2, width=5.5, height=3.8)
    plot.layer_curve(moved, ax=axes[0], splits=_study.marks(result))
    axes[0].set_title("displacement of the weights")
    plot.layer_curve(norm, ax=axes[1], splits=_study.marks(result))
    axes[1].set_title("squared norm of the weights")
    share_legend(figure)
    return {"displacement": figure}


def claim(result: xr.Dataset) -> str:
    """Return which layer's weights moved most."""
    final = result["displacement"].isel(step=-1).mean("seed")
    each = []
    for name in final["condition"].values:
        moved = final.sel(condition=name).dropna("layer")
        each.append(f"{name} {moved['layer'].values[int(moved.argmax('layer'))]}")
    return f"The layer whose weights move most: {_study.listed(each)}"


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return "a: ‖W − W₀‖ / ‖W₀‖; b: ‖W‖² over its mean across layers."


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    return (
        "a: how far each layer's weights end from their initial values, relative to "
        "their initial norm; b: squared norm of the final weights over its mean "
        "across layers. Line: mean over seeds, band: one standard deviation. Under a "
        "synthetic gradient the layers just below the split do more of the moving "
        "than those just above it, if the paper's account holds here. Dotted: splits."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return the mean displacement by condition and layer."""
    final = result["displacement"].isel(step=-1).mean("seed")
    return {
        str(c): {
            str(layer): round(float(final.sel(condition=c, layer=layer)), 4)
            for layer in final["layer"].values
        }
        for c in final["condition"].values
    }
