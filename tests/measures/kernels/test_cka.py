"""HSIC and CKA against slow references, in every precision, space and kernel."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.spatial.distance import cdist

from repsim import measures
from repsim.measures import cka, hsic
from repsim.measures.kernels import grams, hsic_sums, minibatch, streamed
from repsim.measures.kernels.centred import Centred


def linear_kernel(x: np.ndarray, bandwidth: float = 1.0) -> np.ndarray:
    x = x - x.mean(0)
    return np.asarray(x @ x.T)


def rbf_kernel(x: np.ndarray, bandwidth: float = 1.0) -> np.ndarray:
    d = cdist(x, x)
    sigma = bandwidth * np.median(d[np.triu_indices(len(d), 1)])
    return np.asarray(np.exp(-(d**2) / (2 * sigma**2)))


KERNELS = {"linear": linear_kernel, "rbf": rbf_kernel}


def reference_hsic(k: np.ndarray, m: np.ndarray, debiased: bool) -> float:
    """Song et al., equation 5, term by term; or Gretton et al.'s trace."""
    n = len(k)
    if not debiased:
        h = np.eye(n) - 1 / n
        return float(np.trace(k @ h @ m @ h) / (n - 1) ** 2)
    k, m, one = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), np.ones(n)
    value = np.trace(k @ m)
    value += (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    value -= 2 / (n - 2) * (one @ k @ m @ one)
    return float(value / (n * (n - 3)))


def reference_cka(k: np.ndarray, m: np.ndarray, debiased: bool) -> float:
    own = reference_hsic(k, k, debiased) * reference_hsic(m, m, debiased)
    return reference_hsic(k, m, debiased) / own**0.5


def related(rng: np.random.Generator, n: int, p: int, q: int) -> tuple[Any, Any]:
    x = rng.normal(size=(n, p))
    y = rng.normal(size=(n, q))
    y[:, : min(p, q)] += x[:, : min(p, q)]
    return x, y


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("shape", [(4, 3, 2), (30, 40, 5), (700, 9, 1), (600, 650, 3)])
def test_values_are_those_of_the_definitions(
    rng: np.random.Generator, kernel: Any, debiased: bool, shape: tuple[int, int, int]
) -> None:
    x, y = related(rng, *shape)
    k, m = KERNELS[kernel](x, 0.7), KERNELS[kernel](y, 0.7)
    options: Any = {"kernel": kernel, "debiased": debiased, "bandwidth": 0.7}
    assert hsic(x, y, **options) == pytest.approx(
        reference_hsic(k, m, debiased), rel=1e-9, abs=1e-13
    )
    assert cka(x, y, **options) == pytest.approx(
        reference_cka(k, m, debiased), abs=1e-11
    )


def test_the_published_toy_values() -> None:
    # Kornblith et al.'s demo and Song et al.'s estimator, worked out by hand for
    # x = (0, 1, 2, 3): centred Gram traces 25, diagonal (9, 1, 1, 9)/4.
    x = np.arange(4.0)[:, None]
    assert hsic(x, x, debiased=False) == pytest.approx(25 / 9)
    assert cka(x, x**2, debiased=False) == pytest.approx(
        np.corrcoef(x[:, 0], x[:, 0] ** 2)[0, 1] ** 2
    )


def test_the_frozen_value_of_pytorch_cka() -> None:
    # pytorch-cka 1.1.3, cka_from_features in float64 on the same numbers.
    rng = np.random.default_rng(7)
    x = rng.normal(size=(32, 5))
    y = np.tanh(x @ rng.normal(size=(5, 4))) + 0.3 * rng.normal(size=(32, 4))
    assert cka(x, y) == pytest.approx(0.6557989889035404, abs=1e-12)


def test_one_unit_against_one_unit_is_the_squared_correlation(
    rng: np.random.Generator,
) -> None:
    x, y = related(rng, 50, 1, 1)
    expected = np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2
    assert cka(x, y, debiased=False) == pytest.approx(expected, abs=1e-12)


def test_independent_noise_is_zero_only_when_debiased() -> None:
    # The survey's check: n = 60, p = 500 and 400, where biased CKA says 0.88.
    values = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(60, 500)), rng.normal(size=(60, 400))
        values.append((cka(x, y), cka(x, y, debiased=False)))
    debiased, biased = np.mean(values, axis=0)
    assert abs(debiased) < 0.01
    assert biased == pytest.approx(0.88, abs=0.01)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize(
    ("precision", "bound"), [("float32", 2e-6), ("bfloat16", 2e-4)]
)
def test_error_of_low_precision(
    precision: str, bound: float, kernel: str, debiased: bool
) -> None:
    get = measures.get("cka").all_pairs
    options: Any = {"kernel": kernel, "debiased": debiased}
    for n, p, q, seed in ((5, 3, 2, 0), (140, 10, 300, 1), (600, 40, 90, 2)):
        rng = np.random.default_rng(seed)
        x, y = related(rng, n, p, q)
        x, y = x.astype(np.float32) * 300, np.maximum(y, 0).astype(np.float32) + 5
        # More than 512 rows and fewer units run in feature space, the others not.
        got = get([x, y], precision=precision, **options)
        exact = get([x, y], precision="float64", **options)
        assert np.abs(got - exact).max() <= bound, (n, p, q)


def test_both_spaces_agree(rng: np.random.Generator) -> None:
    xs = [rng.normal(size=(700, p)) + 3 for p in (3, 40, 90)]
    xs[1][:, :3] += xs[0]
    for split in (None, 1):
        wide = Centred.of(xs, split, "float64", "cpu")
        feature = hsic_sums.feature_sums(wide, split, lambda _: None)
        sample = grams.linear_sums(wide, split, lambda _: None)
        blocks, _, _ = streamed.streamed_sums(
            xs, split, "float64", "cpu", lambda _: None
        )
        asked = np.ones((3, 3), dtype=bool)
        if split == 1:
            asked = np.eye(3, dtype=bool)
            asked[0, 1:] = True
        for other in (sample, blocks):
            np.testing.assert_allclose(other.off[asked], feature.off[asked], rtol=1e-10)
            np.testing.assert_allclose(
                other.diagonal[asked], feature.diagonal[asked], rtol=1e-10
            )


def test_all_pairs_are_the_pairs(rng: np.random.Generator) -> None:
    xs = [rng.normal(size=(150, p)) for p in (3, 200, 7)]
    ys = [x + rng.normal(size=x.shape) for x in xs[:2]]
    for kernel, name in itertools.product(("linear", "rbf"), ("cka", "hsic")):
        measure = measures.get(name)
        got = measure.all_pairs(xs, ys, kernel=kernel)
        one = [[measure(x, y, kernel=kernel) for y in ys] for x in xs]
        np.testing.assert_allclose(got, one, rtol=1e-9, atol=1e-13)
        own = measure.all_pairs(xs, kernel=kernel)
        # A product and its transpose differ in the last bit on some processors.
        np.testing.assert_allclose(own, own.T, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(own, measure.all_pairs(xs, xs, kernel=kernel))


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int32", "bool"])
def test_any_dtype_and_container(rng: np.random.Generator, kind: str) -> None:
    x = (rng.normal(size=(40, 6)) * 3).round().astype(kind)
    y = rng.normal(size=(40, 3)) + x[:, :3]
    exact = cka(x.astype(np.float64), y)
    assert cka(x, y) == pytest.approx(exact, abs=1e-12)
    assert cka(torch.from_numpy(x), y) == pytest.approx(exact, abs=1e-12)
    turned = xr.DataArray(x.T, dims=("unit", "example"))
    assert cka(turned, xr.DataArray(y)) == pytest.approx(exact, abs=1e-12)
    assert cka(x[:, ::-1], np.asfortranarray(y)) == pytest.approx(exact, abs=1e-12)


def test_bfloat16_tensors_and_gradients(rng: np.random.Generator) -> None:
    x = torch.randn(30, 4, requires_grad=True)
    half = x.bfloat16()
    assert cka(half, x) == pytest.approx(
        cka(half.detach().double(), x.detach().double()), abs=1e-12
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e15])
def test_any_scale_in_any_precision(rng: np.random.Generator, scale: float) -> None:
    x, y = related(rng, 200, 6, 4)
    get = measures.get("cka").all_pairs
    exact = cka(x, y)
    assert cka(x * scale, y) == pytest.approx(exact, abs=1e-12)
    got = get([(x * scale).astype(np.float32)], [y], precision="float32")
    assert got[0, 0] == pytest.approx(exact, abs=1e-6)
    big = measures.get("hsic").all_pairs([x * scale], [y], precision="float32")
    assert big[0, 0] == pytest.approx(hsic(x, y) * scale**2, rel=1e-5)


def test_units_of_very_different_scale(rng: np.random.Generator) -> None:
    x, y = related(rng, 60, 7, 5)
    x = x * 10.0 ** np.arange(-3, 4)
    expected = reference_cka(linear_kernel(x), linear_kernel(y), True)
    assert cka(x, y) == pytest.approx(expected, abs=1e-12)


def test_a_large_offset_costs_nothing(rng: np.random.Generator) -> None:
    x, y = related(rng, 200, 6, 4)
    assert cka(x + 1e4, y - 1e4) == pytest.approx(cka(x, y), abs=1e-11)
    stored = (x + 1e4).astype(np.float32)
    exact = cka(stored, y)
    for precision in ("float32", "float64"):
        got = measures.get("cka").all_pairs([stored], [y], precision=precision)
        assert got[0, 0] == pytest.approx(exact, abs=1e-6)


def test_repeated_rows(rng: np.random.Generator) -> None:
    x, y = related(rng, 15, 4, 3)
    x, y = np.repeat(x, 2, axis=0), np.repeat(y, 2, axis=0)
    for kernel in ("linear", "rbf"):
        expected = reference_cka(KERNELS[kernel](x), KERNELS[kernel](y), True)
        assert cka(x, y, kernel=kernel) == pytest.approx(  # type: ignore[arg-type]
            expected, abs=1e-12
        )


def test_a_constant_side_is_nan_with_one_warning(rng: np.random.Generator) -> None:
    x = rng.normal(size=(10, 3))
    for function in (cka, hsic):
        with pytest.warns(UserWarning, match="constant over the examples: `y`") as w:
            assert np.isnan(function(x, np.full((10, 2), 0.1)))
        assert len(w) == 1
    with pytest.warns(UserWarning, match="`x` and `y`"):
        assert np.isnan(cka(np.ones((10, 1)), np.ones((10, 2))))


def test_equidistant_examples_have_no_debiased_cka() -> None:
    with pytest.warns(UserWarning, match="equally far apart"):
        assert np.isnan(cka(np.eye(6), np.eye(6)))
    assert cka(np.eye(6), np.eye(6), debiased=False) == pytest.approx(1)
    assert hsic(np.eye(6), np.eye(6)) == pytest.approx(0, abs=1e-15)


def test_more_than_half_of_pairs_alike_has_no_rbf() -> None:
    x = np.zeros((20, 2))
    x[0] = 1
    with pytest.warns(UserWarning, match="no similarity"):
        assert np.isnan(cka(x, x, kernel="rbf"))


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.ones(4), np.ones((4, 1)), {}, r"`x` to have shape \(examples, units\)"),
        (np.ones((4, 1)), np.ones((4, 1, 2)), {}, "`y` to have .*repsim.reduce"),
        (np.ones((4, 1)), np.ones((5, 1)), {}, "same examples, but got 4 and 5 rows"),
        (np.eye(3), np.eye(3), {}, "at least 4 examples, but got 3"),
        (np.ones((1, 3)), np.ones((1, 3)), {}, "at least 2 examples"),
        (np.eye(4) * np.nan, np.eye(4), {}, "`x` to be finite, but got 16 NaN"),
        (np.eye(4), np.diag([1, 1, 1, np.inf]), {}, "`y` to be finite, but got 1 NaN"),
        (np.eye(4), np.eye(4), {"kernel": "rfb"}, "Did you mean 'rbf'"),
        (np.eye(4), np.eye(4), {"bandwidth": 0.0}, "`bandwidth` to be positive"),
    ],
)
def test_what_is_refused(
    x: np.ndarray, y: np.ndarray, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cka(x, y, **options)


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="`x` to hold real numbers, but got complex"):
        cka(np.eye(4) * 1j, np.eye(4))
    with pytest.raises(TypeError, match="`y` to hold real numbers"):
        cka(np.eye(4), torch.eye(4, dtype=torch.complex64))


def test_biased_needs_two_examples_only() -> None:
    x = np.array([[0.0], [1.0]])
    assert cka(x, x, debiased=False) == pytest.approx(1)


def test_batches_are_averaged_by_rows(rng: np.random.Generator) -> None:
    xs = [rng.normal(size=(1003, p)) for p in (4, 60)]
    xs[1][:, :4] += xs[0]
    get = measures.get("cka").all_pairs
    cuts = [round(i * 1003 / 10) for i in range(11)]
    expected = np.zeros((2, 2))
    for a, b in itertools.pairwise(cuts):
        k = [linear_kernel(x[a:b]) for x in xs]
        for i, j in itertools.product(range(2), range(2)):
            expected[i, j] += (b - a) * reference_hsic(k[i], k[j], True)
    size = np.sqrt(np.diag(expected))
    got = get(xs, batch=100)
    np.testing.assert_allclose(got, expected / np.outer(size, size), atol=1e-12)
    np.testing.assert_allclose(get(xs, xs, batch=100), got, atol=1e-12)
    np.testing.assert_allclose(get(xs, batch=1003), get(xs), atol=1e-12)
    # Four rows more than seven batches of 256: near the value of all examples.
    near = get([x[:1796] for x in (np.tile(x, (2, 1)) for x in xs)], batch=256)
    assert abs(near[0, 1] - get(xs)[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("n", "batch", "sizes"),
    [(2000, 256, {250}), (1796, 256, {256, 257}), (6, 4, {6}), (1003, 1003, {1003})],
)
def test_batches_are_as_near_to_the_size_asked_as_can_be(
    n: int, batch: int, sizes: set[int]
) -> None:
    edges = minibatch.batch_edges(n, batch)
    assert (edges[0], edges[-1]) == (0, n)
    assert set(np.diff(edges).tolist()) == sizes


def test_own_squares_of_equal_layers_are_those_one_by_one(
    rng: np.random.Generator,
) -> None:
    xs = [rng.normal(size=(300, 7)) for _ in range(3)]
    group = Centred.of(xs, None, "float64", "cpu").groups[0]
    one = [float((x.T @ x).square().sum()) for x in group.parts()]
    np.testing.assert_allclose(hsic_sums.own_squares(group), one, rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 3}, r"`batch` to lie in \[4, 30\]"),
        ({"batch": 10.5}, r"`batch` to lie in \[4, 30\], a whole number"),
        ({"batch": 31}, r"`batch` to lie in \[4, 30\]"),
        ({"batch": 10, "kernel": "rbf"}, "`kernel` to be linear with `batch`"),
    ],
)
def test_batches_that_are_refused(
    rng: np.random.Generator, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measures.get("cka").all_pairs([rng.normal(size=(30, 2))], **options)


@pytest.mark.gpu
def test_the_accelerator_gives_the_same_numbers(rng: np.random.Generator) -> None:
    xs = [rng.normal(size=(700, p)).astype(np.float32) for p in (8, 64, 900)]
    xs[1][:, :8] += xs[0]
    get = measures.get("cka").all_pairs
    for options in ({}, {"kernel": "rbf"}, {"debiased": False}, {"batch": 100}):
        exact = get(xs, **options)
        for precision, bound in (("float64", 1e-10), ("float32", 1e-5)):
            got = get(xs, precision=precision, device="cuda", **options)
            assert np.abs(got - exact).max() < bound


def test_little_work_is_done_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    whole = hsic_sums.feature_sums

    def watched(*arguments: Any) -> Any:
        seen.append(torch.get_num_threads())
        return whole(*arguments)

    monkeypatch.setattr(hsic_sums, "feature_sums", watched)
    x = np.random.default_rng(0).normal(size=(500, 3))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cka(x, x)
        monkeypatch.setattr("repsim.measures.kernels.ALONE", 1)
        cka(x, x)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]
