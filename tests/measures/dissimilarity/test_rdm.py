"""RDMs of arrays: scipy's values, and what is said where there is none."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

import repsim
from repsim.core.threads import calm
from repsim.measures.dissimilarity import rsa_pairs, triangle
from repsim.measures.dissimilarity.batched import small_rdms
from repsim.measures.dissimilarity.distances import METRICS, condensed
from repsim.measures.kernels import hsic_sums

SHAPES = [(3, 2), (3, 7), (40, 5), (130, 20), (257, 3)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", SHAPES)
def test_rdm_equals_scipy(
    rng: np.random.Generator, metric: str, shape: tuple[int, int]
) -> None:
    if metric == "mahalanobis" and shape[0] <= shape[1]:
        pytest.skip("the covariance is singular")
    x = rng.normal(size=shape) + 10
    found = repsim.rdm(x, metric=metric)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, pdist(x, metric), rtol=1e-10, atol=1e-10)
    assert found.dtype == np.float64


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_nearly_equal_rows_keep_their_digits(
    rng: np.random.Generator, metric: str
) -> None:
    x = rng.normal(size=(30, 10)) * 1e4
    x[1] = x[0]
    x[2] = x[0] + 1e-6 * rng.normal(size=10)
    found = repsim.rdm(x, metric=metric)  # type: ignore[arg-type]
    assert found[0] == 0
    np.testing.assert_allclose(found, pdist(x, metric), rtol=1e-9)


def test_mahalanobis_takes_a_covariance(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 9))
    noise = np.cov(rng.normal(size=(50, 9)).T)
    found = repsim.rdm(x, metric="mahalanobis", noise=noise)
    expected = pdist(x, "mahalanobis", VI=np.linalg.inv(noise))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("metric", "row", "word"),
    [("correlation", [0.1, 0.1, 0.1], "constant"), ("cosine", [0, 0, 0], "zero")],
)
def test_rows_without_direction_are_nan_with_one_warning(
    metric: str, row: list[float], word: str
) -> None:
    x = np.array([row, [1.0, 2.0, 4.0], [3.0, 1.0, 2.0], [0.0, 1.0, 5.0]])
    with pytest.warns(UserWarning, match=f"1 of 4 examples are {word}") as caught:
        found = repsim.rdm(x, metric=metric)  # type: ignore[arg-type]
    assert len(caught) == 1
    assert np.isnan(found[:3]).all()
    np.testing.assert_allclose(found[3:], pdist(x[1:], metric), atol=1e-12)


def test_any_container_and_dtype_gives_float64(rng: np.random.Generator) -> None:
    x = rng.normal(size=(8, 4)).astype(np.float32)
    expected = pdist(x.astype(np.float64), "correlation")
    for given_ in (x, torch.as_tensor(x), xr.DataArray(x, dims=("example", "u"))):
        np.testing.assert_allclose(repsim.rdm(given_), expected, atol=1e-12)
    half = repsim.rdm(torch.as_tensor(x, dtype=torch.bfloat16), metric="euclidean")
    assert half.dtype == np.float64


@pytest.mark.parametrize("metric", METRICS[:4])
@pytest.mark.parametrize("n", [5, 50, 130])
def test_many_small_layers_at_once_are_the_single_ones(
    rng: np.random.Generator, metric: str, n: int
) -> None:
    x = rng.normal(size=(9, n, 12))
    x[1, 3] = x[1, 4]  # equal rows,
    x[2] = rng.integers(0, 2, (n, 12))  # a grid,
    x[3, 2] = 0  # an example without direction,
    x[4, 0] *= 1e9  # one of another size,
    x[5] *= 1e-200  # numbers that underflow,
    x[6, 1] = x[6, 2] + 1e-9 * rng.normal(size=12)  # near rows,
    turn = np.arange(n)[:, None] - np.arange(n)[None, :12]
    x[7] = np.cos(2 * np.pi * turn / n) if n >= 12 else x[8]  # ties by symmetry:
    out = np.empty((9, n * (n - 1) // 2))
    plain = small_rdms(x, metric, out)
    # these are left to the general function, the others are equal to it.
    assert not plain[[1, 5, 6]].any() and plain[[0, 8]].all()
    lengths = metric.endswith("euclidean")
    assert plain[4] != lengths and (lengths or not plain[3])
    # (five rows of a grid may have no two equal distances).
    assert n < 12 or not plain[[2, 7]].any()
    for k in np.flatnonzero(plain):
        expected = condensed(torch.as_tensor(x[k]), metric)[0]
        np.testing.assert_allclose(out[k], expected, rtol=1e-9, atol=1e-14)


def test_small_matrices_are_computed_on_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with calm(1000):
            assert torch.get_num_threads() == 1
        with calm(1 << 20):
            assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), calm(1000):
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_bands_cover_every_pair(rng: np.random.Generator) -> None:
    for n in (63, 64, 65, 400):
        x = torch.as_tensor(rng.normal(size=(n, 4)))
        np.testing.assert_allclose(
            condensed(x, "cosine")[0], pdist(x.numpy(), "cosine"), atol=1e-12
        )


@pytest.mark.parametrize("units", [512, 5000])
def test_float32_keeps_six_digits_however_wide_the_layer(
    rng: np.random.Generator, units: int
) -> None:
    # Correlated ReLU units, as of a trained layer: sums of many positive products.
    hidden = rng.normal(size=(370, 32)) @ rng.normal(size=(32, units))
    x = np.maximum(hidden + rng.normal(size=hidden.shape), 0).astype(np.float32)
    found = condensed(torch.as_tensor(x), "correlation")[0]
    expected = pdist(x.astype(np.float64), "correlation")
    assert np.abs(found - expected).max() < 1.5e-6


@pytest.mark.parametrize("metric", ["correlation", "cosine", "sqeuclidean"])
def test_every_routine_of_the_product_is_right_in_float32(
    rng: np.random.Generator, metric: str
) -> None:
    # Large enough for oneDNN where there is one, and for bands; without it, the BLAS.
    # Units first in memory, as a transposed tensor has them.
    x = torch.as_tensor(rng.normal(size=(410, 420)), dtype=torch.float32).T
    expected = pdist(x.double().numpy(), metric)
    vendors = condensed(x, metric)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hsic_sums, "WORTH", 1 << 60)
        torches = condensed(x, metric)[0]
        patch.setattr(triangle, "WORTH", 1 << 60)
        plain = condensed(x, metric)[0]
    scale = max(1, expected.max())
    for found in (vendors, plain, torches):
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 2e-6 * scale


@pytest.mark.parametrize("metric", ["correlation", "cosine", "euclidean", "cityblock"])
@pytest.mark.parametrize("power", [-115, -75, 60, 112])
def test_numbers_of_any_size_keep_their_distances(
    rng: np.random.Generator, metric: str, power: int
) -> None:
    # 1e-35 to 1e34, of which float32 holds no square.
    for shape in ((30, 6), (220, 400)):
        x = rng.normal(size=shape).astype(np.float32)
        expected = condensed(torch.as_tensor(x), metric)[0]
        found = condensed(torch.as_tensor(np.ldexp(x, power)), metric)[0]
        again = np.ldexp(x.astype(np.float64), 8 * power)
        wide = repsim.rdm(again, metric=metric)  # type: ignore[arg-type]
        scale = 0 if metric in ("correlation", "cosine") else power
        np.testing.assert_allclose(np.ldexp(found, -scale), expected, rtol=2e-5)
        np.testing.assert_allclose(np.ldexp(wide, -8 * scale), expected, rtol=2e-5)


@pytest.mark.parametrize("metric", METRICS[:4])
@pytest.mark.parametrize("size", [1e4, 1e12, 1e36])
def test_one_diverged_example_spoils_no_other(
    rng: np.random.Generator, metric: str, size: float
) -> None:
    for shape in ((12, 6), (220, 400)):
        x = rng.normal(size=shape).astype(np.float32)
        x[3] *= size
        exact = pdist(x.astype(np.float64), metric)
        run = xr.Dataset({"h": (("example", "unit"), x)})
        found = repsim.rdms(run, metric=metric).values[0]  # type: ignore[arg-type]
        np.testing.assert_allclose(found, exact, rtol=2e-5)
        # Squares of 1e36 need more than float32 has.
        wide = metric == "sqeuclidean" and size > 1e30
        assert found.dtype == ("float64" if wide else "float32")
        # One of a few rows, as of a run that diverged: the others' ranks stay.
        y = rng.normal(size=shape)
        held = exact if wide else exact.astype(np.float32)
        left = spearmanr(held, pdist(y, metric)).statistic
        both = xr.Dataset({"x": (("example", "u"), x), "y": (("example", "v"), y)})
        cell = repsim.compare(
            both.astype(np.float32), measure="rsa", metric=metric
        ).values[0, 1]
        assert cell == pytest.approx(left, abs=1e-4)


def test_distances_out_of_range_are_refused() -> None:
    x = np.diag([1e30, 2e30, 3e30, 4e30])
    run = xr.Dataset({"h": (("example", "unit"), x.astype(np.float32))})
    assert repsim.rdms(run, metric="sqeuclidean").dtype == np.float64
    with pytest.raises(ValueError, match="that float32 holds, .* precision='float64'"):
        repsim.rdms(run, metric="sqeuclidean", precision="float32")
    with pytest.raises(ValueError, match="that float32 holds, .* near 4e.180"):
        repsim.rdms(run.astype(float) * 1e150, precision="float32")
    far = run.astype(float) * 1e150
    options = {"metric": "euclidean", "precision": "float32"}
    assert repsim.compare(far, measure="rsa", **options).values.tolist() == [[1.0]]
    with pytest.raises(ValueError, match="float64 holds.*multiply the activations by"):
        repsim.rdm(x * 1e150, metric="sqeuclidean")
    assert repsim.rsa(x * 1e150, np.eye(4) + x / 1e31, metric="sqeuclidean") <= 1


def test_a_large_offset_costs_single_precision_nothing_more_than_it_must(
    rng: np.random.Generator,
) -> None:
    # Rows of 1e4 ± 1 in float32, whose mean is rounded to what their differences are.
    x = (1e4 + rng.normal(size=(230, 400))).astype(np.float32)
    found = condensed(torch.as_tensor(x), "correlation")[0]
    np.testing.assert_allclose(found, pdist(x.astype(float), "correlation"), atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_correlation_ignores_scale_offset_and_order_of_units(
    seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 5))
    moved = scale * x[:, rng.permutation(5)] + rng.normal(size=(6, 1))
    np.testing.assert_allclose(repsim.rdm(x), repsim.rdm(moved), atol=1e-9)


@pytest.mark.parametrize(
    ("x", "options", "match"),
    [
        (np.ones(4), {}, r"shape \(examples, units\)"),
        (np.arange(4.0).reshape(2, 2), {}, "at least 3 examples, but got 2"),
        (np.full((4, 2), np.nan), {}, "finite, but got 8 NaN"),
        (np.eye(4), {"metric": "corelation"}, "Did you mean 'correlation'"),
        (np.eye(3), {"metric": "mahalanobis"}, "more examples than units"),
        (np.eye(4), {"noise": np.eye(4)}, "only with metric='mahalanobis'"),
        (
            np.eye(4),
            {"metric": "mahalanobis", "noise": np.eye(3)},
            r"shape \(4, 4\), but got \(3, 3\)",
        ),
        (
            np.eye(4),
            {"metric": "mahalanobis", "noise": np.arange(16.0).reshape(4, 4)},
            "finite and symmetric",
        ),
        (
            np.eye(4),
            {"metric": "mahalanobis", "noise": np.ones((4, 4))},
            "can be inverted",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    x: np.ndarray, options: dict[str, object], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        repsim.rdm(x, **options)  # type: ignore[arg-type]


def test_rsa_is_the_similarity_of_two_rdms(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 9))
    expected = spearmanr(pdist(x, "correlation"), pdist(y, "correlation")).statistic
    assert repsim.rsa(x, y) == pytest.approx(expected, abs=1e-12)
    found = repsim.rsa(x, x @ np.linalg.qr(rng.normal(size=(4, 4)))[0], metric="cosine")
    assert found == pytest.approx(1, abs=1e-9)


def test_examples_with_nan_are_left_out_when_asked(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(9, 4)), rng.normal(size=(9, 3))
    x[2, 1] = np.nan
    y[5] = np.nan
    for metric in METRICS:
        found = repsim.rdm(x, metric=metric, nan="omit")  # type: ignore[arg-type]
        i, j = np.triu_indices(9, 1)
        gone = (i == 2) | (j == 2)
        assert np.isnan(found[gone]).all()
        there = repsim.rdm(np.delete(x, 2, 0), metric=metric)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found[~gone], there)
    keep = np.delete(np.arange(9), [2, 5])
    one = repsim.rsa(x, y, nan="omit")
    assert one == repsim.rsa(x[keep], y[keep])
    with pytest.warns(UserWarning, match="pairs are NaN"):
        two = repsim.compare_rdms(*(repsim.rdm(v, nan="omit") for v in (x, y)))
    assert one == pytest.approx(two, abs=1e-12)
    run = xr.Dataset({"x": (("example", "u"), x), "y": (("example", "v"), y)})
    stack = repsim.rdms(run, nan="omit")
    np.testing.assert_array_equal(stack[0], repsim.rdm(x, nan="omit"))
    assert int(stack.isnull().sum()) == 16
    x[0, 0] = np.inf
    for call in (lambda: repsim.rdm(x, nan="omit"), lambda: repsim.rdms(run)):
        with pytest.raises(ValueError, match="to be finite, but got"):
            call()
    with pytest.raises(ValueError, match="`nan` to be one of raise, omit"):
        repsim.rdms(run, nan="drop")  # type: ignore[arg-type]


def test_rsa_refuses_unequal_examples() -> None:
    with pytest.raises(ValueError, match="same examples, but got 4 and 5 rows"):
        repsim.rsa(np.eye(4), np.eye(5))


def test_rsa_of_a_constant_side_is_nan(rng: np.random.Generator) -> None:
    with pytest.warns(UserWarning, match="constant over the examples"):
        assert np.isnan(repsim.rsa(np.ones((5, 3)), rng.normal(size=(5, 3))))


def test_compare_uses_each_rdm_once_and_agrees(rng: np.random.Generator) -> None:
    run = xr.Dataset(
        {
            f"h{k}": (("example", f"h{k}_unit"), rng.normal(size=(12, 5)))
            for k in range(3)
        }
    )
    found = repsim.compare(run, measure="rsa", metric="euclidean", method="kendall")
    for i, a in enumerate(run.data_vars):
        for j, b in enumerate(run.data_vars):
            one = repsim.rsa(
                run[a].values, run[b].values, metric="euclidean", method="kendall"
            )
            assert found.values[i, j] == pytest.approx(one, abs=1e-12)


def test_all_pairs_of_two_sides_equal_the_single_ones(rng: np.random.Generator) -> None:
    xs = [rng.normal(size=(9, 3)) for _ in range(2)]
    ys = [rng.normal(size=(9, 4)) for _ in range(3)]
    found = rsa_pairs(xs, ys, metric="cosine", method="pearson", progress=False)
    assert found.shape == (2, 3)
    assert found[1, 2] == pytest.approx(
        repsim.rsa(xs[1], ys[2], metric="cosine", method="pearson")
    )


def test_a_layer_with_some_silent_examples_is_compared_on_the_rest(
    rng: np.random.Generator,
) -> None:
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    x[2] = 0
    with pytest.warns(UserWarning, match="1 examples have no correlation distance"):
        found = repsim.rsa(x, y)
    keep = np.delete(np.arange(8), 2)
    assert found == pytest.approx(repsim.rsa(x[keep], y[keep]))


@pytest.mark.parametrize(
    ("options", "match"),
    [({"metric": "l7"}, "`metric`"), ({"method": "spearmen"}, "Did you mean 'spear")],
)
def test_rsa_names_what_exists(options: dict[str, str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        repsim.rsa(np.eye(4), np.eye(4), **options)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_rsa_on_an_accelerator(rng: np.random.Generator) -> None:
    xs = [rng.normal(size=(50, 6)) for _ in range(3)]
    np.testing.assert_allclose(
        rsa_pairs(xs, device="cuda"), rsa_pairs(xs, device="cpu"), atol=1e-9
    )
