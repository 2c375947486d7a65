"""Recordings and studies small enough for every test of the room."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr


def _recording(seed: int = 0, n: int = 12, steps: int | None = 2) -> xr.Dataset:
    """A small recording of three layers with labels 0, 0, …, 2."""
    rng = np.random.default_rng(seed)
    dims = ("step", "example") if steps else ("example",)
    shape = (steps, n) if steps else (n,)
    labels = np.repeat([0, 1, 2], -(-n // 3))[:n]
    centres = rng.normal(size=(3, 6))
    run = xr.Dataset(
        {
            f"hidden_{k}": (
                (*dims, f"hidden_{k}_unit"),
                k * centres[labels] + rng.normal(size=(*shape, 6)),
            )
            for k in (1, 2, 3)
        },
        coords={"example": 100 + np.arange(n), "label": ("example", labels)},
        attrs={"layers": ["hidden_1", "hidden_2", "hidden_3"], "rule": "bp"},
    )
    return run.assign_coords(step=10 * np.arange(steps)) if steps else run


def _study(**options: int) -> xr.DataTree:
    """Two conditions of three seeds."""
    return xr.DataTree.from_dict(
        {
            f"{condition}/{seed}": _recording(10 * k + seed, steps=None, **options)
            for k, condition in enumerate(("bp", "sg"))
            for seed in range(3)
        }
    )


@pytest.fixture
def recording() -> Callable[..., xr.Dataset]:
    """Return a maker of recordings: seed, n, steps."""
    return _recording


@pytest.fixture
def study() -> Callable[..., xr.DataTree]:
    """Return a maker of studies: n."""
    return _study
