"""Two recordings of the same examples, and the layers of each that are compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from repsim.comparison.all_pairs import compare
from repsim.core import cluster
from repsim.core.bars import progress_bar
from repsim.datasets.recordings import matrix, matrix_layers
from repsim.inference.common_steps import Layers, as_list
from repsim.inference.jackknife import Estimates
from repsim.measures.catalogue import Measure


def layer_pair(
    a: object, b: object, factor: str, layers: Layers, layers_b: Layers
) -> "LayerPair":
    """Return both sides in memory, or say what a side should have been."""
    b = a if b is None else b
    for side in (a, b):
        if not isinstance(side, xr.Dataset):
            msg = (
                f"Expected recordings (xarray.Dataset) with over={factor!r}, but got "
                f'{type(side).__name__}; over="seed" takes networks of a study.'
            )
            raise TypeError(msg)
    assert isinstance(a, xr.Dataset) and isinstance(b, xr.Dataset)
    names_a, names_b = layer_names(a, b, layers, layers_b)
    how = cluster.reading()
    return LayerPair(
        a[names_a].compute(**how), b[names_b].compute(**how), names_a, names_b
    )


def layer_names(
    a: xr.Dataset, b: xr.Dataset, layers: Layers, layers_b: Layers
) -> tuple[list[str], list[str]]:
    """Return which layers of both sides are compared."""
    listed = as_list(layers)
    others = listed if layers_b is None else layers_b
    return matrix_layers(a, listed), matrix_layers(b, others, "layers_b")


@dataclass(frozen=True)
class LayerPair:
    """Two recordings of the same examples, in memory, and their layers."""

    a: xr.Dataset
    b: xr.Dataset
    layers_a: list[str]
    layers_b: list[str]

    def cells(
        self, keep: slice | np.ndarray, measure: Measure, options: dict[str, Any]
    ) -> xr.DataArray:
        """Return the measure of some examples between all layers."""
        return compare(
            self.a.isel(example=keep),
            self.b.isel(example=keep),
            measure,
            layers=self.layers_a,
            layers_b=self.layers_b,
            precision="float64",
            **options,
        )

    def exact(
        self, form: Callable[..., Estimates], progress: bool = False
    ) -> Estimates:
        """Return a closed form at every step of either side."""
        steps = max(side.sizes.get("step", 0) for side in (self.a, self.b))
        moments = range(steps) if steps else [None]
        estimates = [
            form(*self.matrices(step))
            for step in progress_bar(moments, desc="steps", progress=progress)
        ]
        if not steps:
            return estimates[0]
        return Estimates(
            np.stack([one.value for one in estimates]),
            np.stack([one.without for one in estimates], 1),
            np.stack([one.pairs for one in estimates if one.pairs is not None]),
            estimates[0].samples,
            estimates[0].shares,
        )

    def matrices(self, step: int | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the layers of both sides at a step, a side without steps as it is."""
        left, right = (
            [
                matrix(run, name, step if "step" in run.dims else None).astype(
                    np.float64
                )
                for name in names
            ]
            for run, names in ((self.a, self.layers_a), (self.b, self.layers_b))
        )
        return left, right
