"""Recordings made by hand, with something planted in them."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr


@pytest.fixture
def planted() -> Callable[..., xr.Dataset]:
    """Return a maker of recordings whose layer `late` separates the labels."""

    def make(
        seed: int = 0, n: int = 240, classes: int = 4, width: int = 12, steps: int = 0
    ) -> xr.Dataset:
        rng = np.random.default_rng(seed)
        label = rng.permutation(np.arange(n) % classes)
        angle = rng.normal(size=n)
        shape = (steps, n, width) if steps else (n, width)
        dims = ("step", "example") if steps else ("example",)
        signal = 4 * np.eye(classes, width)[label]
        middle = rng.normal(size=shape)
        middle[..., 0] = angle
        values = {
            "early": rng.normal(size=shape),
            "middle": middle,
            "late": rng.normal(size=shape) + signal,
        }
        coords = {"label": ("example", label), "angle": ("example", angle)}
        coords["group"] = ("example", np.arange(n) % 12)
        run = xr.Dataset(
            {k: ((*dims, f"{k}_unit"), v.astype("f4")) for k, v in values.items()},
            coords=coords,
        )
        return run.assign_coords(step=10 * np.arange(steps)) if steps else run

    return make


@pytest.fixture
def one_scale() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the default's unit of measurement, written out in float64."""

    def scaled(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        wide = x.astype(np.float64)
        alive = np.ptp(wide[rows], axis=0) > 0
        scale = np.sqrt(wide[rows].var(axis=0)[alive].mean())
        return (wide - wide[rows].mean(axis=0)) / scale

    return scaled
