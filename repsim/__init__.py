"""repsim: where, and when in training, two ways of learning differ inside a network.

Every name is loaded when it is first used; `__init__.pyi` lists them, and where each
one lies.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
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
_named, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    value = _named(name)
    _give_accessors()
    return value


def _give_accessors() -> None:
    """Give xarray's objects `.repsim`, once xarray is there; it is slow to import."""
    if "xarray" in sys.modules:
        import_module("repsim.accessors")


_give_accessors()
