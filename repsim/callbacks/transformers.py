"""Record while a Hugging Face `Trainer` trains."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xarray as xr
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from repsim.callbacks.attached import Attached


def _expect_their_datasets() -> None:
    """Refuse a folder of ours that a Trainer would take for Hugging Face's package."""
    import repsim.datasets

    found = find_spec("datasets")
    places = [] if found is None else list(found.submodule_search_locations or [])
    ours = [Path(place).resolve() for place in repsim.datasets.__path__]
    if any(Path(place).resolve() in ours for place in places):
        msg = (
            "Expected Hugging Face's `datasets`, which a Trainer looks for, or none, "
            f"but got the folder {places[0]} of repsim's checkout; start Python in "
            "another folder, or with -P."
        )
        raise ImportError(msg)


class TransformersRecorder(TrainerCallback):  # type: ignore[misc]
    """Record the trained model on fixed examples, as `repsim.Recorder` does.

    A step is one optimiser update, also under gradient accumulation. Only the first
    process records.

    Parameters
    ----------
    inputs : tensor, dict, iterable of batches, or "training"
        The fixed examples; a dict, such as a tokenizer's, is passed as
        `model(**inputs)`. Or the very batches that are learnt.
    **options
        Those of `repsim.Recorder`: `layers`, `every`, `store`, …

    Raises
    ------
    ImportError
        If Python was started in repsim's checkout, whose folder `datasets` hides
        Hugging Face's package.

    Examples
    --------
    >>> import torch
    >>> recorder = TransformersRecorder({"input_ids": torch.ones(2, 4).long()})
    >>> # Trainer(..., callbacks=[recorder]).train(); recorder.dataset()
    """

    def __init__(self, inputs: Any, **options: Any) -> None:
        _expect_their_datasets()
        self._attached = Attached(inputs, **options)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Record before the first update."""
        if state.is_world_process_zero:
            self._attached.begin(kwargs["model"], int(state.global_step))

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Count one update."""
        self._attached.reach(int(state.global_step))

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Close the recording."""
        self._attached.end(complete=True)

    def dataset(self) -> xr.Dataset:
        """Return what was recorded.

        Returns
        -------
        Dataset
            The recording; lazily where there is a store.
        """
        return self._attached.dataset()
