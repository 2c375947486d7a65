"""Cross-validated distances and noise covariance, against rsatoolbox and theory."""

import warnings
from itertools import permutations

import numpy as np
import pytest
import torch
import xarray as xr
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


def test_dead_units_are_told_from_units_without_noise(rng: np.random.Generator) -> None:
    folds = rng.normal(size=(4, 6, 5))
    alive = [0, 2, 3]
    folds[:, :, 1] = 0
    folds[:, :, 4] = np.arange(4)[:, None]
    noise = repsim.noise_covariance(rng.normal(size=(30, 5)) * [1, 0, 2, 1, 0])
    expected = repsim.crossnobis(folds[..., alive], noise=noise[np.ix_(alive, alive)])
    for sigma in (noise, [noise] * 4):
        np.testing.assert_allclose(repsim.crossnobis(folds, noise=sigma), expected)
    still = repsim.crossnobis(folds[..., alive], noise="heldout")
    silent = repsim.crossnobis(folds[..., [0, 1, 2, 3]], noise="heldout")
    np.testing.assert_allclose(silent, still)
    with pytest.raises(ValueError, match=r"zero in unit 1, 4; leave .*'identity'"):
        repsim.crossnobis(rng.normal(size=(2, 6, 5)), noise=noise)


def test_units_of_any_size_can_be_inverted(rng: np.random.Generator) -> None:
    size = 10.0 ** np.arange(-8, 8, 2)
    folds, residuals = rng.normal(size=(3, 6, 8)), rng.normal(size=(40, 8))
    expected = repsim.crossnobis(folds, noise=repsim.noise_covariance(residuals))
    noise = repsim.noise_covariance(residuals * size)
    np.testing.assert_allclose(repsim.crossnobis(folds * size, noise=noise), expected)
    near = repsim.noise_covariance(rng.normal(size=(3, 8)), method="full")
    with pytest.raises(ValueError, match=r"singular one; shrink it, .*'identity'"):
        repsim.crossnobis(folds, noise=near)


def unbalanced(
    folds: list[np.ndarray], kinds: list[np.ndarray], noise: np.ndarray | None
) -> np.ndarray:
    """Return rsatoolbox's crossnobis of folds that lack or repeat examples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rsatoolbox.data import Dataset
        from rsatoolbox.rdm import calc_rdm_unbalanced

        data = Dataset(
            np.concatenate(folds),
            obs_descriptors={
                "item": np.concatenate(kinds),
                "fold": np.repeat(np.arange(len(folds)), [len(k) for k in kinds]),
            },
        )
        found = calc_rdm_unbalanced(
            data,
            method="crossnobis",
            descriptor="item",
            cv_descriptor="fold",
            noise=None if noise is None else np.linalg.inv(noise),
        )
        return np.asarray(found.dissimilarities[0]) * folds[0].shape[1]


def test_missing_and_repeated_examples_are_rsatoolboxs(
    rng: np.random.Generator,
) -> None:
    kinds = [np.array(k) for k in ([0, 1, 2, 3], [0, 1, 1, 3, 2], [3, 0, 2, 2])]
    folds = [rng.normal(size=(len(k), 5)) for k in kinds]
    named = [
        xr.DataArray(x, dims=("example", "unit"), coords={"example": 10 + k})
        for x, k in zip(folds, kinds, strict=True)
    ]
    noise = repsim.noise_covariance(rng.normal(size=(30, 5)))
    for sigma in (None, noise):
        found = repsim.crossnobis(named, noise=sigma)
        np.testing.assert_allclose(found, unbalanced(folds, kinds, sigma), atol=1e-10)
    assert isinstance(found, xr.DataArray)
    assert found["example_b"].values.tolist() == [11, 12, 13, 12, 13, 13]
    # The same, with NaN where an example is missing.
    whole = rng.normal(size=(3, 4, 5))
    whole[1, 2] = np.nan
    whole[2, 0, 3] = np.nan
    keep = [np.arange(4), np.array([0, 1, 3]), np.array([1, 2, 3])]
    rows = [x[k] for x, k in zip(whole, keep, strict=True)]
    found = repsim.crossnobis(whole, nan="omit")
    np.testing.assert_allclose(found, unbalanced(rows, keep, None), atol=1e-10)
    with pytest.raises(ValueError, match="`folds` to be finite"):
        repsim.crossnobis(whole)


def test_folds_are_matched_by_ids(rng: np.random.Generator) -> None:
    folds = rng.normal(size=(3, 6, 4))
    expected = repsim.crossnobis(folds)
    named = [
        xr.DataArray(x, dims=("example", "unit"), coords={"example": np.arange(6)})
        for x in folds
    ]
    moved = [named[0], named[1][rng.permutation(6)], named[2][rng.permutation(6)]]
    for given in (named, moved, xr.concat(named, "fold")):
        found = repsim.crossnobis(given)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert isinstance(found, xr.DataArray) and found.dims == ("pair",)
    lone = [named[0], named[1].assign_coords(example=np.arange(6) + 6)]
    assert np.isnan(repsim.crossnobis(lone)).all()


def pairwise(folds: np.ndarray, sigma: object) -> np.ndarray:
    """Average over pairs of folds, each with its own covariance."""
    f, n, _ = folds.shape
    out = []
    for a in range(f):
        for b in range(f):
            if a != b:
                inverse = np.linalg.inv(sigma(a, b))  # type: ignore[operator]
                out.append(
                    [
                        (folds[a, i] - folds[a, j])
                        @ inverse
                        @ (folds[b, i] - folds[b, j])
                        for i in range(n)
                        for j in range(i + 1, n)
                    ]
                )
    return np.mean(out, axis=0)


def test_noise_of_each_fold_and_of_the_others(rng: np.random.Generator) -> None:
    folds = rng.normal(size=(5, 6, 4)) + 2
    noises = [repsim.noise_covariance(rng.normal(size=(20, 4))) for _ in range(5)]
    found = repsim.crossnobis(folds, noise=noises)
    expected = pairwise(folds, lambda a, b: (noises[a] + noises[b]) / 2)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    found = repsim.crossnobis(folds, noise="heldout")
    expected = pairwise(
        folds,
        lambda a, b: repsim.noise_covariance(np.delete(folds, [a, b], axis=0)),
    )
    np.testing.assert_allclose(found, expected, atol=1e-10)


def observed(
    folds: list[np.ndarray], kinds: list[np.ndarray], sigma: object, n: int
) -> np.ndarray:
    """Average inner products over all pairs of observations from different folds."""
    total, times = np.zeros((n, n)), np.zeros((n, n))
    for a, b in permutations(range(len(folds)), 2):
        inverse = np.linalg.inv(sigma(a, b))  # type: ignore[operator]
        for x, i in zip(folds[a], kinds[a], strict=True):
            for y, j in zip(folds[b], kinds[b], strict=True):
                total[i, j] += x @ inverse @ y
                times[i, j] += 1
    mean = total / times
    i, j = np.triu_indices(n, 1)
    return np.asarray(mean[i, i] + mean[j, j] - 2 * mean[i, j])


def test_noise_of_folds_that_lack_and_repeat_examples(rng: np.random.Generator) -> None:
    kinds = [np.array(k) for k in ([0, 1, 2], [0, 1, 1, 2], [2, 0, 1], [1, 2], [0, 1])]
    folds = [rng.normal(size=(len(k), 4)) for k in kinds]
    named = [
        xr.DataArray(x, dims=("example", "unit"), coords={"example": k})
        for x, k in zip(folds, kinds, strict=True)
    ]
    noises = [repsim.noise_covariance(rng.normal(size=(20, 4))) for _ in folds]
    found = repsim.crossnobis(named, noise=noises)
    expected = observed(folds, kinds, lambda a, b: (noises[a] + noises[b]) / 2, 3)
    np.testing.assert_allclose(found, expected, atol=1e-10)

    def others(a: int, b: int) -> np.ndarray:
        rows = np.concatenate([x for k, x in enumerate(folds) if k not in (a, b)])
        kind = np.concatenate([c for k, c in enumerate(kinds) if k not in (a, b)])
        left = [rows[kind == k] - rows[kind == k].mean(0) for k in range(3)]
        residuals = np.concatenate([part for part in left if len(part) > 1])
        return repsim.noise_covariance(residuals, dof=len(rows) - 3)

    found = repsim.crossnobis(named, noise="heldout")
    np.testing.assert_allclose(found, observed(folds, kinds, others, 3), atol=1e-10)


def test_noise_against_rsatoolboxs_of_each_fold(rng: np.random.Generator) -> None:
    folds = rng.normal(size=(3, 5, 4))
    noises = [repsim.noise_covariance(rng.normal(size=(20, 4))) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rsatoolbox.data import Dataset
        from rsatoolbox.rdm import calc_rdm

        data = Dataset(
            folds.reshape(-1, 4),
            obs_descriptors={
                "item": np.tile(np.arange(5), 3),
                "fold": np.repeat(np.arange(3), 5),
            },
        )
        peer = calc_rdm(
            data,
            method="crossnobis",
            descriptor="item",
            cv_descriptor="fold",
            noise=[np.linalg.inv(sigma) for sigma in noises],
        )
    found = repsim.crossnobis(folds, noise=noises)
    np.testing.assert_allclose(found, peer.dissimilarities[0] * 4, atol=1e-10)


@pytest.mark.parametrize("noise", [None, "given", "heldout", "folds"])
def test_where_nothing_differs_the_mean_distance_is_zero(noise: str | None) -> None:
    # Correlated noise, no signal at all.
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    means = []
    for _ in range(120):
        folds = rng.normal(size=(5, 8, 6)) @ mixing
        sigma: object = noise
        if noise == "given":
            sigma = repsim.noise_covariance(rng.normal(size=(30, 6)) @ mixing)
        if noise == "folds":
            sigma = repsim.noise_covariance(folds)
        means.append(np.mean(repsim.crossnobis(folds, noise=sigma)))  # type: ignore[arg-type]
    error = np.std(means) / np.sqrt(len(means))
    if noise == "folds":
        # What the documentation warns of.
        assert abs(np.mean(means)) > 5 * error
    else:
        assert abs(np.mean(means)) < 3 * error


def test_held_out_noise_needs_four_folds(rng: np.random.Generator) -> None:
    folds = rng.normal(size=(3, 6, 4))
    with pytest.raises(ValueError, match="at least four folds .* got 3; pass a covar"):
        repsim.crossnobis(folds, noise="heldout")
    with pytest.raises(ValueError, match="Did you mean 'heldout'"):
        repsim.crossnobis(folds, noise="held-out")
    with pytest.raises(ValueError, match="one for each of 3 folds, but got 2"):
        repsim.crossnobis(folds, noise=[np.eye(4)] * 2)
    with pytest.raises(ValueError, match="Expected `nan` to be one of raise, omit"):
        repsim.crossnobis(folds, nan="drop")  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [-115, -70, 55])
def test_folds_of_any_size(rng: np.random.Generator, power: int) -> None:
    folds = rng.normal(size=(3, 6, 4)).astype(np.float32)
    expected = repsim.crossnobis(folds)
    moved = np.ldexp(folds, power)
    if power == -115:
        with pytest.raises(ValueError, match="float32 holds, but got some near 2"):
            repsim.crossnobis(moved)
    found = repsim.crossnobis(moved, precision="float64")
    np.testing.assert_allclose(np.ldexp(found, -2 * power), expected, rtol=1e-4)
    noise = np.ldexp(repsim.noise_covariance(rng.normal(size=(20, 4))), 2 * power)
    plain = repsim.crossnobis(folds, noise=np.ldexp(noise, -2 * power))
    np.testing.assert_allclose(
        repsim.crossnobis(moved, noise=noise), plain, rtol=1e-4, atol=1e-5
    )


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
