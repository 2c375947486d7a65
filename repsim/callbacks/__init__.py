"""Recorders for other people's trainers, and loggers; imported when asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repsim.callbacks.lightning import LightningRecorder as LightningRecorder
    from repsim.callbacks.loggers import Log as Log
    from repsim.callbacks.loggers import TensorBoardLog as TensorBoardLog
    from repsim.callbacks.loggers import TextLog as TextLog
    from repsim.callbacks.loggers import WandbLog as WandbLog
    from repsim.callbacks.transformers import (
        TransformersRecorder as TransformersRecorder,
    )

_HOMES = {
    "LightningRecorder": "lightning",
    "Log": "loggers",
    "TensorBoardLog": "loggers",
    "TextLog": "loggers",
    "TransformersRecorder": "transformers",
    "WandbLog": "loggers",
}
__all__ = [
    "LightningRecorder",
    "Log",
    "TensorBoardLog",
    "TextLog",
    "TransformersRecorder",
    "WandbLog",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"repsim.callbacks.{_HOMES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
