"""The test of relatedness: the long way, its error rate, its refusals."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import repsim
from repsim.inference import permutation_test


def recording(x: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"h": (("example", "h_unit"), x)})


@pytest.mark.parametrize("measure", ["cka", "hsic", "procrustes_distance"])
def test_relatedness_against_the_long_way(
    measure: str, rng: np.random.Generator
) -> None:
    x, y = rng.normal(size=(2, 20, 3))
    y += 0.4 * x
    found = permutation_test(
        recording(x), recording(y), measure, permutations=30, seed=7
    )
    function = repsim.measures.get(measure)
    sign = 1 if function.larger_is_more_similar else -1
    orders = np.random.default_rng(7)
    null = [function(x, y[orders.permutation(20)]) for _ in range(30)]
    reached = sum(sign * v >= sign * function(x, y) - 1e-12 for v in null)
    assert float(found["p_value"].squeeze()) == pytest.approx((1 + reached) / 31)
    assert float(found["null_mean"].squeeze()) == pytest.approx(np.mean(null))
    assert float(found["estimate"].squeeze()) == pytest.approx(function(x, y))


def test_independent_sides_have_uniform_p() -> None:
    rng, p = np.random.default_rng(0), []
    for seed in range(150):
        x, y = rng.normal(size=(2, 15, 5))
        found = permutation_test(recording(x), recording(y), permutations=39, seed=seed)
        p.append(float(found["p_value"].squeeze()))
    assert (
        stats.kstest(np.array(p) - rng.uniform(0, 1 / 40, 150), "uniform").pvalue > 0.01
    )


def test_relatedness_refusals(rng: np.random.Generator) -> None:
    a = recording(rng.normal(size=(10, 2)))
    with pytest.raises(ValueError, match="Expected `permutations` to be at least 1"):
        permutation_test(a, a, permutations=0)
    with pytest.raises(TypeError, match="register it first"):
        permutation_test(a, a, lambda x, y: 0.0)
