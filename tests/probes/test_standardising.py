"""One unit of measurement for a layer, whatever its activations are measured in."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler

import repsim
from repsim.probes import probe_layers
from repsim.probes.standardising import standardised

Scaler = Callable[[np.ndarray, np.ndarray], np.ndarray]
ROWS = np.arange(0, 100, 2)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
def test_it_is_the_formula_in_any_unit(
    one_scale: Scaler, dtype: str, offset: float, factor: float
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 6)) * np.logspace(-1, 1, 6) + offset
    x[:, 2] = 0.1  # a dead unit counts for nothing
    x = (x * factor).astype(dtype)
    before = x.copy()
    for found, expected in (
        (standardised(x, ROWS, "layer"), one_scale(x, ROWS)),
        (
            standardised(x, ROWS, "units")[:, [0, 1, 3, 4, 5]],
            StandardScaler()
            .fit(x[ROWS].astype("f8"))
            .transform(x.astype("f8"))[:, [0, 1, 3, 4, 5]],
        ),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(x, before)
    assert standardised(x, ROWS, "none") is x


def test_a_layer_that_never_varies_stays_finite() -> None:
    x = np.full((100, 3), 7.0)
    x[1::2] = 9.0  # in the other rows only
    assert np.isfinite(standardised(x, ROWS, "layer")).all()
    assert (standardised(x * 0, ROWS, "units") == 0).all()


def test_turning_a_layer_or_adding_dead_units_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 6)) * np.logspace(-1, 1, 6)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    z = standardised(x, ROWS, "layer")
    np.testing.assert_allclose(standardised(x @ turn, ROWS, "layer"), z @ turn)
    wider = standardised(np.hstack([x, np.ones((100, 4))]), ROWS, "layer")
    np.testing.assert_allclose(wider, np.hstack([z, np.zeros((100, 4))]))


def test_an_untrained_network_whose_activations_shrink_is_still_read() -> None:
    x, y = load_digits(return_X_y=True)
    network = repsim.networks.mlp(64, [128] * 8, 10, seed=0)
    images = torch.from_numpy((x[:1000] / 16).astype("f4"))
    run = repsim.record(network, images, labels=y[:1000])
    found = probe_layers(run)["accuracy"]
    raw = probe_layers(run, standardise="none")["accuracy"]
    units = probe_layers(run, standardise="units")["accuracy"]
    # In absolute units the last four hidden layers are at chance, 0.1.
    assert (raw.sel(layer=["hidden_6", "hidden_7", "hidden_8"]) < 0.15).all()
    assert (found.sel(layer=[f"hidden_{i}" for i in range(1, 9)]) > 0.85).all()
    assert (abs(found - units) < 0.03).all()


@pytest.mark.parametrize("options", [{}, {"estimator": "ridge"}, {"estimator": "knn"}])
@pytest.mark.parametrize("factor", [1e-300, 1e-30, 1e-4, 1e30, 1e300])
def test_no_probe_reads_the_scale(options: dict[str, Any], factor: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 10))
    angle = x @ rng.normal(size=10) + 0.03 * rng.normal(size=200)
    for target, score in ((angle, "r2"), (angle > 0, "accuracy")):
        here, there = (
            xr.Dataset({"h": (("example", "h_unit"), x * c)}) for c in (1, factor)
        )
        found = probe_layers(there, target, **options)[score]
        plain = probe_layers(here, target, **options)[score]
        np.testing.assert_allclose(found, plain, rtol=1e-6)
        if options.get("estimator") != "knn":
            assert plain > 0.9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-30, 30), st.sampled_from(["f4", "f8"]))
def test_any_unit_gives_the_same_curve(seed: int, exponent: float, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 5)) * np.exp(rng.normal(size=5)) + 3 * rng.normal(size=5)
    label = (x[:, 0] - x[:, 0].mean() + rng.normal(size=60) > 0).astype(int)
    label[:4] = [0, 1, 0, 1]
    here, there = (
        xr.Dataset({"h": (("example", "h_unit"), (x * c).astype(dtype))})
        for c in (1.0, 10.0**exponent)
    )
    found, plain = probe_layers(there, label), probe_layers(here, label)
    np.testing.assert_allclose(found["log_loss"], plain["log_loss"], rtol=5e-3)
    np.testing.assert_allclose(
        found["train_accuracy"], plain["train_accuracy"], atol=0.03
    )
