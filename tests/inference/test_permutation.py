"""The test of relatedness: the long way, its error rate, its refusals."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import repsim
from repsim.inference import permutation, permutation_test


def recording(x: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"h": (("example", "h_unit"), x)})


@pytest.mark.parametrize(
    ("measure", "options", "units"),
    [
        ("cka", {}, 3),
        ("cka", {}, 90),
        ("cka", {"kernel": "rbf"}, 3),
        ("cka", {"debiased": False}, 3),
        ("hsic", {}, 3),
        ("hsic", {"debiased": False}, 3),
        ("rsa", {}, 4),
        ("rsa", {"method": "rho-a"}, 4),
        ("rsa", {"method": "pearson", "metric": "euclidean"}, 4),
        ("rsa", {"method": "kendall"}, 4),
        ("procrustes_distance", {}, 3),
    ],
)
def test_relatedness_against_the_long_way(
    measure: str, options: dict[str, object], units: int, rng: np.random.Generator
) -> None:
    x, y = rng.normal(size=(2, 20, units))
    y += 0.4 * x
    found = permutation_test(
        recording(x), recording(y), measure, permutations=30, seed=7, **options
    )

    def function(x: np.ndarray, y: np.ndarray) -> float:
        return repsim.measures.get(measure)(x, y, **options)

    sign = 1 if repsim.measures.get(measure).larger_is_more_similar else -1
    orders = np.random.default_rng(7)
    null = [function(x, y[orders.permutation(20)]) for _ in range(30)]
    reached = sum(sign * v >= sign * function(x, y) - 1e-12 for v in null)
    assert float(found["p_value"].squeeze()) == pytest.approx((1 + reached) / 31)
    assert float(found["null_mean"].squeeze()) == pytest.approx(np.mean(null))
    assert float(found["estimate"].squeeze()) == pytest.approx(function(x, y))


def test_layers_by_blocks_are_layers_at_once(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        xr.Dataset(
            {k: (("example", f"{k}_unit"), rng.normal(size=(15, 4))) for k in "fgh"}
        )
        for _ in range(2)
    ]
    at_once = permutation_test(*runs, "rsa", permutations=20)
    monkeypatch.setattr(permutation, "_CELLS", 2 * 15**2)
    blocks = permutation_test(*runs, "rsa", permutations=20)
    xr.testing.assert_allclose(at_once, blocks)


def test_groups_stay_together() -> None:
    # 15 stimuli with 4 repeats, each side with stimuli of its own: shuffling repeats
    # finds every study related, shuffling stimuli one in twenty.
    rng = np.random.default_rng(0)
    stimulus = np.repeat(np.arange(15), 4)
    hits = {"none": 0, "stimulus": 0}
    repeats = 60
    for seed in range(repeats):
        a, b = (
            recording(
                rng.normal(size=(15, 3))[stimulus] + 0.3 * rng.normal(size=(60, 3))
            ).assign_coords(stimulus=("example", stimulus))
            for _ in range(2)
        )
        for name, groups in (("none", None), ("stimulus", "stimulus")):
            found = permutation_test(a, b, permutations=39, groups=groups, seed=seed)
            hits[name] += float(found["p_value"].item()) <= 0.05
    # 5 % within three standard errors of 2.8 %.
    assert hits["stimulus"] / repeats <= 0.135
    assert hits["none"] / repeats > 0.5
    array = permutation_test(a, b, permutations=39, groups=stimulus, seed=seed)
    xr.testing.assert_allclose(array.drop_attrs(), found.drop_attrs())


def test_unlike_groups_exchange_among_their_size() -> None:
    which = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4])
    orders, distinct = permutation._orders(which, 50, np.random.default_rng(0))
    assert distinct == pytest.approx(4)
    for order in orders:
        sizes = np.bincount(which)
        np.testing.assert_array_equal(sizes[which], sizes[which[order]])
        assert order[10] == 10
        # A group arrives whole and in its own order.
        assert order[1] == order[0] + 1 and order[6] == order[4] + 2


def test_copies_are_said(rng: np.random.Generator) -> None:
    x = rng.normal(size=(10, 3))
    twice = recording(np.concatenate([x, x]))
    with pytest.warns(UserWarning, match="10 of 20 examples are exact copies"):
        permutation_test(twice, twice, permutations=9)


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
    with pytest.raises(ValueError, match="Expected `groups` to be one of"):
        permutation_test(a, a, groups="sentence")
    with pytest.raises(ValueError, match="to label 10 examples, but got shape .3"):
        permutation_test(a, a, groups=[1, 2, 3])
    with pytest.raises(ValueError, match="sizes 4, 6; cut groups to one size"):
        permutation_test(a, a, groups=[0] * 4 + [1] * 6)
    with pytest.raises(TypeError, match="register it first"):
        permutation_test(a, a, lambda x, y: 0.0)


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        ("cka", {}),
        ("cka", {"kernel": "rbf"}),
        ("hsic", {}),
        ("rsa", {"metric": "euclidean", "method": "pearson"}),
    ],
)
def test_numbers_of_any_size(
    measure: str, options: dict[str, object], rng: np.random.Generator
) -> None:
    x, y = rng.normal(size=(2, 20, 4))
    expected = permutation_test(
        recording(x), recording(y), measure, permutations=19, **options
    )
    for power in (-400, 400):
        # HSIC is of the fourth order, the product of both sides' squares.
        runs = recording(x * 2.0**power), recording(y * 2.0**-power)
        found = permutation_test(*runs, measure, permutations=19, **options)
        xr.testing.assert_allclose(found, expected)
