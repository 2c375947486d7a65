"""`run.repsim`: what a notebook asks of recordings, results and studies.

Registered by `import repsim` where xarray is loaded, else when it is.
"""

from collections.abc import Iterable
from typing import Any

import xarray as xr

from repsim.core.messages import unknown

__all__ = [
    "ArrayAccessor",
    "RecordingAccessor",
    "RecordingPlots",
    "ResultPlots",
    "StudyAccessor",
]


def _only(value: Any, kind: str) -> Any:
    """Return one moment of what has steps: the last, or the named one."""
    if "step" not in value.dims:
        return value
    msg = f"Expected `step` to be one of {value['step'].values.tolist()}, but got "
    if kind == "last":
        return value.isel(step=-1)
    if kind not in value["step"].values:
        raise ValueError(f"{msg}{kind}.")
    return value.sel(step=kind)


class _Plots:
    """The plots of one object, under its own `.repsim.plot`."""

    def __init__(self, data: Any) -> None:
        self._data = data


class RecordingPlots(_Plots):
    """Plots of a recording: `run.repsim.plot`.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> run = repsim.from_arrays({"h": np.random.default_rng(0).normal(size=(9, 2))})
    >>> run.repsim.plot.heatmap().get_title()
    'CKA'
    """

    def heatmap(
        self,
        other: xr.Dataset | None = None,
        *,
        measure: Any = "cka",
        step: Any = "last",
        layers: Iterable[str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Draw layers against layers, at one step; `kwargs` go to `plot.heatmap`."""
        from repsim import plot
        from repsim.comparison.all_pairs import compare

        mine = _only(self._data, step)
        theirs = None if other is None else _only(other, step)
        cells = compare(mine, theirs, measure, layers=layers)
        moments = {
            int(r["step"]) for r in (mine, theirs) if r is not None and "step" in r
        }
        if len(moments) == 1:  # which the title says
            cells = cells.assign_coords(step=moments.pop())
        return plot.heatmap(cells, ax=ax, **kwargs)

    def rdm_grid(
        self, *, metric: Any = "correlation", step: Any = "last", **kwargs: Any
    ) -> Any:
        """Draw the RDM of every layer, at one step."""
        from repsim import plot
        from repsim.geometry.stacks import rdms

        return plot.rdm_grid(rdms(_only(self._data, step), metric=metric), **kwargs)

    def probe(self, target: Any = "label", *, ax: Any = None, **kwargs: Any) -> Any:
        """Draw what a linear probe reads from every layer, a line a step."""
        from repsim import plot
        from repsim.probes.layers import probe_layers

        scores = probe_layers(self._data, target, **kwargs)
        shown = scores["accuracy" if "accuracy" in scores else "r2"]
        hue = "step" if "step" in shown.dims else None
        return plot.layer_curve(shown, ax=ax, hue=hue)


class ResultPlots(_Plots):
    """Plots of a result; each takes what the function of its name takes.

    Examples
    --------
    >>> cells = xr.DataArray([[1.0]], dims=("layer_a", "layer_b"), name="cka")
    >>> cells.repsim.plot.heatmap().get_title()
    'CKA'
    """

    def heatmap(self, **kwargs: Any) -> Any:
        """Draw `repsim.plot.heatmap`."""
        from repsim import plot

        return plot.heatmap(self._data, **kwargs)

    def heatmaps(self, col: str = "step", **kwargs: Any) -> Any:
        """Draw `repsim.plot.heatmaps`."""
        from repsim import plot

        return plot.heatmaps(self._data, col=col, **kwargs)

    def slider(self, **kwargs: Any) -> Any:
        """Draw `repsim.plot.slider`: one heat map, its step chosen by hand."""
        from repsim import plot

        return plot.slider(self._data, **kwargs)

    def layer_curve(self, **kwargs: Any) -> Any:
        """Draw `repsim.plot.layer_curve`."""
        from repsim import plot

        return plot.layer_curve(self._data, **kwargs)

    def rdm_grid(self, **kwargs: Any) -> Any:
        """Draw `repsim.plot.rdm_grid`."""
        from repsim import plot

        return plot.rdm_grid(self._data, **kwargs)


class _Result:
    """What every object of repsim can say of itself."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __repr__(self) -> str:
        offers = ", ".join(name for name in dir(type(self)) if name[0] != "_")
        try:
            said = f"{self.summary()}\n"
        except (ValueError, TypeError, KeyError):  # any dataset has the accessor
            said = ""
        return f"{said}.repsim has: {offers}"

    def summary(self) -> str:
        """Return `repsim.summary` of it."""
        from repsim.inference.summaries import summary

        return summary(self._data)


class ArrayAccessor(_Result):
    """`cells.repsim`: a result as a sentence, a table and a picture.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> run = repsim.from_arrays({"h": np.random.default_rng(0).normal(size=(9, 2))})
    >>> repsim.compare(run).repsim.table().columns.tolist()
    ['layer_a', 'layer_b', 'cka']
    """

    def table(self) -> Any:
        """Return a tidy DataFrame, a row a cell."""
        from repsim.inference.summaries import table

        return table(self._data)

    @property
    def plot(self) -> ResultPlots:
        """Plots of the result."""
        return ResultPlots(self._data)


class RecordingAccessor(_Result):
    """`run.repsim`: a recording (or a result of several variables) in a notebook.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> run = repsim.from_arrays({"h": np.random.default_rng(0).normal(size=(9, 2))})
    >>> run.repsim.layers, run.repsim.matrix("h").shape
    (['h'], (9, 2))
    """

    def table(self) -> Any:
        """Return a tidy DataFrame of a result, a row a cell."""
        from repsim.inference.summaries import table

        return table(self._data)

    @property
    def layers(self) -> list[str]:
        """Layers in network order."""
        from repsim.datasets.recordings import layers

        return layers(self._data)

    @property
    def steps(self) -> list[int]:
        """Recorded numbers of updates; empty for a single moment."""
        return self._data["step"].values.tolist() if "step" in self._data.dims else []

    def matrix(self, layer: str, step: Any = "last") -> xr.DataArray:
        """Return one layer at one moment, (example, unit …), the last by default."""
        if layer not in self.layers:
            raise ValueError(unknown("layers", layer, self.layers))
        chosen: xr.DataArray = _only(self._data[layer], step)
        return chosen

    def reduce(self, how: Any) -> xr.Dataset:
        """Return `repsim.reduce` of it: maps and tokens as units."""
        from repsim.datasets.reduction import reduce

        return reduce(self._data, how)

    def compare(
        self, other: xr.Dataset | None = None, measure: Any = "cka", **options: Any
    ) -> xr.DataArray:
        """Return `repsim.compare` with another recording, or with itself."""
        from repsim.comparison.all_pairs import compare

        return compare(self._data, other, measure, **options)

    def rdms(self, **options: Any) -> xr.DataArray:
        """Return `repsim.rdms` of it."""
        from repsim.geometry.stacks import rdms

        return rdms(self._data, **options)

    def probe(self, target: Any = "label", **options: Any) -> xr.Dataset:
        """Return `repsim.probes.probe_layers` of it."""
        from repsim.probes.layers import probe_layers

        return probe_layers(self._data, target, **options)

    @property
    def plot(self) -> RecordingPlots:
        """Plots of the recording."""
        return RecordingPlots(self._data)


class StudyAccessor(_Result):
    """`study.repsim`: a tree of recordings in a notebook.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> run = repsim.from_arrays({"h": np.random.default_rng(0).normal(size=(9, 2))})
    >>> xr.DataTree.from_dict({"bp/0": run, "sg/0": run}).repsim.conditions
    {'bp': ['0'], 'sg': ['0']}
    """

    @property
    def conditions(self) -> dict[str, list[str]]:
        """Networks of each condition."""
        from repsim.datasets.recordings import networks

        found: dict[str, list[str]] = {}
        for condition, seed in networks(self._data):
            found.setdefault(condition, []).append(seed)
        return found

    def compare(self, measure: Any = "cka", **options: Any) -> xr.DataArray:
        """Return `repsim.compare` of all its networks."""
        from repsim.comparison.all_pairs import compare

        return compare(self._data, measure=measure, **options)

    def probe(self, target: Any = "label", **options: Any) -> xr.Dataset:
        """Return `repsim.probes.probe_layers` of all its networks."""
        from repsim.probes.layers import probe_layers

        return probe_layers(self._data, target, **options)

    def seed_test(self, rule_a: str, rule_b: str, **options: Any) -> xr.Dataset:
        """Return `repsim.inference.seed_test` of two of its conditions."""
        from repsim.inference.seed_tests import seed_test

        return seed_test(self._data, rule_a, rule_b, **options)


_register: Any = xr  # xarray leaves these untyped
_register.register_dataarray_accessor("repsim")(ArrayAccessor)
_register.register_dataset_accessor("repsim")(RecordingAccessor)
_register.register_datatree_accessor("repsim")(StudyAccessor)
