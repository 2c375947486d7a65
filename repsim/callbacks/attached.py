"""What the recorders for trainers share: they begin once the trainer has a model."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import xarray as xr

from repsim.capture.recorder import Recorder


class Attached:
    """Options of a `Recorder` that is made when training begins."""

    def __init__(self, inputs: Any, **options: Any) -> None:
        self._inputs = inputs
        self._options = options
        self._updates = 0
        self.recorder: Recorder | None = None

    def begin(
        self,
        model: Any,
        updates: int,
        convert: Callable[[Any], Any] | None = None,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """Open the recorder after so many updates, and record where one is due.

        `convert` and `context` are what the trainer does to its inputs and around its
        passes, for the precision it was asked for.
        """
        options = dict(self._options)
        if self.recorder is not None and not options.get("resume"):
            msg = (
                "Expected one training for each recorder, but this one holds a "
                "recording already; give the next training a recorder of its own, or "
                "resume=True and a `store` to go on in."
            )
            raise ValueError(msg)
        if updates or options.get("resume"):
            options.setdefault("start", updates)
        self._updates = updates
        self.recorder = Recorder(model, self._inputs, **options)
        self.recorder._session.convert = convert
        self.recorder._session.context = context
        self.recorder.start()

    def reach(self, updates: int) -> None:
        """Count up to so many updates; record where one on the way is due."""
        if self.recorder is None or not self.recorder._open:
            return
        if updates > self._updates:
            self.recorder.advance(updates - self._updates)
            self._updates = updates

    def end(self, *, complete: bool) -> None:
        """Close the recorder."""
        if self.recorder is not None:
            self.recorder.close(complete=complete)

    def dataset(self) -> xr.Dataset:
        """Return what was recorded."""
        if self.recorder is None:
            msg = (
                "Expected training to have begun, but nothing was recorded; pass this "
                "to the trainer as a callback (only its first process records)."
            )
            raise ValueError(msg)
        return self.recorder.dataset()
