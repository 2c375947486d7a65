"""A user's own modules, imported before anything is looked up by name."""

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path


def import_modules(names: Iterable[str]) -> None:
    """Import modules by name, also from the working folder.

    Raises
    ------
    ImportError
        If a module is missing, or raises while it is imported.
    """
    for name in names:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        try:
            import_module(name)
        except Exception as error:  # Whatever the user's module raises.
            kind = f"{type(error).__name__}: " * (not isinstance(error, ImportError))
            msg = f"Expected the plugin {name!r} to import, but got {kind}{error}."
            raise ImportError(msg) from error
