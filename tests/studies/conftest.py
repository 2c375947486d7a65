"""A study small enough to be trained in every way that there is, and what it gives."""

from typing import Any

import pytest
import xarray as xr

import repsim


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Return what `run_study` is told."""
    return {
        "conditions": ["bp", "sg"],
        "seeds": 1,
        "lr": 1e-3,
        "depth": 1,
        "width": 8,
        "steps": 6,
        "examples": 20,
        "progress": False,
    }


@pytest.fixture(scope="session")
def alone(
    tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> xr.DataTree:
    """Return the study as one process trains it."""
    out = tmp_path_factory.mktemp("alone") / "s"
    return repsim.run_study(out=out, jobs=1, **tiny)
