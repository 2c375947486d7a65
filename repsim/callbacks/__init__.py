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
        home = _HOMES[name]
        try:
            return getattr(import_module(f"repsim.callbacks.{home}"), name)
        except ModuleNotFoundError as error:
            if home != str(error.name).partition(".")[0]:
                raise
            msg = (
                f"Expected {home} for {name}, but it cannot be imported; run "
                f'`pip install "repsim-toolkit[{home}]"`.'
            )
            raise ImportError(msg) from error
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
