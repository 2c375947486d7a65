"""A user's own modules, imported before anything is looked up by name."""

import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from repsim.core.messages import Misuse


def import_modules(names: Iterable[str]) -> None:
    """Import modules by name, also from the working folder.

    Only where a module is found there, and nowhere else, the folder joins the path, as
    last: what such a module imports later lies beside it.

    Raises
    ------
    ImportError
        If a module is missing, or raises while it is imported.
    """
    for name in names:
        try:
            _beside_if_only_there(name)
            import_module(name)
        except Exception as error:  # Whatever the user's module raises.
            kind = f"{type(error).__name__}: " * (not isinstance(error, ImportError))
            msg = f"Expected the plugin {name!r} to import, but got {kind}{error}."
            raise ImportError(Misuse(msg)) from error


def _beside_if_only_there(name: str) -> None:
    """Put the working folder on the path if it alone has the module."""
    top, here = name.partition(".")[0], str(Path.cwd())
    if here in sys.path or top in sys.modules or find_spec(top) is not None:
        return
    if PathFinder.find_spec(top, [here]) is not None:
        sys.path.append(here)
