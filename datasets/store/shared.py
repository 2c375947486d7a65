"""A sink that also keeps the last moment, for whoever looks on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from repsim.datasets.store.memory import MemorySink
from repsim.datasets.store.sinks import Sink


class SharedSink:
    """Hands everything on, and keeps the last complete moment in memory."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._gathering = MemorySink()
        self.moment: xr.Dataset | None = None

    def begin(self, step: int | None) -> None:
        """Start a moment in both."""
        self._gathering, self.moment = MemorySink(), None
        self._gathering.begin(step)
        self._sink.begin(step)

    def put(
        self,
        name: str,
        rows: np.ndarray,
        dims: tuple[str, ...],
        attrs: Mapping[str, Any],
    ) -> None:
        """Append rows in both."""
        self._gathering.put(name, rows, dims, attrs)
        self._sink.put(name, rows, dims, attrs)

    def drop(self, name: str) -> None:
        """Forget a layer's rows in both."""
        self._gathering.drop(name)
        self._sink.drop(name)

    def mark(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes in both."""
        self._gathering.mark(name, attrs)
        self._sink.mark(name, attrs)

    def abandon(self) -> None:
        """Forget the moment in both."""
        self._gathering.abandon()
        self._sink.abandon()

    def commit(
        self,
        order: Sequence[str],
        coords: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Complete the moment in both."""
        self._gathering.commit(order, coords, attrs)
        self._sink.commit(order, coords, attrs)
        self.moment = self._gathering.dataset()

    def flush(self) -> None:
        """Wait until all is written."""
        self._sink.flush()

    def finish(self) -> None:
        """Close in order."""
        self._sink.finish()

    def close(self) -> None:
        """Close as it stands."""
        self._sink.close()

    def dataset(self) -> xr.Dataset:
        """Return the complete moments."""
        return self._sink.dataset()
