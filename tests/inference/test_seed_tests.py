"""The seed test: its numbers the long way, its error rate, and its sentences."""

import itertools
import warnings

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.inference import describe, findings, seed_test


def run(x: np.ndarray, init: int | None = None, **more: np.ndarray) -> xr.Dataset:
    data = {k: (("example", f"{k}_unit"), v) for k, v in {"h": x, **more}.items()}
    return xr.Dataset(data, attrs={} if init is None else {"init_seed": init})


def study(
    rng: np.random.Generator, seeds: tuple[int, int], shift: float, shared: int = 0
) -> xr.DataTree:
    """Return networks around two bases; the first `shared` of each begin alike."""
    base, other = rng.normal(size=(2, 25, 4))
    starts = rng.normal(size=(shared, 25, 4))
    runs = {}
    for rule, count in zip("ab", seeds, strict=True):
        center = base + shift * other * (rule == "b")
        for i in range(count):
            x = center + rng.normal(size=(25, 4)) + (starts[i] if i < shared else 0)
            init = i if i < shared else 100 * (rule == "b") + 10 + i
            runs[f"{rule}/{i}"] = run(x, init)
    return xr.DataTree.from_dict(runs)


def vectors(x: np.ndarray) -> np.ndarray:
    """Return what debiased CKA compares: the U-centred kernel, of length one."""
    n, centred = len(x), x - x.mean(0)
    kernel = centred @ centred.T
    np.fill_diagonal(kernel, 0)
    sums = kernel.sum(1)
    kernel = kernel - (sums[:, None] + sums) / (n - 2)
    kernel += sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(kernel, 0)
    return np.asarray(kernel.ravel() / np.linalg.norm(kernel))


def assignments(tree: xr.DataTree) -> list[list[bool]]:
    """Return all ways to name networks, those with a shared start by swaps."""
    runs = repsim.datasets.recordings.networks(tree)
    keys = list(runs)
    seen: dict[object, list[int]] = {}
    for index, key in enumerate(keys):
        seen.setdefault(runs[key].attrs["init_seed"], []).append(index)
    free = [group[0] for group in seen.values() if len(group) == 1]
    pairs = [group for group in seen.values() if len(group) == 2]
    count_b = sum(keys[i][0] == "b" for i in free)
    found = []
    for chosen in itertools.combinations(free, count_b):
        for swaps in itertools.product([0, 1], repeat=len(pairs)):
            is_b = [index in chosen for index in range(len(keys))]
            for pair, swap in zip(pairs, swaps, strict=True):
                is_b[pair[0]], is_b[pair[1]] = bool(swap), not swap
            found.append(is_b)
    return found


def pair_means(value: np.ndarray, apart: np.ndarray, is_b: list[bool]) -> list[float]:
    """Return means within a, within b and between, by a loop over pairs."""
    cells: dict[tuple[bool, bool], list[float]] = {}
    for i, j in itertools.combinations(range(len(is_b)), 2):
        if apart[i, j]:
            cells.setdefault((is_b[i], is_b[j]), []).append(value[i, j])
    cross = cells.get((False, True), []) + cells.get((True, False), [])
    return [
        float(np.mean(one)) for one in (cells[False, False], cells[True, True], cross)
    ]


def slow(tree: xr.DataTree, measure: str) -> dict[str, float]:
    """Return the statistics from explicit vectors, by loops over assignments."""
    runs = list(repsim.datasets.recordings.networks(tree).items())
    is_b = [key[0] == "b" for key, _ in runs]
    inits = np.array([run.attrs["init_seed"] for _, run in runs])
    apart = inits[:, None] != inits
    xs = [run["h"].values for _, run in runs]
    function = repsim.measures.get(measure)
    value = np.array([[function(x, y) for y in xs] for x in xs])
    sign = 1 if function.larger_is_more_similar else -1
    a, b, between = pair_means(value, apart, is_b)
    rows = np.array([vectors(x) for x in xs])
    gram = rows @ rows.T if sign == 1 else -(value**2) / 2
    place_gram = gram
    if sign == 1:
        length = np.sqrt(np.where(is_b, b, a))
        place_gram = gram / np.outer(length, length)
    count = {True: sum(is_b), False: len(is_b) - sum(is_b)}
    residual = np.empty_like(gram)
    for i, j in itertools.product(range(len(is_b)), repeat=2):
        # The vectors with their rule's mean out, as long as a new network's would be.
        sides = []
        for k in (i, j):
            group = [m for m in range(len(is_b)) if is_b[m] == is_b[k]]
            weights = (
                -np.ones(len(is_b)) / len(group) * np.isin(range(len(is_b)), group)
            )
            weights[k] += 1
            sides.append(weights * np.sqrt(len(group) / (len(group) - 1)))
        residual[i, j] = sides[0] @ gram @ sides[1]
    squares = np.array(
        [
            [
                g[i, i] + g[j, j] - 2 * g[i, j]
                for j in range(len(is_b))
                for g in [gram if is_b[i] == is_b[j] else residual]
            ]
            for i in range(len(is_b))
        ]
    )

    def place(names: list[bool]) -> float:
        one, two, across = pair_means(place_gram, apart, names)
        own = np.diag(place_gram)
        noise = (own[~np.array(names)].mean() - one) / count[False]
        noise += (own[names].mean() - two) / count[True]
        return float(((one + two) / 2 - across) / noise)

    def log_ratio(names: list[bool]) -> float:
        one, two, _ = pair_means(squares, apart, names)
        return float(np.log(two / one))

    def spread(names: list[bool]) -> float:
        return abs(log_ratio(names))

    every = assignments(tree)
    found = {
        "within_a": a, "within_b": b, "between": between,
        "difference": sign * ((a + b) / 2 - between),
        "spread_ratio": float(np.exp(log_ratio(is_b) / 2)),
    }  # fmt: skip
    for name, statistic in (("p_value", place), ("spread_p_value", spread)):
        observed = statistic(is_b)
        at_least = [statistic(names) >= observed - 1e-8 for names in every]
        found[name] = float(np.mean(at_least))
    if sign == 1:
        found["place"] = 1 - between / float(np.sqrt(a * b))
    return found


@pytest.mark.parametrize("measure", ["cka", "procrustes_distance"])
@pytest.mark.parametrize(("seeds", "shared"), [((4, 4), 0), ((3, 5), 0), ((4, 4), 2)])
def test_numbers_are_those_of_the_long_way(
    measure: str, seeds: tuple[int, int], shared: int, rng: np.random.Generator
) -> None:
    tree = study(rng, seeds, 0.5, shared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = seed_test(tree, "a", "b", measure).sel(layer="h")
    for name, expected in slow(tree, measure).items():
        assert float(found[name]) == pytest.approx(expected, abs=1e-9), name
    assert float(found["q_value"]) == float(found["p_value"])
    # Of one layer the combination over layers is the layer's own test.
    assert float(found["omnibus_place_p"]) == float(found["p_value"])


def noisy(
    rng: np.random.Generator, counts: tuple[int, int], spreads: tuple[float, float]
) -> xr.DataTree:
    """Return networks around one base, the rules' spreads apart."""
    base = rng.normal(size=(30, 5))
    return xr.DataTree.from_dict(
        {
            f"{rule}/{i}": run(base + spread * rng.normal(size=(30, 5)))
            for rule, count, spread in zip("ab", counts, spreads, strict=True)
            for i in range(count)
        }
    )


@pytest.mark.parametrize("counts", [(8, 3), (4, 8)])
def test_unequal_counts_and_spreads_are_no_place(counts: tuple[int, int]) -> None:
    # The larger group once ruled: 10 + 4 networks of spreads .7 and 1.05 rejected
    # always. 100 repeats see 5 % within three standard errors of 2.2 %; the full run
    # is in the docs.
    rng, repeats = np.random.default_rng(5), 100
    hits = {"p_value": 0, "spread_p_value": 0}
    for _ in range(repeats):
        found = seed_test(noisy(rng, counts, (0.7, 1.4)), "a", "b")
        for name in hits:
            hits[name] += float(found[name].squeeze()) <= 0.05
    assert hits["p_value"] / repeats <= 0.115
    assert hits["spread_p_value"] / repeats >= 0.9


def test_the_difference_has_an_interval() -> None:
    rng, repeats, hits = np.random.default_rng(2), 60, 0
    base, other = rng.normal(size=(2, 25, 4))

    def tree(count: int) -> xr.DataTree:
        return xr.DataTree.from_dict(
            {
                f"{rule}/{i}": run(
                    base + 0.7 * other * (rule == "b") + rng.normal(size=(25, 4))
                )
                for rule in "ab"
                for i in range(count)
            }
        )

    truth = float(seed_test(tree(40), "a", "b", permutations=40)["difference"].item())
    for _ in range(repeats):
        found = seed_test(tree(5), "a", "b", permutations=40)
        hits += bool(found["low"].item() <= truth <= found["high"].item())
    # 95 % within three standard errors of 2.8 %.
    assert hits / repeats >= 0.865


def test_one_p_over_all_layers_holds_its_level() -> None:
    rng, repeats, p = np.random.default_rng(4), 80, []
    for _ in range(repeats):
        tree = study(rng, (4, 4), 0.0)
        runs = repsim.datasets.recordings.networks(tree)
        more = {
            "/".join(key): one.assign(
                g=(("example", "g_unit"), one["h"].values + rng.normal(size=(25, 4)))
            )
            for key, one in runs.items()
        }
        found = seed_test(xr.DataTree.from_dict(more), "a", "b")
        p.append(float(found["omnibus_p"]))
    assert np.mean(np.array(p) <= 0.05) <= 0.13
    assert np.mean(p) == pytest.approx(0.5, abs=0.1)


def test_six_shared_starts_swap_within_pairs_only(rng: np.random.Generator) -> None:
    found = seed_test(study(rng, (6, 6), 2.0, 6), "a", "b")
    assert found.attrs["permutations"] == 2**6
    assert found.attrs["smallest_p"] == 2 / 2**6
    assert found.attrs["pairs_between"] == 30
    assert found.attrs["shared_initialisations"] == 12
    assert float(found["p_value"].squeeze()) == 2 / 2**6


def test_a_difference_is_positive_and_found(rng: np.random.Generator) -> None:
    tree = study(rng, (5, 5), 2.0)
    for measure in ("cka", "procrustes_distance"):
        found = seed_test(tree, "a", "b", measure).sel(layer="h")
        assert float(found["difference"]) > 0
        assert float(found["effect"]) > 1
        assert float(found["p_value"]) == 2 / 252
    other = seed_test(tree, "b", "a").sel(layer="h")
    assert float(other["p_value"]) == 2 / 252
    assert float(other["within_a"]) == pytest.approx(
        float(seed_test(tree, "a", "b").sel(layer="h")["within_b"])
    )


def test_a_true_null_is_rejected_at_the_level() -> None:
    # 12 of the 252 assignments of 5 + 5 are below 5 %: an exact rate of 4.76 %, seen
    # within 3 standard errors (1.9 % with 120 repeats); the full run is in the docs.
    rng, repeats = np.random.default_rng(1), 120
    p = [
        float(seed_test(study(rng, (5, 5), 0.0), "a", "b")["p_value"].squeeze())
        for _ in range(repeats)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.105
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_too_few_networks_are_said(rng: np.random.Generator) -> None:
    with pytest.warns(UserWarning, match="smallest attainable p is 0.1, whatever"):
        found = seed_test(study(rng, (3, 3), 5.0), "a", "b")
    assert found.attrs["smallest_p"] == pytest.approx(0.1)
    assert "3 and 3 networks" in found.attrs["sentence"]
    assert float(found["p_value"].squeeze()) >= 0.1
    assert "no conclusion. Too few networks" in describe(found)


def test_several_steps_share_their_q_values(rng: np.random.Generator) -> None:
    trees = [study(rng, (5, 5), shift) for shift in (0.0, 2.0)]
    runs = [repsim.datasets.recordings.networks(tree) for tree in trees]
    joined = xr.DataTree.from_dict(
        {
            "/".join(key): xr.concat(
                [runs[0][key], runs[1][key]], "step"
            ).assign_coords(step=[0, 7])
            for key in runs[0]
        }
    )
    every = seed_test(joined, "a", "b", step="all")
    assert every["p_value"].dims == ("step", "layer")
    assert every["step"].values.tolist() == [0, 7]
    p = every["p_value"].values.ravel()
    expected = repsim.inference.false_discovery(p)
    np.testing.assert_allclose(every["q_value"].values.ravel(), expected)
    last = seed_test(joined, "a", "b")
    assert last["p_value"].dims == ("layer",)
    np.testing.assert_allclose(last["p_value"], every["p_value"].sel(step=7))
    first = seed_test(joined, "a", "b", step=0)
    np.testing.assert_allclose(first["within"], every["within"].sel(step=0))
    with pytest.raises(
        ValueError, match="Expected `step` to be one of 0, 7, but got 3"
    ):
        seed_test(joined, "a", "b", step=3)


def test_a_layer_without_a_number_leaves_the_others(rng: np.random.Generator) -> None:
    tree = study(rng, (4, 4), 2.0)
    runs = repsim.datasets.recordings.networks(tree)
    broken = {
        "/".join(key): one.assign(
            dead=(("example", "dead_unit"), np.ones((25, 2))),
            nan=(("example", "nan_unit"), np.full((25, 2), np.nan)),
        )
        for key, one in runs.items()
    }
    with pytest.warns(UserWarning) as caught:
        found = seed_test(xr.DataTree.from_dict(broken), "a", "b")
    said = " ".join(str(w.message) for w in caught)
    assert "No test for dead (no number for a/0" in said and "nan (not finite" in said
    assert bool(found["p_value"].sel(layer=["dead", "nan"]).isnull().all())
    plain = seed_test(tree, "a", "b")
    assert float(found["q_value"].sel(layer="h")) == float(plain["q_value"].squeeze())


def test_many_networks_are_drawn_not_enumerated(rng: np.random.Generator) -> None:
    tree = study(rng, (5, 5), 0.2)
    exact = seed_test(tree, "a", "b")
    drawn = seed_test(tree, "a", "b", permutations=200, seed=3)
    assert (exact.attrs["exact"], drawn.attrs["exact"]) == (1, 0)
    assert drawn.attrs["permutations"] == 200
    assert float(drawn["p_value"].squeeze()) == pytest.approx(
        float(exact["p_value"].squeeze()), abs=0.1
    )
    assert drawn.attrs["smallest_p"] == 1 / 200


def test_refusals(rng: np.random.Generator) -> None:
    tree = study(rng, (2, 2), 0.0)
    one = xr.DataTree.from_dict({k: tree[k].to_dataset() for k in ("a/0", "b/0")})
    for args, message in (
        ((tree, "a", "c"), "Expected `rule_b` to be one of a, b, but got 'c'"),
        ((tree, "a", "a"), "two different conditions"),
        ((tree, "a", "b", "ckaa"), "Did you mean 'cka'"),
        ((one, "a", "b"), "one network of each"),
    ):
        with pytest.raises(ValueError, match=message):
            seed_test(*args)
    with pytest.raises(TypeError, match="register it first"):
        seed_test(tree, "a", "b", lambda x, y: 0.0)
    with pytest.raises(TypeError, match="options of cka.*got 'debias'. Did you mean"):
        seed_test(tree, "a", "b", debias=False)
    with pytest.raises(TypeError, match="Expected a study"):
        seed_test(tree["a/0"].to_dataset(), "a", "b")  # type: ignore[arg-type]
    runs = repsim.datasets.recordings.networks(tree)
    odd = {"/".join(key): one for key, one in runs.items()}
    short = odd | {"b/1": odd["b/1"].isel(example=slice(9))}
    with pytest.raises(ValueError, match="got 25 and 9.*These are a/0 and b/1"):
        seed_test(xr.DataTree.from_dict(short), "a", "b")
    more = odd | {"b/1": odd["b/1"].assign(g=odd["b/1"]["h"].rename(h_unit="g_unit"))}
    with pytest.raises(ValueError, match=r"b/1 differ in g; name common.*\['h'\]"):
        seed_test(xr.DataTree.from_dict(more), "a", "b")
    stepped = {key: one.expand_dims(step=[0, i]) for i, (key, one) in enumerate(
        odd.items(), 1)}  # fmt: skip
    with pytest.raises(ValueError, match="end at the same step, but got 1, 2, 3, 4"):
        seed_test(xr.DataTree.from_dict(stepped), "a", "b")
    mixed = stepped | {"a/0": odd["a/0"]}
    with pytest.raises(ValueError, match="1 of 4 are single moments"):
        seed_test(xr.DataTree.from_dict(mixed), "a", "b")
    with pytest.raises(ValueError, match="Expected `step` to be one of all"):
        seed_test(xr.DataTree.from_dict(stepped), "a", "b", step="last")


def test_the_conclusion_follows_from_the_numbers(rng: np.random.Generator) -> None:
    sure = describe(seed_test(study(rng, (5, 5), 3.0), "a", "b"))
    assert sure.startswith("a and b (5 and 5 networks) differ in place")
    assert "1 of 1 layers differs by more than seeds do (q ≤ 0.05): h." in sure
    with pytest.raises(ValueError, match="Expected the result of one moment"):
        describe(seed_test(study(rng, (5, 5), 3.0), "a", "b").expand_dims(step=[1]))


def test_a_difference_in_spread_is_called_one() -> None:
    rng = np.random.default_rng(1)
    for measure in ("cka", "procrustes_distance"):
        found = seed_test(noisy(rng, (6, 6), (0.9, 0.45)), "a", "b", measure)
        words = describe(found)
        assert words.startswith("a and b (6 and 6 networks) differ in spread alone")
        assert "in 1 of 1 layers (q ≤ 0.05) networks vary more" in words
        assert "there a's vary more than b's." in words
        assert findings(found).values.tolist() == ["spread"]
    nothing = describe(seed_test(study(rng, (5, 5), 0.0), "a", "b"))
    assert ": nothing found, neither in place nor in spread (one test over" in nothing
    assert "is not evidence that the rules are alike" in nothing
