"""repsim: where, and when in training, two ways of learning differ inside a network.

Every name is loaded when it is first used; `__init__.pyi` lists them, and where each
one lies.
"""

import random as _random
import sys
from contextlib import suppress
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from threading import local
from types import ModuleType
from typing import Any

import lazy_loader as _lazy

from repsim.core.provenance import repsim_version as _version


def _expect_only_us() -> None:
    """Refuse a folder of another project's `repsim`, and a checkout without rooms."""
    here = Path(__file__).resolve()
    try:
        theirs = distribution("repsim")
    except PackageNotFoundError:
        pass
    else:
        for file in theirs.files or ():
            if Path(str(theirs.locate_file(file))).resolve() == here:
                msg = (
                    "Expected repsim-toolkit alone in its folder, but PyPI's `repsim` "
                    f"{theirs.version}, another project, is installed into the same "
                    f"one ({here.parent}); run `pip uninstall repsim repsim-toolkit`, "
                    "then install repsim-toolkit again."
                )
                raise ImportError(msg)
    if find_spec("repsim.datasets") is None:
        msg = (
            "Expected the installed repsim, but got the folder ./repsim of a checkout "
            "without its rooms; install with `pip install -e .`, or start Python "
            "elsewhere."
        )
        raise ImportError(msg)


_expect_only_us()
__version__ = _version()
_load, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Load a name where it is first used, perhaps after the user's generator is seeded.

    Libraries draw from it when they are imported (rich does), and so would shift it.
    """
    state = _random.getstate()
    try:
        return _load(name)
    finally:
        _random.setstate(state)


class _AccessorsAfterXarray(MetaPathFinder):
    """Give xarray's objects `.repsim` when xarray, slow to import, is imported."""

    _looking = local()

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name != "xarray" or getattr(self._looking, "now", False):
            return None
        self._looking.now = True
        try:
            spec = find_spec(name)
        finally:
            self._looking.now = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def with_accessors(module: ModuleType) -> None:
                # Not before: others, torch among them, ask for the spec alone.
                with suppress(ValueError):  # another thread was first
                    sys.meta_path.remove(self)
                execute(module)
                import_module("repsim.accessors")

            spec.loader.exec_module = with_accessors  # type: ignore[method-assign]
        return spec


if "xarray" in sys.modules:
    import_module("repsim.accessors")
else:
    sys.meta_path.insert(0, _AccessorsAfterXarray())
