"""The sides of a comparison: which layers, of which networks, at which steps."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from repsim.core import cluster
from repsim.datasets.recordings import (
    is_stored,
    matrix_layers,
    networks,
    same_examples,
    select_layers,
)
from repsim.measures.alignment import aligned
from repsim.measures.matrices import is_constant

Runs: TypeAlias = dict[tuple[str, str], xr.Dataset]
Layers: TypeAlias = str | Iterable[str] | None


class LayerSource:
    """One layer at one moment, read from the recording row by row when asked."""

    def __init__(self, values: xr.Variable, what: str) -> None:
        if values.dims[0] != "example":
            values = values.transpose("example", ...)
        self._values = values
        self.what = what
        self.stored = not values._in_memory
        """Whether reading goes to a store (or a task graph), not to memory."""
        self.chunk = _stored_together(values) if self.stored else 1
        """How many rows are stored together, which are read together."""
        self.constant: bool | None = None
        """Whether all examples are the same; None until somebody has read them."""
        self._memory = None if self.stored else np.asarray(values.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (examples, units)."""
        return self._values.shape

    @property
    def dtype(self) -> Any:
        """Return the dtype in the recording."""
        return self._values.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return some rows, in memory."""
        if self._memory is not None:
            return self._memory[rows]
        return np.asarray(self._values[rows].compute(**cluster.reading()).values)

    def is_constant(self) -> bool:
        """Return whether all examples are the same, reading only if none has."""
        if self.constant is None:
            self.constant = is_constant(self[:])
        return self.constant


def _stored_together(values: xr.Variable) -> int:
    """Return how many examples a chunk holds."""
    chunks = values.chunksizes or values.encoding.get("preferred_chunks", {})
    size = chunks.get("example", 1)
    return int(size if isinstance(size, int) else max(size))


@dataclass(frozen=True)
class Network:
    """One network of a comparison, with its place in a study if it has one."""

    run: xr.Dataset
    condition: str | None = None
    seed: str | None = None

    @property
    def label(self) -> str:
        """Return "condition/seed", or nothing for a recording by itself."""
        return "" if self.condition is None else f"{self.condition}/{self.seed}"


@dataclass(frozen=True)
class Operand:
    """One side of a comparison: some networks, with the same layers and steps."""

    networks: list[Network]
    layers: list[str]
    steps: xr.DataArray | None
    name: str = ""

    @classmethod
    def of(
        cls,
        recordings: xr.Dataset | xr.DataTree,
        layers: Layers,
        what: str,
        name: str = "",
        like: xr.Dataset | None = None,
    ) -> "Operand":
        """Return a side from what the user gave, checked, in one order of examples."""
        if isinstance(recordings, xr.DataTree):
            nets = [
                Network(run, condition, seed)
                for (condition, seed), run in networks(recordings).items()
            ]
        else:
            nets = [Network(recordings)]
        like = nets[0].run if like is None else like
        nets = [replace(one, run=in_order(like, one.run, one.label)) for one in nets]
        runs = {(n.condition or "", n.seed or ""): n.run for n in nets}
        chosen = common_layers(runs, layers, what)
        for network in nets:
            _check_real(network.run, chosen)
        steps = [_steps(network.run) for network in nets]
        for network, step in zip(nets, steps, strict=True):
            same_steps(steps[0], step, f"{nets[0].label} and {network.label}")
        return cls(nets, chosen, steps[0], name)

    @property
    def is_study(self) -> bool:
        """Return whether the side is a study."""
        return self.networks[0].condition is not None

    @property
    def stored(self) -> bool:
        """Return whether workers could read all layers by themselves."""
        return all(is_stored(network.run, self.layers) for network in self.networks)

    @property
    def dtypes(self) -> set[Any]:
        """Return the dtypes of the layers."""
        return {
            network.run.variables[layer].dtype
            for network in self.networks
            for layer in self.layers
        }

    def sources(self, moment: int | None) -> list[LayerSource]:
        """Return the layers of all networks at one moment, networks outermost."""
        sources = []
        for network in self.networks:
            for layer in self.layers:
                who = f" of {network.label}" if network.label else self.name
                sources.append(layer_source(network.run, layer, moment, who))
        return sources


def layer_source(
    run: xr.Dataset, layer: str, moment: int | None, who: str = ""
) -> LayerSource:
    """Return one layer at one moment."""
    values, where = run.variables[layer], f"layer {layer!r}{who}"
    if moment is not None and "step" in values.dims:
        values = values.isel(step=moment)
        where += f" at step {_number(run, moment)}"
    return LayerSource(values, where)


def as_list(layers: Layers) -> list[str] | None:
    """Return names as a list, so that an iterator serves more than once."""
    if layers is None:
        return None
    return [layers] if isinstance(layers, str) else [str(name) for name in layers]


def common_layers(runs: Runs, layers: Layers = None, what: str = "layers") -> list[str]:
    """Return the layers of several networks, which must share them and the examples."""
    asked = as_list(layers)
    first = next(iter(runs))
    listed = matrix_layers(runs[first], asked, what)
    for key, run in runs.items():
        theirs = select_layers(run)
        odd = [name for name in listed if name not in theirs]
        if asked is None or not odd:
            # A pattern may choose more layers there.
            odd += [n for n in select_layers(run, asked, what) if n not in listed]
        if odd:
            common = [name for name in listed if name in theirs]
            advice = (
                f"name common ones, as in layers={common!r}"
                if common
                else "none is in both, so record them under the same names"
            )
            msg = (
                "Expected all networks to have the same layers, but "
                f"{'/'.join(first)} and {'/'.join(key)} differ in {', '.join(odd)}; "
                f"{advice}."
            )
            raise ValueError(msg)
        matrix_layers(run, listed, what)
        try:
            same_examples(runs[first], run)
        except ValueError as error:
            msg = f"{error} These are {'/'.join(first)} and {'/'.join(key)}."
            raise ValueError(msg) from None
    return listed


def in_order(first: xr.Dataset, other: xr.Dataset, name: str) -> xr.Dataset:
    """Return a recording in another one's order of examples, where both have ids."""
    moved: xr.Dataset = aligned(first, other, ("`a`", name or "`b`"))
    if moved is not other:
        # It was of the inputs in the order in which they came.
        moved.attrs = {k: v for k, v in other.attrs.items() if k != "inputs_sha256"}
    return moved


def _check_real(run: xr.Dataset, layers: list[str]) -> None:
    """Raise if a layer does not hold real numbers."""
    for layer in layers:
        dtype = np.dtype(run.variables[layer].dtype)
        if dtype.kind not in "fiub":
            msg = f"Expected layer {layer!r} to hold real numbers, but got {dtype}."
            raise TypeError(msg)


def _steps(run: xr.Dataset) -> xr.DataArray | None:
    """Return the steps of a recording, or None for a single moment."""
    return run["step"] if "step" in run.dims else None


def _number(run: xr.Dataset, position: int) -> int:
    """Return the number of updates behind a position."""
    return int(run["step"].values[position]) if "step" in run.coords else position


def same_steps(a: xr.DataArray | None, b: xr.DataArray | None, who: str) -> None:
    """Raise if two recordings have steps that differ."""
    if a is None and b is None:
        return
    if a is None or b is None or not np.array_equal(a.values, b.values):
        shown = ["none" if s is None else f"{s.size} ({_span(s)})" for s in (a, b)]
        msg = (
            f"Expected {who} to have the same steps, but got {shown[0]} and "
            f"{shown[1]}; select common ones with .sel(step=…), or one moment with "
            ".isel(step=-1)."
        )
        raise ValueError(msg)


def _span(steps: xr.DataArray) -> str:
    """Return the first and last step in words."""
    if not steps.size:
        return "empty"
    return f"{int(steps.values[0])} to {int(steps.values[-1])}"
