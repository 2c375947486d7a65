"""When in training each layer takes its final form: CKA to the final network."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from repsim import plot
from repsim.analyses import NotApplicable, _study
from repsim.comparison.all_pairs import compare
from repsim.datasets.recordings import layers, networks
from repsim.plot.style import figure_of

TITLE = "When each layer takes its final form"
ORDER = 60


def compute(study: xr.DataTree) -> xr.Dataset:
    """Return debiased CKA of each layer at each step to itself at the last step."""
    cka: dict[str, dict[str, xr.DataArray]] = {}
    for (condition, seed), run in networks(study).items():
        if run.sizes.get("step", 1) < 2:
            msg = "Expected recordings of at least two steps, but got one moment."
            raise NotApplicable(msg)
        run = run.load()
        curves = [
            compare(run, run.isel(step=-1), "cka", layers=[name], layers_b=[name])
            .isel(layer_a=0, layer_b=0, drop=True)
            .drop_attrs()
            for name in layers(run)
        ]
        along = xr.concat(curves, xr.Variable("layer", layers(run)))
        cka.setdefault(condition, {})[seed] = along
    cells = _study.stack(cka)
    cells = cells.transpose("condition", "seed", "step", "layer")
    return xr.Dataset(
        {"cka": cells},
        attrs=_study.provenance(
            analysis="convergence", measure="cka", kernel="linear", debiased="true"
        ),
    )


def figures(result: xr.Dataset) -> Mapping[str, Figure]:
    """Return one heat map a condition, steps × layers."""
    cells = result["cka"].mean("seed").transpose("condition", "layer", "step")
    axes = plot.heatmaps(cells.assign_attrs(measure="cka"), col="condition")
    for ax in axes:
        ax.set_xlabel("updates" * bool(ax.get_xlabel()))
    return {"convergence": figure_of(axes)}


def claim(result: xr.Dataset) -> str:
    """Return from which update the median layer is settled."""
    settled = summary(result)["settled_from_step"]
    each = _study.listed(
        f"{name} {int(np.median(list(of.values())))}" for name, of in settled.items()
    )
    return f"Half of the layers have their final form (CKA ≥ 0.9) by update: {each}"


def caption(result: xr.Dataset) -> str:
    """Return the caption."""
    return "CKA of each layer with itself at the end of training, mean over networks."


def details(result: xr.Dataset) -> str:
    """Return how to read it."""
    return (
        "Debiased linear CKA between each layer at a recorded step and the same layer "
        "of the same network at the end of training, mean over seeds. A row that is "
        "bright early belongs to a layer that takes its final form early. The columns "
        "are the recorded steps, which are denser at the beginning. The spread over "
        "seeds is not drawn; the single networks are in `results.zarr`."
    )


def summary(result: xr.Dataset) -> Mapping[str, Any]:
    """Return the first recorded step from which a layer's CKA stays at 0.9 or more."""
    mean = result["cka"].mean("seed")
    numbers: dict[str, Any] = {}
    for name in mean["condition"].values:
        reached = (mean.sel(condition=name) >= 0.9).values
        # Read from the end: a layer counts from where it no longer falls below.
        stays = np.logical_and.accumulate(reached[::-1], axis=0)[::-1]
        steps = mean["step"].values
        numbers[str(name)] = {
            str(layer): int(steps[np.argmax(stays[:, i])])
            for i, layer in enumerate(mean["layer"].values)
        }
    return {"settled_from_step": numbers}
