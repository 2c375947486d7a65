"""CKA from random directions: right on average, and as far off as it says."""

import json

import numpy as np
import pytest
import xarray as xr

import repsim


def run(n: int = 150, units: int = 80, layers: int = 4, seed: int = 0) -> xr.Dataset:
    """Layers that drift away from the first one, with a decaying spectrum."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, units)) / np.arange(1, units + 1) ** 0.5
    made = {}
    for i in range(layers):
        mixed = x @ rng.normal(size=(units, units)) / units**0.5
        noise = 0.5 * i * rng.normal(size=(n, units)) / np.arange(1, units + 1) ** 0.5
        made[f"h{i}"] = (("example", f"h{i}_unit"), mixed + noise)
    return xr.Dataset(made)


@pytest.mark.parametrize("debiased", [True, False])
def test_unbiased_with_an_honest_error(debiased: bool) -> None:
    data = run()
    exact = repsim.compare(data, debiased=debiased).values
    off = ~np.eye(4, dtype=bool)
    draws = [
        repsim.compare(data, sketch=64, seed=s, debiased=debiased) for s in range(24)
    ]
    values = np.stack([d.values for d in draws])
    errors = np.stack([d.standard_error.values for d in draws])
    spread = values.std(axis=0, ddof=1)
    # The mean of all draws lies within four of its own standard errors.
    assert (abs(values.mean(axis=0) - exact)[off] < 4 * spread[off] / 24**0.5).all()
    ratio = np.sqrt((errors**2).mean(axis=0))[off] / spread[off]
    assert ratio.min() > 0.6 and ratio.max() < 1.7
    assert (np.diagonal(values.mean(axis=0)) == 1).all()
    closer = repsim.compare(data, sketch=960, debiased=debiased)
    finer = closer.standard_error.values[off].mean()
    assert finer < 0.5 * errors.mean(axis=0)[off].mean()


def test_two_recordings_steps_and_sizes() -> None:
    a, b = run(seed=1), run(seed=2, layers=3) * 1e20
    b = b + 0.5 * 1e20 * a[["h0", "h1", "h2"]]
    exact = repsim.compare(a, b)
    got = repsim.compare(a, b, sketch=512)
    assert got.shape == (4, 3)
    assert (abs(got - exact) < 5 * got.standard_error + 1e-6).all()
    assert json.loads(got.attrs["options"])["sketch"] == 512
    again = repsim.compare(a, b, sketch=512)
    np.testing.assert_array_equal(got, again)
    steps = xr.concat([a, a], "step").assign_coords(step=[0, 100])
    both = repsim.compare(steps, sketch=128)
    assert both.standard_error.dims == ("step", "layer_a", "layer_b")
    np.testing.assert_array_equal(both[0], both[1])


def test_constant_layers_and_refusals() -> None:
    data = run(layers=2)
    data["h1"][:] = 3.0
    with pytest.warns(UserWarning, match="constant over the examples: layer 'h1'"):
        got = repsim.compare(data, sketch=64)
    assert np.isnan(got.values).tolist() == [[False, True], [True, True]]
    with pytest.raises(ValueError, match="`sketch` with measure 'cka' only"):
        repsim.compare(data, measure="cca", sketch=64)
    with pytest.raises(ValueError, match="`sketch` to be at least 16, but got 3"):
        repsim.compare(data, sketch=3)
    with pytest.raises(TypeError, match="options of a sketch.*debiased, seed"):
        repsim.compare(data, sketch=64, kernel="rbf")
