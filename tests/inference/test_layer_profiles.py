"""Numbers along depth between rules, equal accuracy, and the test of relatedness."""

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy import stats

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


def welch(a: np.ndarray, b: np.ndarray) -> float:
    """Return Welch's t on the normal scale (Wallace 1959), half a freedom fewer."""
    found = stats.ttest_ind(a, b, equal_var=False)
    free = float(found.df) - 0.5
    factor = (8 * free + 1) / (8 * free + 3)
    return float(factor * np.sqrt(free * np.log1p(found.statistic**2 / free)))


@pytest.mark.parametrize("counts", [(10, 4), (5, 5)])
def test_loose_and_few_networks_are_no_difference(counts: tuple[int, int]) -> None:
    # The plain difference rejects 14 % at 10 + 4 with spreads 1 and 2.
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(20):
        values = np.concatenate(
            [s * rng.normal(size=(n, 20)) for s, n in zip((1, 2), counts, strict=True)]
        )
        names = "a" * counts[0] + "b" * counts[1]
        found = profile_test(profiles(values, names), "a", "b")
        hits.append((found["p_value"].values <= 0.05).mean())
    # 400 tests: three standard errors are 3.3 %.
    assert np.mean(hits) <= 0.083


def test_networks_all_the_same_differ_without_end() -> None:
    values = np.repeat([[0.5], [0.75]], 4, axis=0)
    found = profile_test(profiles(values, "aaaabbbb"), "a", "b")
    assert float(found["p_value"].item()) == pytest.approx(2 / 70)
    same = profile_test(profiles(np.full((8, 1), 0.3), "aaaabbbb"), "a", "b")
    assert float(same["p_value"].item()) == 1.0


def test_profiles_against_all_assignments(rng: np.random.Generator) -> None:
    values = rng.normal(size=(9, 2))
    values[4:, 1] += 3
    found = profile_test(profiles(values, "aaaabbbbb"), "a", "b")
    for layer in range(2):
        column = values[:, layer]
        statistics = [
            welch(np.delete(column, b), column[list(b)])
            for b in itertools.combinations(range(9), 5)
        ]
        observed = welch(column[:4], column[4:])
        p = np.mean(np.array(statistics) >= observed - 1e-8)
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
