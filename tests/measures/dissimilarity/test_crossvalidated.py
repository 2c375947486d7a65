"""Cross-validated distances and noise covariance, against rsatoolbox and theory."""

import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

import repsim


def toolbox(folds: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
    """Return rsatoolbox's crossnobis, which divides by the number of units."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rsatoolbox.data import Dataset
        from rsatoolbox.rdm import calc_rdm

        f, n, d = folds.shape
        data = Dataset(
            folds.reshape(-1, d),
            obs_descriptors={
                "item": np.tile(np.arange(n), f),
                "fold": np.repeat(np.arange(f), n),
            },
        )
        rdm = calc_rdm(
            data,
            method="crossnobis",
            descriptor="item",
            cv_descriptor="fold",
            noise=None if noise is None else np.linalg.inv(noise),
        )
        return np.asarray(rdm.dissimilarities[0]) * d


def slow(folds: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Average over ordered pairs of folds, as the definition says."""
    precision = np.linalg.inv(noise)
    f, n, _ = folds.shape
    out = []
    for i in range(n):
        for j in range(i + 1, n):
            gaps = folds[:, i] - folds[:, j]
            products = gaps @ precision @ gaps.T
            out.append((products.sum() - np.trace(products)) / (f * (f - 1)))
    return np.array(out)


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 7, 5), (5, 12, 20)])
def test_crossnobis_equals_rsatoolbox_and_the_definition(
    rng: np.random.Generator, shape: tuple[int, int, int]
) -> None:
    folds = rng.normal(size=shape) + 3
    noise = repsim.noise_covariance(rng.normal(size=(30, shape[2])))
    for sigma in (None, noise):
        found = repsim.crossnobis(folds, noise=sigma)
        np.testing.assert_allclose(found, toolbox(folds, sigma), atol=1e-10)
        full = np.eye(shape[2]) if sigma is None else sigma
        np.testing.assert_allclose(found, slow(folds, full), atol=1e-10)


def test_equal_folds_give_squared_distances(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 4))
    found = repsim.crossnobis(np.stack([x, x, x]))
    np.testing.assert_allclose(found, pdist(x, "sqeuclidean"), rtol=1e-10)


def test_noise_averages_out(rng: np.random.Generator) -> None:
    folds = rng.normal(size=(2, 200, 50))
    found = repsim.crossnobis(folds)
    assert found.min() < 0
    assert abs(found.mean()) < 0.1 * pdist(folds[0], "sqeuclidean").mean()


def test_float32_is_a_choice(rng: np.random.Generator) -> None:
    folds = rng.normal(size=(2, 50, 30))
    exact = repsim.crossnobis(folds)
    narrow = repsim.crossnobis(torch.as_tensor(folds, dtype=torch.float32))
    assert exact.dtype == np.float64 and narrow.dtype == np.float32
    assert np.abs(narrow - exact).max() < 1e-5 * np.abs(exact).max()
    wide = repsim.crossnobis(folds.astype(np.float32), precision="float64")
    assert wide.dtype == np.float64


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("diagonal", "shrinkage_diag"),
        ("identity", "shrinkage_eye"),
        ("full", "full"),
        ("variances", "diag"),
    ],
)
def test_noise_covariance_equals_rsatoolbox(
    rng: np.random.Generator, ours: str, theirs: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rsatoolbox.data.noise import cov_from_residuals
    residuals = rng.normal(size=(12, 8)) @ rng.normal(size=(8, 8))
    for dof in (None, 9):
        found = repsim.noise_covariance(residuals, method=ours, dof=dof)  # type: ignore[arg-type]
        expected = cov_from_residuals(residuals, dof=dof, method=theirs)
        np.testing.assert_allclose(found, expected, atol=1e-10)


def test_noise_of_folds_is_what_repetitions_leave(rng: np.random.Generator) -> None:
    patterns = 10 * rng.normal(size=(1, 400, 3))
    folds = patterns + rng.normal(size=(4, 400, 3)) * [1.0, 2.0, 3.0]
    found = repsim.noise_covariance(folds, method="full")
    np.testing.assert_allclose(np.diag(found), [1, 4, 9], rtol=0.15)


def test_dead_units_can_be_shrunk_but_not_inverted(rng: np.random.Generator) -> None:
    residuals = rng.normal(size=(20, 3))
    residuals[:, 1] = 0
    noise = repsim.noise_covariance(residuals)
    assert np.isfinite(noise).all()
    with pytest.raises(ValueError, match="leave out dead units"):
        repsim.crossnobis(rng.normal(size=(2, 4, 3)), noise=noise)


@pytest.mark.parametrize(
    ("shape", "options", "match"),
    [
        ((1, 4, 3), {}, "at least two folds, three examples"),
        ((2, 2, 3), {}, r"but got \(2, 2, 3\)"),
        ((4, 3), {}, r"shape \(fold, example, unit\)"),
        ((2, 4, 0), {}, "and one unit"),
        ((2, 4, 3), {"precision": "float16"}, "Expected `precision`"),
        ((2, 4, 3), {"device": "gpu"}, "Expected `device` to work here, but got 'gpu'"),
        ((2, 4, 3), {"noise": np.eye(2)}, r"shape \(3, 3\)"),
    ],
)
def test_bad_folds_are_one_sentence(
    shape: tuple[int, ...], options: dict[str, object], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        repsim.crossnobis(np.ones(shape), **options)  # type: ignore[arg-type]


def test_folds_share_their_examples() -> None:
    with pytest.raises(ValueError, match=r"got \(4, 3\), \(5, 3\); keep the examples"):
        repsim.crossnobis([np.ones((4, 3)), np.ones((5, 3))])


def test_folds_and_residuals_must_be_finite() -> None:
    with pytest.raises(ValueError, match="`folds` to be finite"):
        repsim.crossnobis(np.full((2, 4, 3), np.nan))
    with pytest.raises(ValueError, match="`residuals` to be finite"):
        repsim.noise_covariance(np.full((4, 3), np.inf))


def test_bad_residuals_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="`residuals` to have shape"):
        repsim.noise_covariance(np.ones(4))
    with pytest.raises(ValueError, match="`method` to be one of diagonal"):
        repsim.noise_covariance(np.eye(4), method="ledoit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`dof` to be at least 1"):
        repsim.noise_covariance(np.eye(4), dof=0)
