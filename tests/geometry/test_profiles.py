"""What a stack of RDMs says about depth and training."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy.stats import pearsonr

import repsim


def test_class_margin_is_between_minus_within(
    recording: Callable[..., xr.Dataset],
) -> None:
    run = recording()
    rdms = repsim.rdms(run)
    found = repsim.class_margin(rdms)
    assert found.dims == ("step", "layer")
    labels = run["label"].values
    i, j = np.triu_indices(12, 1)
    same = labels[i] == labels[j]
    values = rdms.values[1, 2]
    expected = values[~same].mean() - values[same].mean()
    assert float(found[1, 2]) == pytest.approx(expected)
    assert float(found[1, 2]) > float(found[1, 0]) > 0


def test_class_margin_says_what_is_missing(
    recording: Callable[..., xr.Dataset],
) -> None:
    run = recording()
    with pytest.raises(ValueError, match="carry labels"):
        repsim.class_margin(repsim.rdms(run.drop_vars("label")))
    with pytest.raises(ValueError, match="at least two classes, but all .* label 0"):
        repsim.class_margin(repsim.rdms(run.isel(example=slice(4))))
    with pytest.raises(ValueError, match="single one of 2"):
        repsim.class_margin(repsim.rdms(run.isel(example=slice(9))))
    with pytest.raises(TypeError, match="DataArray from repsim.rdms, but got ndarray"):
        repsim.class_margin(np.ones(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["euclidean", "correlation"])
def test_rdm_distance_along_depth_and_training(
    metric: str, recording: Callable[..., xr.Dataset]
) -> None:
    rdms = repsim.rdms(recording())
    depth = repsim.rdm_distance(rdms, metric=metric)  # type: ignore[arg-type]
    steps = repsim.rdm_distance(rdms, along="step", metric=metric)  # type: ignore[arg-type]
    assert depth.dims == steps.dims == ("step", "layer")
    assert depth.attrs["reference"] == "hidden_3" and steps.attrs["reference"] == "10"
    np.testing.assert_allclose(depth.isel(layer=-1), 0, atol=1e-12)
    np.testing.assert_allclose(steps.isel(step=-1), 0, atol=1e-12)
    a, b = rdms.values[0, 0], rdms.values[0, 2]
    expected = np.linalg.norm(a - b) if metric == "euclidean" else 1 - pearsonr(a, b)[0]
    assert float(depth[0, 0]) == pytest.approx(expected)
    before = repsim.rdm_distance(rdms, metric=metric, reference="previous")  # type: ignore[arg-type]
    assert np.isnan(before.values[:, 0]).all()
    assert float(before[0, 2]) == pytest.approx(float(depth[0, 1]))
    early = repsim.rdm_distance(rdms, reference="hidden_1")
    assert float(early.sel(layer="hidden_1").max()) == 0


def test_rdm_distance_leaves_out_missing_pairs(
    recording: Callable[..., xr.Dataset],
) -> None:
    rdms = repsim.rdms(recording(steps=None))
    rdms[0, 5] = np.nan
    found = repsim.rdm_distance(rdms)
    keep = np.delete(np.arange(66), 5)
    expected = np.linalg.norm(rdms.values[0, keep] - rdms.values[2, keep])
    assert float(found[0]) == pytest.approx(expected)


def test_rdm_distance_names_what_exists(recording: Callable[..., xr.Dataset]) -> None:
    rdms = repsim.rdms(recording())
    with pytest.raises(ValueError, match="`along` to be one of step, layer"):
        repsim.rdm_distance(rdms, along="depth")
    with pytest.raises(ValueError, match="`metric` to be one of euclidean"):
        repsim.rdm_distance(rdms, metric="cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Did you mean 'hidden_3'"):
        repsim.rdm_distance(rdms, reference="hidden_33")
