"""Recorders for other people's trainers; each library is imported when asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repsim.callbacks.lightning import LightningRecorder as LightningRecorder
    from repsim.callbacks.transformers import (
        TransformersRecorder as TransformersRecorder,
    )

__all__ = ["LightningRecorder", "TransformersRecorder"]


def __getattr__(name: str) -> Any:
    if name == "LightningRecorder":
        from repsim.callbacks import lightning

        return lightning.LightningRecorder
    if name == "TransformersRecorder":
        from repsim.callbacks import transformers

        return transformers.TransformersRecorder
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
