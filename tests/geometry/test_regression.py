"""Partial correlation and regression of RDMs, against least squares."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy.stats import pearsonr, rankdata

import repsim


def residual(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(y)), z])
    return np.asarray(y - design @ np.linalg.lstsq(design, y)[0])


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_partial_rsa_correlates_residuals(
    method: str, recording: Callable[..., xr.Dataset]
) -> None:
    rdms = repsim.rdms(recording(steps=None))
    pixels = xr.DataArray(np.random.default_rng(1).random(66), dims="pair")
    models = repsim.model_rdms(rdms)
    found = repsim.partial_rsa(rdms, models, pixels, method=method)  # type: ignore[arg-type]
    assert found.dims == ("layer", "model")
    scale = rankdata if method == "spearman" else np.asarray
    parts = [scale(v) for v in (rdms.values[1], models.values[0], pixels.values)]
    expected = pearsonr(residual(parts[0], parts[2]), residual(parts[1], parts[2]))[0]
    assert float(found[1, 0]) == pytest.approx(expected, abs=1e-10)


def test_partial_rsa_of_two_networks(recording: Callable[..., xr.Dataset]) -> None:
    a, b = (repsim.rdms(recording(k, steps=None)) for k in (0, 1))
    found = repsim.partial_rsa(a, b, repsim.model_rdms(a))
    assert found.dims == ("layer_a", "layer_b")
    itself = repsim.partial_rsa(a, a.isel(layer=0), a.isel(layer=[0]))
    assert np.isnan(float(itself[0]))


def test_partial_rsa_leaves_out_missing_pairs_and_checks(
    recording: Callable[..., xr.Dataset],
) -> None:
    rdms = repsim.rdms(recording(steps=None))
    models = repsim.model_rdms(rdms)
    pixels = xr.DataArray(np.random.default_rng(1).random(66), dims="pair")
    gone = rdms.copy(deep=True)
    gone[:, 4] = np.nan
    keep = np.delete(np.arange(66), 4)
    with pytest.warns(UserWarning, match="1 of 66 pairs are NaN"):
        found = repsim.partial_rsa(gone, models, pixels)
    expected = repsim.partial_rsa(
        rdms.isel(pair=keep), models.isel(pair=keep), pixels.isel(pair=keep)
    )
    np.testing.assert_allclose(found, expected)
    with pytest.raises(ValueError, match="same pairs of examples, but got 65 and 66"):
        repsim.partial_rsa(rdms, models, pixels[:65])
    with pytest.raises(ValueError, match="`method` to be one of spearman, pearson"):
        repsim.partial_rsa(rdms, models, pixels, method="kendall")  # type: ignore[arg-type]


def test_regression_is_least_squares(recording: Callable[..., xr.Dataset]) -> None:
    rdms = repsim.rdms(recording())
    pixels = np.random.default_rng(2).random((12, 5))
    models = repsim.model_rdms(rdms, inputs=pixels)
    found = repsim.rdm_regression(rdms, models)
    assert found["coefficient"].dims == ("step", "layer", "model")
    y = rdms.values[1, 2]
    design = np.column_stack([np.ones(66), *models.values])
    expected, rest = np.linalg.lstsq(design, y)[:2]
    total = ((y - y.mean()) ** 2).sum()
    np.testing.assert_allclose(found["coefficient"][1, 2], expected[1:], atol=1e-10)
    assert float(found["r2"][1, 2]) == pytest.approx(1 - rest[0] / total)
    without = np.linalg.lstsq(design[:, [0, 2]], y)[1][0]
    unique = float(found["unique"].isel(step=1, layer=2).sel(model="label"))
    assert unique == pytest.approx((without - rest[0]) / total)
    alone = repsim.rdm_regression(rdms, models.isel(model=0), method="spearman")
    ranks = [rankdata(v) for v in (y, models.values[0])]
    beta = float(alone["beta"].isel(step=1, layer=2, model=0))
    assert beta == pytest.approx(pearsonr(*ranks)[0])


def test_regression_refuses_dependent_models(
    recording: Callable[..., xr.Dataset],
) -> None:
    rdms = repsim.rdms(recording(steps=None))
    model = repsim.model_rdms(rdms)
    twice = xr.concat([model, 2 * model], "model").assign_coords(model=["a", "b"])
    with pytest.raises(ValueError, match="dependent ones among a, b"):
        repsim.rdm_regression(rdms, twice)
    with pytest.raises(ValueError, match="`method` to be one of pearson"):
        repsim.rdm_regression(rdms, model, method="kendall")  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [-900, -600, 600, 900])
def test_numbers_of_any_size(power: int, recording: Callable[..., xr.Dataset]) -> None:
    near = repsim.rdms(recording(steps=None)), repsim.rdms(recording(1, steps=None))
    far = near[0] * 2.0**power, near[1] * 2.0 ** (power // 3)
    for function in (
        lambda a, b: repsim.partial_rsa(a, b, b.isel(layer=0), method="pearson"),
        lambda a, b: repsim.rdm_regression(a, b.rename(layer="model")),
    ):
        expected, found = function(*near), function(*far)
        if isinstance(found, xr.Dataset):
            # In the RDM's unit per unit of the model.
            found["coefficient"] *= 2.0 ** (power // 3 - power)
        xr.testing.assert_allclose(found, expected)


def test_rdms_that_hold_nothing_together_are_told(rng: np.random.Generator) -> None:
    a, b = rng.random((2, 66))
    empty = np.full(66, np.nan)
    message = "NaN in none of the RDMs, but got 0 of 66"
    with pytest.raises(ValueError, match=message):
        repsim.partial_rsa(empty, a, b)
    with pytest.raises(ValueError, match=message):
        repsim.rdm_regression(a, np.stack([empty, b]))
    with (
        pytest.warns(UserWarning, match="66 of 66 pairs are NaN"),
        pytest.warns(UserWarning, match="1 of 1 ceilings are NaN"),
    ):
        found = repsim.noise_ceiling(np.stack([empty, a, b]))
    assert np.isnan(found["lower"])
    message = "`rdms` to hold dissimilarities, but got 1 of 3 with NaN alone"
    with pytest.raises(ValueError, match=message):
        repsim.inference.model_test(np.stack([empty, a, b]), {"a": a})
