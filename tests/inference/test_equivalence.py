"""Alike within a bound, and how many networks it takes to tell rules apart."""

import warnings

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from repsim.inference import describe, equivalence_test, seed_test, seeds_needed


def tree(
    rng: np.random.Generator, count: int, bases: np.ndarray, shift: float
) -> xr.DataTree:
    base, other = bases
    return xr.DataTree.from_dict(
        {
            f"{rule}/{i}": xr.Dataset(
                {
                    "h": (
                        ("example", "h_unit"),
                        base + shift * (rule == "b") * other
                        + rng.normal(size=base.shape),
                    )
                }
            )
            for rule in "ab"
            for i in range(count)
        }
    )  # fmt: skip


def test_a_difference_as_large_as_the_bound_is_rarely_called_none() -> None:
    rng, repeats, hits = np.random.default_rng(0), 60, 0
    bases = rng.normal(size=(2, 25, 4))
    large = seed_test(tree(rng, 40, bases, 0.7), "a", "b", permutations=40)
    bound = float(large["difference"].item())
    for _ in range(repeats):
        found = equivalence_test(tree(rng, 5, bases, 0.7), "a", "b", bound=bound)
        hits += bool(found["equivalent"].item())
    # 5 % within three standard errors of 2.8 %.
    assert hits / repeats <= 0.135
    alike = equivalence_test(tree(rng, 8, bases, 0.0), "a", "b", bound=bound)
    assert bool(alike["equivalent"].item()) and float(alike["all_p"]) <= 0.05
    assert "are alike within" in describe(alike)
    apart = equivalence_test(tree(rng, 8, bases, 3.0), "a", "b", bound=bound)
    assert "not shown to be alike" in describe(apart)


def test_p_and_interval_agree(rng: np.random.Generator) -> None:
    found = equivalence_test(
        tree(rng, 5, rng.normal(size=(2, 25, 4)), 0.5), "a", "b", bound=0.1
    ).squeeze()
    moved = equivalence_test(
        tree(np.random.default_rng(1), 5, rng.normal(size=(2, 25, 4)), 0.5),
        "a", "b", bound=10.0,
    ).squeeze()  # fmt: skip
    for one in (found, moved):
        bound = one.attrs["bound"]
        assert bool(one["equivalent"]) == (float(one["high"]) <= bound)
        t = (float(one["difference"]) - bound) / float(one["standard_error"])
        # Four to eight degrees of freedom, whatever the kurtosis.
        assert stats.t.cdf(t, 12) - 1e-6 <= float(one["p_value"]) or t > 0


def test_networks_that_are_all_the_same_are_alike_within_any_bound() -> None:
    x = np.random.default_rng(0).normal(size=(25, 4))
    runs = {
        f"{rule}/{i}": xr.Dataset({"h": (("example", "h_unit"), x)})
        for rule in "ab"
        for i in range(4)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = equivalence_test(xr.DataTree.from_dict(runs), "a", "b", bound=0.01)
    numbers = [float(found[k].item()) for k in ("difference", "low", "high", "p_value")]
    assert np.allclose(numbers, 0, atol=1e-9) and bool(found["equivalent"].all())


def test_seeds_needed_foresees_what_tests_see() -> None:
    rng = np.random.default_rng(3)
    bases = rng.normal(size=(2, 30, 5))
    foreseen = seeds_needed(tree(rng, 24, bases, 0.4), "a", "b", seeds=[2, 4, 6])
    seen = {
        count: np.mean(
            [
                float(
                    seed_test(tree(rng, count, bases, 0.4), "a", "b")["p_value"].item()
                )
                <= 0.05
                for _ in range(40)
            ]
        )
        for count in (4, 6)
    }
    power = foreseen["power"].sel(layer="h")
    # Two networks of each rule give six assignments: no test can reject.
    assert float(power.sel(seeds=2)) == 0.0
    for count, share in seen.items():
        assert float(power.sel(seeds=count)) == pytest.approx(share, abs=0.25)
    reached = power["seeds"].values[power.values >= 0.8]
    needed = float(foreseen["needed"].item())
    assert needed == reached[0] if reached.size else np.isnan(needed)


def test_refusals(rng: np.random.Generator) -> None:
    bases = rng.normal(size=(2, 25, 4))
    with pytest.raises(ValueError, match="Expected `bound` to be positive"):
        equivalence_test(tree(rng, 3, bases, 0), "a", "b", bound=0.0)
    with pytest.raises(ValueError, match="at least 3 networks of 'a', but got 2"):
        equivalence_test(tree(rng, 2, bases, 0), "a", "b", bound=0.1)
    with pytest.raises(ValueError, match="at least 4 networks of 'a', but got 3"):
        seeds_needed(tree(rng, 3, bases, 0), "a", "b")
    with pytest.raises(ValueError, match="whose networks are vectors"):
        seeds_needed(tree(rng, 4, bases, 0), "a", "b", "procrustes_distance")
    with pytest.raises(ValueError, match="Expected `power` between 0 and 1"):
        seeds_needed(tree(rng, 4, bases, 0), "a", "b", power=80)
