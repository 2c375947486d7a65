"""Numbers along depth between rules, equal accuracy, and the test of relatedness."""

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import repsim
from repsim.inference import (
    at_accuracy,
    describe,
    false_discovery,
    permutation_test,
    profile_test,
)


def profiles(values: np.ndarray, conditions: str) -> xr.DataArray:
    return xr.DataArray(
        values, dims=("network", "layer"), name="margin",
        coords={
            "condition": ("network", list(conditions)),
            "layer": [f"h{i}" for i in range(values.shape[1])],
        },
    )  # fmt: skip


def test_profiles_against_all_assignments(rng: np.random.Generator) -> None:
    values = rng.normal(size=(9, 2))
    values[4:, 1] += 3
    found = profile_test(profiles(values, "aaaabbbbb"), "a", "b")
    for layer in range(2):
        column = values[:, layer]
        observed = abs(column[4:].mean() - column[:4].mean())
        differences = [
            abs(column[list(b)].mean() - np.delete(column, b).mean())
            for b in itertools.combinations(range(9), 5)
        ]
        p = np.mean(np.array(differences) >= observed - 1e-12)
        cell = found.isel(layer=layer)
        assert float(cell["p_value"]) == pytest.approx(p)
        assert float(cell["difference"]) == pytest.approx(
            column[4:].mean() - column[:4].mean()
        )
        pooled = np.sqrt((3 * column[:4].var(ddof=1) + 4 * column[4:].var(ddof=1)) / 7)
        hedges = float(cell["difference"]) / pooled * (1 - 3 / 27)
        assert float(cell["effect"]) == pytest.approx(hedges)
    np.testing.assert_allclose(
        found["q_value"], false_discovery(found["p_value"].values)
    )
    assert "b has the larger value in 1 of them, a in 1." in describe(found)
    assert "There b has the larger value." in describe(found.isel(layer=[1]))


def test_conditions_and_seeds_are_networks_too(rng: np.random.Generator) -> None:
    values = rng.normal(size=(10, 3))
    flat = profile_test(profiles(values, "aaaaabbbbb"), "a", "b")
    grid = xr.DataArray(
        values.reshape(2, 5, 3), dims=("condition", "seed", "layer"),
        coords={"condition": ["a", "b"], "seed": list("01234"),
                "layer": ["h0", "h1", "h2"]},
    )  # fmt: skip
    xr.testing.assert_allclose(profile_test(grid, "a", "b"), flat)
    ragged = grid.where(~((grid["condition"] == "b") & (grid["seed"] == "4")))
    assert profile_test(ragged, "a", "b").attrs["networks_b"] == 4


def test_shared_beginnings_are_a_paired_test(rng: np.random.Generator) -> None:
    start = 10 * rng.normal(size=(6, 1))
    values = np.concatenate([start, start + 1 + 0.1 * rng.normal(size=(6, 1))])
    apart = profiles(values, "aaaaaabbbbbb")
    paired = apart.assign_coords(init_seed=("network", [*range(6), *range(6)]))
    assert float(profile_test(apart, "a", "b")["p_value"].squeeze()) > 0.5
    assert float(profile_test(paired, "a", "b")["p_value"].squeeze()) == 2 / 64


def test_profile_refusals(rng: np.random.Generator) -> None:
    with pytest.raises(TypeError, match="Expected `profiles` to be a DataArray"):
        profile_test(xr.Dataset(), "a", "b")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="coordinate `condition` on network"):
        profile_test(xr.DataArray([1.0], dims="x"), "a", "b")
    table = profiles(rng.normal(size=(6, 1)), "aaabbb")
    with pytest.raises(ValueError, match="Expected `rule_b` to be one of a, b"):
        profile_test(table, "a", "c")
    with pytest.warns(UserWarning, match="smallest attainable p is 0.1"):
        found = profile_test(table, "a", "b")
    assert "Too few" in found.attrs["sentence"]


def trained(accuracies: dict[str, list[float]]) -> xr.DataTree:
    rng, nodes = np.random.default_rng(0), {}
    for key, scores in accuracies.items():
        step = {"step": np.arange(len(scores)) * 10}
        x = rng.normal(size=(len(scores), 8, 2))
        nodes[key] = xr.Dataset({"h": (("step", "example", "h_unit"), x)}, step)
        nodes[f"{key}/training"] = xr.Dataset({"test_accuracy": ("step", scores)}, step)
    return xr.DataTree.from_dict(nodes)


def test_equal_accuracy_takes_the_nearest_record() -> None:
    study = trained({"a/0": [0.1, 0.6, 0.95], "b/0": [0.1, 0.85, 0.8]})
    found = at_accuracy(study)
    a, b = found["a/0"], found["b/0"]
    assert (a.attrs["matched_step"], b.attrs["matched_step"]) == (20, 10)
    assert a.attrs["target_accuracy"] == 0.85
    np.testing.assert_array_equal(a["h"], study["a/0"]["h"].sel(step=20))
    assert "step" not in a.to_dataset().dims
    asked = at_accuracy(study, 0.5)
    assert asked["a/0"].attrs["matched_accuracy"] == 0.6


def test_equal_accuracy_refusals() -> None:
    study = trained({"a/0": [0.1, 0.6]})
    with pytest.raises(ValueError, match="Expected `accuracy` between 0 and 1"):
        at_accuracy(study, 90)
    bare = xr.DataTree.from_dict({"a/0": study["a/0"].to_dataset()})
    with pytest.raises(ValueError, match="training record with `test_accuracy`"):
        at_accuracy(bare)
    single = xr.DataTree.from_dict({"a/0": study["a/0"].to_dataset().isel(step=0)})
    with pytest.raises(ValueError, match="a/0 is a single moment"):
        at_accuracy(single)
    empty = trained({"a/0": [np.nan, np.nan]})
    with pytest.raises(ValueError, match="none at the same steps|got none"):
        at_accuracy(empty)


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


def test_q_values_leave_out_what_has_no_p() -> None:
    p = np.array([[0.01, np.nan], [0.04, 0.5]])
    q = false_discovery(p)
    assert np.isnan(q[0, 1])
    np.testing.assert_allclose(
        [q[0, 0], q[1, 0], q[1, 1]], stats.false_discovery_control([0.01, 0.04, 0.5])
    )
    assert np.isnan(false_discovery(np.array([np.nan]))).all()
