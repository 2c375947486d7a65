"""Intervals: exact leave-one-out values, coverage in short form, and refusals."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.spatial.distance import pdist

import repsim
from repsim.inference import closed_forms as alignment
from repsim.inference import confidence
from repsim.inference import rsa_influence as geometry
from repsim.inference.jackknife import Estimates, interval, pair_variance
from repsim.inference.scales import scale


def as_run(x: np.ndarray, **more: np.ndarray) -> xr.Dataset:
    layers = {"h": x, **more}
    return xr.Dataset({k: (("example", f"{k}_unit"), v) for k, v in layers.items()})


def related(n: int, p: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, p)) * np.arange(1, p + 1) ** -0.5
    return x, x @ rng.normal(size=(p, p)) + rng.normal(size=(n, p))


def slow_rsa(x: np.ndarray, y: np.ndarray, method: str) -> float:
    a, b = pdist(x, "correlation"), pdist(y, "correlation")
    if method == "cosine":
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))
    if method == "pearson":
        return float(stats.pearsonr(a, b).statistic)
    return float(stats.spearmanr(a, b).statistic)


def without_each(
    measure: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    return np.array(
        [measure(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(len(x))]
    )


def test_cka_without_each_example_is_exact(rng: np.random.Generator) -> None:
    x, y = related(15, 4, rng)
    found = alignment.leave_one_out([x, y], [y])
    np.testing.assert_allclose(found.value[0, 0], repsim.cka(x, y), atol=1e-12)
    np.testing.assert_allclose(found.value[1, 0], 1.0, atol=1e-12)
    slow = without_each(repsim.cka, x, y)
    np.testing.assert_allclose(found.without[:, 0, 0], slow, atol=1e-12)


def test_tiles_of_the_kernel_change_nothing(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = related(20, 4, rng)
    whole = alignment.leave_one_out([x], [y], kernel="rbf")
    monkeypatch.setattr(alignment, "_CELLS", 100)
    tiled = alignment.leave_one_out([x], [y], kernel="rbf")
    np.testing.assert_allclose(tiled.without, whole.without, atol=1e-12)
    assert whole.pairs is not None and tiled.pairs is not None
    np.testing.assert_allclose(tiled.pairs, whole.pairs, atol=1e-12)


def test_rbf_bandwidth_moves_with_the_examples(rng: np.random.Generator) -> None:
    x, y = related(40, 4, rng)
    found = alignment.leave_one_out([x], [y], kernel="rbf", bandwidth=0.7)

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        return repsim.cka(a, b, kernel="rbf", bandwidth=0.7)

    slow = without_each(measure, x, y)
    assert np.corrcoef(found.without[:, 0, 0], slow)[0, 1] > 0.995
    assert np.std(found.without) == pytest.approx(np.std(slow), rel=0.05)
    assert found.value[0, 0] == pytest.approx(measure(x, y), abs=1e-10)


@pytest.mark.parametrize("method", ["pearson", "spearman", "rho-a", "cosine"])
def test_rsa_without_each_example_to_first_order(
    method: str, rng: np.random.Generator
) -> None:
    x, y = related(50, 5, rng)
    found = geometry.leave_one_out([x], [y], method=method)
    slow = without_each(lambda a, b: slow_rsa(a, b, method), x, y)
    assert found.value[0, 0] == pytest.approx(slow_rsa(x, y, method), abs=1e-12)
    assert np.corrcoef(found.without[:, 0, 0], slow)[0, 1] > 0.999
    assert np.std(found.without) == pytest.approx(np.std(slow), rel=0.02)


def test_ranks_with_ties_are_mid_ranks(rng: np.random.Generator) -> None:
    entries = rng.integers(0, 7, 60).astype(float)
    ranked = geometry.Ranked(entries)
    expected = stats.rankdata(entries) / 60
    np.testing.assert_allclose(ranked.values, expected - expected.mean(), atol=1e-15)
    other = rng.normal(size=60)
    larger = (entries[None] > entries[:, None]) + 0.5 * (
        entries[None] == entries[:, None]
    )
    np.testing.assert_allclose(
        ranked.above(other), (larger * other).mean(1), atol=1e-12
    )


def test_pair_variance_is_that_of_products_and_not_of_sums(
    rng: np.random.Generator,
) -> None:
    n, repeats = 40, 400
    for kernel, truth in (
        (lambda u: np.outer(u, u), 2 / (n * (n - 1))),
        (lambda u: u[:, None] + u[None], 0.0),
    ):
        found = []
        for _ in range(repeats):
            g = kernel(rng.normal(size=n))
            np.fill_diagonal(g, 0)
            found.append(pair_variance((g.sum(1) ** 2).sum(), (g**2).sum(), n))
        assert np.mean(found) == pytest.approx(truth, abs=0.25 / n**2)


@pytest.mark.parametrize("kind", ["independent", "related"])
@pytest.mark.parametrize(("n", "p"), [(30, 10), (30, 200), (100, 10)])
def test_closed_form_intervals_cover(kind: str, n: int, p: int) -> None:
    # The full table, 1,000 repeats to n = p = 1,000, is in docs/inference.md. With 400
    # repeats a coverage of 95 % is seen within 3 standard errors of 1.1 %.
    rng, repeats = np.random.default_rng(n + p), 400
    root = np.arange(1, p + 1) ** -0.5
    hits, truth = 0, 0.0 if kind == "independent" else 0.64 / 1.13
    for _ in range(repeats):
        x, y = rng.normal(size=(2, n, p)) * root
        if kind == "related":
            y = 0.8 * x + 0.7 * y
        ends = interval(alignment.leave_one_out([x], [y]), scale((-1, 1)), 0.95)
        hits += bool(ends.low[0, 0] <= truth <= ends.high[0, 0])
    assert 0.915 <= hits / repeats <= 0.985


@pytest.mark.parametrize(("n", "p"), [(30, 10), (60, 100)])
def test_rsa_intervals_cover_zero_of_independent_data(n: int, p: int) -> None:
    rng, repeats, hits = np.random.default_rng(p), 200, 0
    for _ in range(repeats):
        x, y = rng.normal(size=(2, n, p))
        ends = interval(geometry.leave_one_out([x], [y]), scale((-1, 1)), 0.95)
        hits += bool(ends.low[0, 0] <= 0 <= ends.high[0, 0])
    # Within 3 standard errors of 1.5 %.
    assert 0.905 <= hits / repeats <= 0.995


def test_the_plain_bootstrap_is_biased_and_leaving_out_is_not(
    rng: np.random.Generator,
) -> None:
    # Of independent sides debiased CKA is 0; a repeated example is alike on both
    # sides, which the bootstrap takes for similarity.
    x, y = rng.normal(size=(2, 40, 100))
    again = [repsim.cka(x[k], y[k]) for k in rng.integers(0, 40, (100, 40))]
    found = confidence(as_run(x), as_run(y)).squeeze()
    assert np.mean(again) > 0.3
    assert float(found["low"]) < 0 < float(found["high"]) < 0.2


def test_confidence_of_every_layer_and_step(rng: np.random.Generator) -> None:
    x, y = related(30, 4, rng)
    a = xr.concat([as_run(x, g=y), as_run(y, g=x)], "step").assign_coords(step=[0, 5])
    found = confidence(a, as_run(y))
    assert found["low"].dims == ("step", "layer_a", "layer_b")
    assert found["step"].values.tolist() == [0, 5]
    np.testing.assert_allclose(
        found["estimate"].sel(step=0, layer_a="h", layer_b="h"), repsim.cka(x, y)
    )
    one = confidence(as_run(x), as_run(y)).squeeze()
    for name in one.data_vars:
        cell = found[name].sel(step=0, layer_a="h", layer_b="h")
        np.testing.assert_allclose(cell, one[name])
    same = found.sel(step=5, layer_a="h", layer_b="h")
    np.testing.assert_allclose([same["low"], same["high"]], 1.0)
    assert found.attrs["measure"] == "cka" and found.attrs["level"] == 0.95
    assert bool((found["low"] <= found["estimate"]).all())


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        ("procrustes_distance", {}),
        ("cka", {"debiased": False}),
        ("rsa", {"method": "kendall"}),
    ],
)
def test_any_measure_has_an_interval(
    measure: str, options: dict[str, object], rng: np.random.Generator
) -> None:
    x = rng.normal(size=(120, 3))
    y = x + 0.5 * rng.normal(size=(120, 3))
    found = confidence(as_run(x), as_run(y), measure, **options).squeeze()
    value = repsim.measures.get(measure)(x, y, **options)
    assert float(found["estimate"]) == pytest.approx(value)
    assert float(found["low"]) < value < float(found["high"])
    assert "40 groups" in found.attrs["interval"]


def test_a_function_of_ones_own(rng: np.random.Generator) -> None:
    def first(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.corrcoef(x[:, 0], y[:, 0])[0, 1])

    x, y = related(200, 2, rng)
    found = confidence(as_run(x), as_run(y), first).squeeze()
    # The standard error of a correlation of normal data is (1 − r²)/√n.
    r = first(x, y)
    expected = (1 - r**2) / np.sqrt(200)
    assert float(found["standard_error"]) == pytest.approx(expected, rel=0.3)


def test_bias_beyond_the_spread_is_said(rng: np.random.Generator) -> None:
    a, b = as_run(rng.normal(size=(30, 200))), as_run(rng.normal(size=(30, 200)))
    with pytest.warns(UserWarning, match="estimated bias of 'procrustes_distance'"):
        confidence(a, b, "procrustes_distance")


def test_over_classes_is_wider_where_classes_differ(rng: np.random.Generator) -> None:
    label = np.repeat(np.arange(8), 20)
    x = rng.normal(size=(8, 5))[label] + 0.3 * rng.normal(size=(160, 5))
    y = x + 0.5 * rng.normal(size=(8, 5))[label]
    a, b = (as_run(s).assign_coords(label=("example", label)) for s in (x, y))
    examples, classes = confidence(a, b), confidence(a, b, over="label")
    width = [(f["high"] - f["low"]).item() for f in (examples, classes)]
    assert width[1] > 1.5 * width[0]
    assert classes.attrs["over"] == "label"
    np.testing.assert_allclose(classes["estimate"], examples["estimate"])


def networks(
    rng: np.random.Generator, count: int, base: np.ndarray, first: int = 0
) -> dict[str, xr.Dataset]:
    return {
        str(i): as_run(base + rng.normal(size=base.shape)).assign_attrs(
            init_seed=first + i
        )
        for i in range(count)
    }


def tree(name: str, runs: dict[str, xr.Dataset]) -> xr.DataTree:
    return xr.DataTree.from_dict({f"{name}/{k}": run for k, run in runs.items()})


def test_over_seeds_covers_the_mean_of_all_networks() -> None:
    rng, hits = np.random.default_rng(0), 0
    base = rng.normal(size=(25, 4))
    many = confidence(
        tree("a", networks(rng, 40, base)), tree("b", networks(rng, 40, base, 100)),
        over="seed",
    )  # fmt: skip
    for _ in range(30):
        found = confidence(
            tree("a", networks(rng, 5, base))["a"],
            tree("b", networks(rng, 6, base, 100)), over="seed",
        ).squeeze()  # fmt: skip
        hits += bool(found["low"] <= many["estimate"].item() <= found["high"])
    assert hits >= 25
    assert found.attrs["interval"] == "jackknife over 5 + 6 networks"


def test_over_seeds_leaves_out_shared_beginnings(rng: np.random.Generator) -> None:
    runs = networks(rng, 4, rng.normal(size=(25, 4)))
    found = confidence(tree("a", runs), tree("b", runs), over="seed").squeeze()
    sides = list(runs.values())
    cells = [
        repsim.cka(x["h"].values, y["h"].values)
        for x in sides for y in sides if x is not y
    ]  # fmt: skip
    assert float(found["estimate"]) == pytest.approx(np.mean(cells))
    within = confidence(tree("a", runs), over="seed").squeeze()
    assert float(within["estimate"]) == pytest.approx(np.mean(cells))


def test_a_constant_layer_has_no_interval(rng: np.random.Generator) -> None:
    a = as_run(rng.normal(size=(20, 3)), dead=np.ones((20, 3)))
    with pytest.warns(UserWarning, match="dead"):
        found = confidence(a)
    dead = found.sel(layer_a="dead")
    assert bool(dead["low"].isnull().all() and dead["high"].isnull().all())
    assert bool(found.sel(layer_a="h", layer_b="h")["low"].notnull())


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0), (0.0, np.inf), (-np.inf, 1.0)])
def test_scales_go_back_and_forth(bounds: tuple[float, float] | None) -> None:
    one, x = scale(bounds), np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(one.inverse(one.forward(x)), x)
    numeric = (one.forward(x + 1e-6) - one.forward(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(one.slope(x), numeric, rtol=1e-4)
    # A decreasing map would swap the ends, and an interval would shrink to a point.
    assert (one.slope(x) > 0).all()


@pytest.mark.filterwarnings("ignore:The estimated bias")
def test_a_measure_with_an_upper_bound_only_has_an_interval(
    rng: np.random.Generator,
) -> None:
    x = rng.normal(size=(60, 4))
    a, b = (
        xr.Dataset({"h": (("example", "h_unit"), side)})
        for side in (x, x + rng.normal(size=x.shape))
    )
    found = confidence(a, b, "linear_predictivity", groups=20).squeeze()
    low, value, high = (float(found[k]) for k in ("low", "estimate", "high"))
    error = float(found["standard_error"])
    assert error > 0.01
    assert low < value - error < value + error < high < 1


def test_intervals_stay_within_the_bounds() -> None:
    without = np.linspace(0.9, 1.0, 10)[:, None]
    found = Estimates(np.array([0.97]), without)
    ends = interval(found, scale((0.0, 1.0)), 0.99)
    assert 0 <= ends.low[0] < 0.97 < ends.high[0] <= 1


def test_refusals(rng: np.random.Generator) -> None:
    a = as_run(rng.normal(size=(20, 3)))
    study = tree("bp", networks(rng, 2, np.ones((20, 3))))
    for kwargs, message in (
        ({"level": 95}, "Expected `level` between 0 and 1, but got 95"),
        ({"over": "clas"}, "Expected `over` to be one of example, seed"),
        ({"measure": 3}, "Expected `measure` to be a name or a function"),
        ({"measure": "ckaa"}, "Did you mean 'cka'"),
        ({"over": "seed"}, "networks of a condition"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            confidence(a, **kwargs)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected recordings"):
        confidence(study)
    with pytest.raises(ValueError, match="at least 3 networks of one condition"):
        confidence(study, over="seed")
    with pytest.raises(ValueError, match="at least 6 examples"):
        confidence(a.isel(example=slice(5)))
    with pytest.raises(ValueError, match="at least 6 examples"):
        confidence(a.isel(example=slice(5)), measure="rsa")
    two = a.assign_coords(label=("example", np.arange(20) % 2))
    with pytest.raises(ValueError, match="at least three values of 'label'"):
        confidence(two, over="label")
    with warnings.catch_warnings(), pytest.raises(ValueError, match="same examples"):
        confidence(a, a.isel(example=slice(10)))
