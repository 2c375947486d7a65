"""The interval of a difference over networks and examples, the long way."""

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import repsim
from repsim.inference import seed_test
from repsim.inference.designs import design
from repsim.inference.jackknife import Estimates, interval, scale
from repsim.inference.place_spread import without_each

COUNTS = {"a": 3, "b": 4}
N = 15


def networks(rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Return one layer of each network by rule."""
    base, other = rng.normal(size=(2, N, 3))
    return {
        rule: [
            base + 0.5 * other * (rule == "b") + 0.6 * rng.normal(size=(N, 3))
            for _ in range(count)
        ]
        for rule, count in COUNTS.items()
    }


def as_study(layers: list[dict[str, list[np.ndarray]]], size: int = 1) -> xr.DataTree:
    """Return several layers of the same networks."""
    image = ("example", np.arange(N) // size)
    return xr.DataTree.from_dict(
        {
            f"{rule}/{i}": xr.Dataset(
                {
                    f"h{k}": (("example", f"h{k}_unit"), layer[rule][i])
                    for k, layer in enumerate(layers)
                },
                coords={"image": image},
            )
            for rule, count in COUNTS.items()
            for i in range(count)
        }
    )


def slow(of: dict[str, list[np.ndarray]], keep: np.ndarray, measure: str) -> float:
    """Return (within a + within b) / 2 - between by a loop over pairs."""
    function = repsim.measures.get(measure)

    def mean(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
        return float(np.mean([function(x[keep], y[keep]) for x, y in pairs]))

    within = [mean(itertools.combinations(xs, 2)) for xs in of.values()]
    across = mean(itertools.product(of["a"], of["b"]))
    sign = 1 if function.larger_is_more_similar else -1
    return sign * (sum(within) / 2 - across)


def seeds_alone(of: dict[str, list[np.ndarray]], measure: str) -> Estimates:
    """Return what `over="seed"` is made of."""
    names = [(rule, str(i)) for rule, xs in of.items() for i in range(len(xs))]
    function = repsim.measures.get(measure)
    xs = [x for some in of.values() for x in some]
    values = np.array([[function(x, y) for y in xs] for x in xs])
    plan = design(names, [None] * len(names), "b")
    return without_each(values, plan, similarity=function.larger_is_more_similar)


@pytest.mark.parametrize("measure", ["cka", "procrustes_distance"])
def test_examples_networks_and_both_are_left_out(
    rng: np.random.Generator, measure: str
) -> None:
    of = networks(rng)
    everything = np.arange(N)
    left = [np.delete(everything, i) for i in everything]
    whole = slow(of, everything, measure)
    examples = np.array([[slow(of, keep, measure)] for keep in left])
    both = 0.0
    for rule, count in COUNTS.items():
        inner = np.empty((N, count))
        for index in range(count):
            rest = of | {rule: [x for i, x in enumerate(of[rule]) if i != index]}
            middle = slow(rest, everything, measure)
            inner[:, index] = [slow(rest, keep, measure) - middle for keep in left]
        inner -= inner.mean(0)
        inner -= inner.mean(1, keepdims=True)
        both += (count - 1) / count * (N - 1) / N * (inner**2).sum()
    factors = [
        interval(estimates, scale(None), 0.95)
        for estimates in (
            Estimates(np.array([whole]), examples), seeds_alone(of, measure)
        )
    ]  # fmt: skip
    parts = [float(one.standard_error[0]) ** 2 for one in factors]
    variance = max(sum(parts) - both, *parts)
    share = sum(
        v**2 / float(one.freedom[0]) for v, one in zip(parts, factors, strict=True)
    )
    reach = stats.t.ppf(0.975, variance**2 / share) * np.sqrt(variance)
    study = as_study([of, networks(rng)])
    found = seed_test(study, "a", "b", measure, over=("example", "seed"))
    one = found.sel(layer="h0")
    assert float(one["difference"]) == pytest.approx(whole)
    assert float(one["low"]) == pytest.approx(whole - reach)
    assert float(one["high"]) == pytest.approx(whole + reach)
    # Each layer has its own.
    assert found["low"].dims == ("layer",) and found.sizes["layer"] == 2
    assert float(found["low"][1]) != float(found["low"][0])
    assert found.attrs["over"] == ["example", "seed"]


def test_over_networks_each_is_left_out(rng: np.random.Generator) -> None:
    of, everything = networks(rng), np.arange(N)
    variances, freedoms = [], []
    for rule, count in COUNTS.items():
        left = np.array(
            [
                slow(
                    of | {rule: [*of[rule][:i], *of[rule][i + 1 :]]}, everything, "cka"
                )
                for i in range(count)
            ]
        )
        deviation = left - left.mean()
        variances.append((count - 1) / count * float((deviation**2).sum()))
        excess = (deviation**4).mean() / (deviation**2).mean() ** 2 - 3
        freedoms.append(2 / (max(excess, 0) / count + 2 / (count - 1)))
    whole = slow(of, everything, "cka")
    share = sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    freedom = sum(variances) ** 2 / share
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(sum(variances))
    found = seed_test(as_study([of]), "a", "b").squeeze()
    assert float(found["low"]) == pytest.approx(whole - reach)
    assert float(found["high"]) == pytest.approx(whole + reach)


def test_groups_of_one_example_are_examples(rng: np.random.Generator) -> None:
    study = as_study([networks(rng)], size=1)
    alone = seed_test(study, "a", "b", over=("example", "seed"))
    groups = seed_test(study, "a", "b", over=("image", "seed"))
    for end in ("low", "high"):
        np.testing.assert_allclose(groups[end], alone[end])
    copies = as_study([networks(rng)], size=3)
    apart = seed_test(copies, "a", "b", over=("image", "seed"))
    assert apart["low"].item() < apart["high"].item()


def test_a_lone_network_has_no_interval(rng: np.random.Generator) -> None:
    runs = as_study([networks(rng)]).to_dict()
    study = xr.DataTree.from_dict(
        {path: run for path, run in runs.items() if path[:3] == "/a/" or "b/0" in path}
    )
    with pytest.warns(UserWarning, match="Too few networks"):
        found = seed_test(study, "a", "b", over=("example", "seed"))
    assert np.isnan(found["low"].item())


def test_what_the_interval_is_about_is_checked(rng: np.random.Generator) -> None:
    study = as_study([networks(rng)])
    for over in ("example", ("seed", "example"), ("example", "image", "seed")):
        with pytest.raises(ValueError, match='Expected `over` to be "seed", or a pair'):
            seed_test(study, "a", "b", over=over)
    with pytest.raises(ValueError, match="Did you mean 'image'"):
        seed_test(study, "a", "b", over=("imge", "seed"))
