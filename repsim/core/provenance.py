"""What made a result: the versions that stand in its `attrs`."""

from functools import cache
from importlib.metadata import version
from typing import Any

DISTRIBUTION = "repsim-toolkit"
"""The name pip knows us by; `repsim` on PyPI is another project."""


@cache
def repsim_version() -> str:
    """Return the version of the installed distribution."""
    return version(DISTRIBUTION)


def made_by(*libraries: str, **options: Any) -> dict[str, Any]:
    """Return options, and the versions of repsim and of further distributions."""
    versions = {f"{n.replace('-', '_')}_version": version(n) for n in libraries}
    return {**options, "repsim_version": repsim_version(), **versions}


def versions() -> dict[str, str]:
    """Return the versions of repsim and of what it computes with, by name."""
    names = ("torch", "numpy", "scipy", "scikit-learn", "xarray", "zarr")
    return {"repsim": repsim_version(), **{name: version(name) for name in names}}
