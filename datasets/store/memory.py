"""A recording that gathers in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from repsim.datasets.store.attributes import dims_of
from repsim.datasets.store.sinks import PARTIAL, Gathering, ordered, plain


class MemorySink:
    """A sink that keeps everything in memory."""

    def __init__(
        self,
        examples: int | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self._gathering = Gathering(
            lambda _name, _layer, came: examples or max(1, came)
        )
        self._moments: list[dict[str, np.ndarray]] = []
        self._steps: list[int] = []
        self._step: int | None = None
        self._order: list[str] = []
        self._coords: dict[str, np.ndarray] = {}
        self._attrs: dict[str, Any] = {**(attrs or {}), "complete": 0}

    def begin(self, step: int | None) -> None:
        """Start a moment."""
        self._step = step
        self._gathering.begin()

    def put(
        self,
        name: str,
        rows: np.ndarray,
        dims: tuple[str, ...],
        attrs: Mapping[str, Any],
    ) -> None:
        """Append rows to a layer."""
        self._gathering.put(name, rows, dims, attrs)

    def drop(self, name: str) -> None:
        """Forget one layer's rows in this moment."""
        self._gathering.drop(name, self._known())

    def mark(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to a layer."""
        self._gathering.mark(name, attrs)

    def abandon(self) -> None:
        """Forget the moment, and layers that were seen in it alone."""
        self._gathering.abandon(self._known())

    def _known(self) -> set[str]:
        return {name for moment in self._moments for name in moment}

    def commit(
        self,
        order: Sequence[str],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Complete the moment, or replace the last one where its step is the same."""
        self._gathering.check(len(coords["example"]))
        moment = {}
        for name, blocks in self._gathering.blocks.items():
            rest = blocks.rest()
            parts = [*blocks.full, *([] if rest is None else [rest])]
            moment[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self._steps and self._step == self._steps[-1]:
            self._moments[-1] = moment
        else:
            self._moments.append(moment)
            if self._step is not None:
                self._steps.append(self._step)
        self._order, self._coords = list(order), dict(coords)
        self._attrs = {**attrs, "complete": 0}
        self._gathering.begin()

    def flush(self) -> None:
        """Nothing waits."""

    def finish(self) -> None:
        """Mark the recording complete."""
        self._attrs["complete"] = 1

    def close(self) -> None:
        """Nothing is open."""

    def dataset(self) -> xr.Dataset:
        """Return the moments so far as one Dataset."""
        names = ordered(self._gathering.layers, self._order)
        variables = {}
        for name in names:
            layer = self._gathering.layers[name]
            dims = ("step", *layer.dims) if self._steps else layer.dims
            everywhere = all(name in moment for moment in self._moments)
            attrs = layer.attrs if everywhere else {**layer.attrs, **PARTIAL}
            variables[name] = (dims, self._stack(name), attrs)
        coords: dict[str, Any] = {}
        if self._steps:
            coords["step"] = ("step", np.array(self._steps, np.int64))
        coords |= {k: (dims_of(k, v.ndim), v) for k, v in self._coords.items()}
        return xr.Dataset(variables, coords, {**self._attrs, "layers": plain(names)})

    def _stack(self, name: str) -> np.ndarray:
        if not self._steps:
            return self._moments[0][name]
        first = next(m[name] for m in self._moments if name in m)
        stacked = np.empty((len(self._moments), *first.shape), first.dtype)
        for i, moment in enumerate(self._moments):
            stacked[i] = moment.get(name, np.nan)
            if name in moment:
                # A view from now on, so that the peak is one layer above the total.
                moment[name] = stacked[i]
        return stacked
