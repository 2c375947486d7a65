"""Sizes of numbers, and what of them is rounding."""

import numpy as np
import pytest
import torch
import xarray as xr

import repsim
from repsim import measures
from repsim.measures.magnitudes import Rounding, near_one, significant_bits

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
RANKED = {
    "cca": {},
    "pwcca": {},
    "svcca": {"variance": 1.0},
    "shape_distance": {"alpha": 0.0},
}


def layers(n: int, inputs: int, units: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Two linear layers of the same inputs, computed in a dtype."""
    x = torch.randn(n, inputs).to(dtype)
    with torch.no_grad():
        return [torch.nn.Linear(inputs, units).to(dtype)(x) for _ in range(2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, inputs, units", [(100, 10, 32), (600, 100, 128)])
@pytest.mark.parametrize("name", list(RANKED))
def test_rounding_is_no_direction(
    name: str, n: int, inputs: int, units: int, dtype: torch.dtype
) -> None:
    x, y = layers(n, inputs, units, dtype)
    measure = measures.get(name)
    best = 1.0 if measure.larger_is_more_similar else 0.0
    # What is left is that rounding turns the directions themselves.
    bound = 2e-6 if dtype in DTYPES[:2] else 1e-2
    for a, b in ((x, y), (x.double(), y.double())):
        assert measure(a, b, **RANKED[name]) == pytest.approx(best, abs=bound)
    got = measure.all_pairs([x, y], **RANKED[name])
    assert got[0, 1] == pytest.approx(best, abs=bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_rank_of_what_was_rounded(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    for rank, offset in ((1, 0.0), (7, 0.0), (7, 1.0), (20, 0.0)):
        z = rng.normal(size=(200, rank)) @ rng.normal(size=(rank, 40)) + offset
        x = torch.as_tensor(z).to(dtype)
        moved = x.double() - x.double().mean(dim=0)
        s = torch.linalg.svdvals(moved)
        assert Rounding.of(x).rank(s, x.shape) == rank
        by = 40
        assert Rounding.of(x, by).rank(s * 2.0**by, x.shape) == rank


def test_small_directions_of_exact_numbers_stay() -> None:
    # One grey level in one picture: a direction, for whole numbers are not rounded.
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=(300, 6)).astype(float)
    x[:, 5] = x[:, 0] + x[:, 1]
    x[7, 5] += 1
    for dtype in (np.float64, np.float32, np.uint16):
        y = x.astype(dtype)
        assert significant_bits(torch.as_tensor(y.astype(np.float64))) == 53
        same = measures.get("shape_distance")(y, y[:, ::-1] / 1, alpha=0.0)
        assert same == pytest.approx(0, abs=1e-6)
        cut = measures.cca(y, y[:, :5] + 0.25 * y[:, [5]])
        assert cut == pytest.approx(1, abs=1e-9)
        # Five directions of the second side, six of the first.
        _, _, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
        assert measures.cca(y, (x - x.mean(0)) @ vt[5][:, None]) == pytest.approx(1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_that_numbers_carry(dtype: torch.dtype) -> None:
    x = torch.randn(50, 3, dtype=torch.float64).to(dtype)
    bits = {64: 53, 32: 24, 16: 11}[torch.finfo(dtype).bits]
    bits = 8 if dtype == torch.bfloat16 else bits
    assert significant_bits(x) == significant_bits(x.double()) == bits


@pytest.mark.parametrize("power", [-1070, -300, -15, 0, 15, 300, 1000])
def test_powers_of_two_change_no_digit(power: int) -> None:
    x = torch.tensor([[1.5, -0.25], [0.75, 1.0]], dtype=torch.float64)
    scaled, by = near_one(torch.ldexp(x, torch.tensor(power)), torch.float64)
    assert 0.2 < float(scaled.abs().max()) < 1e5
    np.testing.assert_array_equal(scaled, torch.ldexp(x, torch.tensor(power + by)))


def run(scale: float, dtype: str, n: int = 300) -> xr.Dataset:
    """A recording of two layers of some size."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 5))
    made = {"a": x, "b": x[:, :4] + 0.5 * rng.normal(size=(n, 4))}
    return xr.Dataset(
        {
            k: (("example", f"{k}_unit"), (v * scale).astype(dtype))
            for k, v in made.items()
        }
    )


@pytest.mark.parametrize(
    "scale, dtype",
    [(1e37, "float32"), (1e-37, "float32"), (1e160, "float64"), (1e-160, "float64"),
     (1e300, "float64"), (1e-300, "float64"), (1e80, "float64")],
)  # fmt: skip
@pytest.mark.parametrize(
    "measure, options",
    [("cka", {}), ("cka", {"debiased": False}), ("cka", {"kernel": "rbf"}),
     ("cka", {"batch": 60}), ("cca", {}), ("procrustes_distance", {}),
     ("mutual_knn", {"metric": "euclidean"}), ("linear_predictivity", {})],
)  # fmt: skip
def test_compare_of_any_size(
    measure: str, options: dict[str, object], scale: float, dtype: str
) -> None:
    right = repsim.compare(run(1, dtype), measure=measure, **options)  # type: ignore[arg-type]
    got = repsim.compare(run(scale, dtype), measure=measure, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(got, right, atol=2e-6)


@pytest.mark.parametrize("scale", [1e160, 1e-160, 1e307])
def test_streaming_of_any_size(scale: float) -> None:
    whole = run(1, "float64")
    right = repsim.compare(whole, precision="float64")
    streaming, other = repsim.StreamingCKA(), repsim.StreamingCKA()
    sizes = np.where(np.arange(300) < 100, 1e-3, 1.0)[:, None]
    for first, last, one in ((0, 90, streaming), (90, 200, other), (200, 300, other)):
        part = whole.isel(example=slice(first, last))
        one.update({k: part[k].values * scale for k in "ab"})
    np.testing.assert_allclose(streaming.merge(other).compute(), right, atol=1e-9)
    # The first batch is a thousand times smaller than those that follow.
    late = repsim.StreamingCKA()
    for rows in (slice(0, 100), slice(100, 300)):
        late.update({k: (whole[k].values * sizes * scale)[rows] for k in "ab"})
    grown = xr.Dataset(
        {k: (("example", f"{k}_unit"), whole[k].values * sizes) for k in "ab"}
    )
    right = repsim.compare(grown, precision="float64")
    np.testing.assert_allclose(late.compute(), right, atol=1e-9)


def test_hsic_carries_its_units() -> None:
    a, b = (run(1, "float64")[k].values for k in "ab")
    assert measures.hsic(a * 1e60, b * 1e-80) == pytest.approx(
        measures.hsic(a, b) * 1e-40, rel=1e-9
    )
    assert measures.hsic(a * 1e160, b * 1e160) == np.inf
