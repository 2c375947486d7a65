"""Record while a Lightning `Trainer` trains."""

from typing import Any

import xarray as xr
from lightning.pytorch import Callback, LightningModule, Trainer

from repsim.callbacks.attached import Attached


class LightningRecorder(Callback):  # type: ignore[misc]
    """Record a `LightningModule` on fixed examples, as `repsim.Recorder` does.

    A step is one optimiser update, also under gradient accumulation. Only the first
    process records.

    Parameters
    ----------
    inputs : tensor, dict, iterable of batches, or "training"
        The fixed examples, or the very batches that are learnt.
    **options
        Those of `repsim.Recorder`: `layers`, `every`, `store`, …

    Examples
    --------
    >>> import torch
    >>> recorder = LightningRecorder(torch.ones(8, 4), every=50)
    >>> # Trainer(callbacks=[recorder]).fit(module, loader); recorder.dataset()
    """

    def __init__(self, inputs: Any, **options: Any) -> None:
        self._attached = Attached(inputs, **options)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record before the first update."""
        if trainer.is_global_zero:
            plugin = trainer.precision_plugin
            self._attached.begin(
                pl_module,
                int(trainer.global_step),
                plugin.convert_input,
                plugin.forward_context,
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any
    ) -> None:
        """Count the updates that this batch brought."""
        self._attached.reach(int(trainer.global_step))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the recording."""
        self._attached.end(complete=not trainer.interrupted)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Keep what was recorded, as a recording that is not complete."""
        self._attached.end(complete=False)

    def dataset(self) -> xr.Dataset:
        """Return what was recorded.

        Returns
        -------
        Dataset
            The recording; lazily where there is a store.
        """
        return self._attached.dataset()
