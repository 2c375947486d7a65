"""Numbers along depth between rules, equal accuracy, and the test of relatedness."""

import itertools

import numpy as np
import pytest
import xarray as xr

from repsim.inference import (
    describe,
    false_discovery,
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
