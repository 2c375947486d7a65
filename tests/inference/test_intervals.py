"""Intervals: exact leave-one-out values, coverage in short form, and refusals."""

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import repsim
from repsim.inference import confidence, unit_intervals
from repsim.inference.closed_forms import leave_group_out
from repsim.inference.jackknife import scale, stretched
from repsim.inference.unusual_examples import outlying


def as_run(x: np.ndarray, **more: np.ndarray) -> xr.Dataset:
    layers = {"h": x, **more}
    return xr.Dataset({k: (("example", f"{k}_unit"), v) for k, v in layers.items()})


def related(n: int, p: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, p)) * np.arange(1, p + 1) ** -0.5
    return x, x @ rng.normal(size=(p, p)) + rng.normal(size=(n, p))


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


def test_no_interval_around_a_biased_value(rng: np.random.Generator) -> None:
    a, b = as_run(rng.normal(size=(30, 200))), as_run(rng.normal(size=(30, 200)))
    with pytest.warns(UserWarning, match="estimated bias of 'procrustes_distance'"):
        found = confidence(a, b, "procrustes_distance").squeeze()
    assert np.isnan(float(found["low"])) and np.isnan(float(found["high"]))
    assert np.isfinite(float(found["estimate"]))
    with pytest.warns(UserWarning, match="has no value in the population"):
        found = confidence(a, b, "mutual_knn").squeeze()
    assert np.isnan(float(found["low"]))
    assert float(found["measured"]) == float(found["estimate"])


def test_a_measure_that_jumps_has_no_interval(rng: np.random.Generator) -> None:
    # Of related sides, too, where the jackknife sees no bias but by chance.
    x = rng.normal(size=(100, 6))
    y = x + 0.5 * rng.normal(size=(100, 6))
    with pytest.warns(UserWarning, match="'svcca' jumps where an example more or less"):
        found = confidence(as_run(x), as_run(y), "svcca", parts=10).squeeze()
    assert np.isnan(float(found["low"])) and np.isfinite(float(found["measured"]))


def grouped(
    rng: np.random.Generator, groups: int, size: int, noise: float
) -> tuple[xr.Dataset, xr.Dataset, float]:
    """Return repeats of stimuli on both sides, and the population's CKA."""
    stimulus = np.repeat(np.arange(groups), size)
    z, own = rng.normal(size=(groups, 6)), rng.normal(size=(groups, 6))
    x = z[stimulus] + noise * rng.normal(size=(groups * size, 6))
    y = (z + own)[stimulus] + noise * rng.normal(size=(groups * size, 6))
    # Covariances are multiples of one: CKA is the squared correlation of units.
    truth = (1 / np.sqrt((1 + noise**2) * (2 + noise**2))) ** 2
    a, b = (as_run(s).assign_coords(stimulus=("example", stimulus)) for s in (x, y))
    return a, b, truth


def test_groups_have_a_scale_stretched_by_their_noise(
    rng: np.random.Generator,
) -> None:
    # How often it covers is in the docs, by tests/benchmarks/calibration.py.
    a, b, _ = grouped(rng, 12, 3, 0.3)
    which = a["stimulus"].values
    x, y = a["h"].values, b["h"].values
    whole = between_groups(x, y, which)
    left = np.array(
        [between_groups(x[which != g], y[which != g], which[which != g])
         for g in range(12)]
    )  # fmt: skip
    estimates = leave_group_out([x], [y], which)
    assert estimates.pairs is not None
    noise = 3.5 * np.sqrt(estimates.pairs[0, 0]) / (1 - whole**2)
    u = np.arcsinh(np.arctanh(np.append(left, whole)) / noise)
    deviation = u[:-1] - u[:-1].mean()
    slope = 1 / (1 - whole**2) / np.hypot(np.arctanh(whole), noise)
    both = 11 / 12 * (deviation**2).sum()
    variance = max(both - estimates.pairs[0, 0] / 2 * slope**2, both / 2)
    excess = max((deviation**4).mean() / (deviation**2).mean() ** 2 - 3, 0)
    freedom = 2 / (excess / 12 + 2 / 11)
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    expected = np.tanh(noise * np.sinh(u[-1] + np.array([-reach, 0, reach])))
    found = confidence(a, b, over="stimulus").squeeze()
    seen = [float(found[name]) for name in ("low", "estimate", "high")]
    np.testing.assert_allclose(seen, expected)
    assert float(found["low"]) < whole < float(found["high"])


def between_groups(x: np.ndarray, y: np.ndarray, which: np.ndarray) -> float:
    """Return debiased CKA from terms of four groups, by sums over all of them."""
    apart = which[:, None] != which
    two = apart
    three = apart[:, :, None] & apart[:, None, :] & apart[None, :, :]
    four = three[:, :, :, None] & apart[:, None, None, :]
    four &= apart[None, :, None, :] & apart[None, None, :, :]

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        first = (k * m)[two].mean()
        second = np.broadcast_to(k[:, :, None] * m[:, None, :], three.shape)[three]
        third = k[:, :, None, None] * m[None, None, :, :]
        return float(first - 2 * second.mean() + third[four].mean())

    k, m = (side @ side.T for side in (x - x.mean(0), y - y.mean(0)))
    return hsic(k, m) / float(np.sqrt(hsic(k, k) * hsic(m, m)))


def test_width_of_the_straight_part_keeps_values_and_bounds() -> None:
    inner = scale((-1.0, 1.0))
    for width in (0.0, 1e-6, 0.3, 10.0):
        stretched_scale = stretched(inner, np.array(width))
        x = np.linspace(-0.99, 0.99, 21)
        z = stretched_scale.forward(x)
        assert (np.diff(z) > 0).all()
        np.testing.assert_allclose(stretched_scale.inverse(z), x, atol=1e-12)
        step = 1e-7
        moved = stretched_scale.forward(x[-3:] + step) - z[-3:]
        np.testing.assert_allclose(
            stretched_scale.slope(x[-3:]), moved / step, rtol=1e-4
        )


def test_other_measures_have_the_bias_of_groups_taken_off(
    rng: np.random.Generator,
) -> None:
    a, b, _ = grouped(rng, 20, 5, 0.5)
    found = confidence(a, b, "rsa", over="stimulus", method="kendall").squeeze()
    assert abs(float(found["bias"])) > 0
    assert float(found["low"]) < float(found["estimate"]) < float(found["high"])
    np.testing.assert_allclose(found["estimate"], found["measured"] - found["bias"])


def test_copies_and_tokens_are_said(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 3))
    twice = as_run(np.concatenate([x, x]))
    with pytest.warns(UserWarning, match="20 of 40 examples are exact copies"):
        confidence(twice)
    tokens = as_run(x).assign_coords(sequence=("example", np.repeat(np.arange(5), 4)))
    with pytest.warns(UserWarning, match="take over='sequence'"):
        confidence(tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confidence(tokens, over="sequence")
        # Rows of zeros are silence, not copies.
        x[:5] = 0
        confidence(as_run(x), measure="cka")


def test_a_unit_with_rare_large_values_is_said() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 60, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confidence(as_run(x), as_run(y))
    x[7, 0] = y[7, 0] = 60.0
    with pytest.warns(
        UserWarning, match="One example holds more than a fifth .* .position 7 in h"
    ):
        confidence(as_run(x), as_run(y))


@pytest.mark.parametrize("n", [60, 200, 1000])
def test_a_rare_unit_is_said_of_any_number_of_examples(n: int) -> None:
    # One unit is fifty times as large in one of a hundred examples, none of which
    # holds much alone once there are ten of them.
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 20))
    rare = np.arange(0, n, 100)
    x[rare, 3] = 50 * np.where(rare % 200 == 0, 1.0, -1.0)
    assert set(outlying(x)) == set(rare)
    assert len(outlying(rng.normal(size=(n, 2)))) == 0
    rectified = np.maximum(rng.normal(size=(n, 5)) @ rng.normal(size=(5, 30)), 0)
    assert len(outlying(rectified)) == 0
    assert len(outlying(np.eye(10)[rng.integers(0, 10, n)])) == 0


def test_a_dead_example_leaves_an_interval(rng: np.random.Generator) -> None:
    x, y = related(40, 5, rng)
    x[3] = 0
    with pytest.warns(UserWarning, match="no correlation distance"):
        found = confidence(as_run(x), as_run(y), "rsa").squeeze()
        expected = repsim.rsa(x, y)
    assert float(found["estimate"]) == pytest.approx(expected, abs=1e-12)
    assert float(found["low"]) < expected < float(found["high"])


def test_over_classes_is_wider_where_classes_differ(rng: np.random.Generator) -> None:
    label = np.repeat(np.arange(8), 20)
    x = rng.normal(size=(8, 5))[label] + 0.3 * rng.normal(size=(160, 5))
    y = x + 0.5 * rng.normal(size=(8, 5))[label]
    a, b = (as_run(s).assign_coords(label=("example", label)) for s in (x, y))
    examples, classes = confidence(a, b), confidence(a, b, over="label")
    width = [(f["high"] - f["low"]).item() for f in (examples, classes)]
    assert width[1] > 1.5 * width[0]
    assert classes.attrs["over"] == "label"
    np.testing.assert_allclose(classes["measured"], examples["estimate"])
    np.testing.assert_allclose(
        classes["estimate"], classes["measured"] - classes["bias"]
    )


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


def test_two_factors_are_both_jackknives_less_what_both_hold(
    rng: np.random.Generator,
) -> None:
    # How often it covers is in the docs, by tests/benchmarks/calibration.py.
    n, base = 9, rng.normal(size=(9, 3))
    left, right = (networks(rng, k, base, 10 * k) for k in (3, 4))
    xs, ys = ([run["h"].values for run in side.values()] for side in (left, right))
    onto = scale((-1.0, 1.0))

    def mean(no_a: int, no_b: int, no_example: int) -> float:
        keep = np.arange(n) != no_example
        pairs = [
            repsim.rsa(x[keep], y[keep], method="kendall")
            for i, x in enumerate(xs)
            for j, y in enumerate(ys)
            if i != no_a and j != no_b
        ]
        return float(np.mean(pairs))

    def z(*left_out: int) -> float:
        return float(onto.forward(np.array(mean(*left_out))))

    def jackknife(values: np.ndarray) -> tuple[float, float]:
        """Return variance and Satterthwaite's degrees of freedom."""
        count, deviation = len(values), values - values.mean()
        excess = max((deviation**4).mean() / (deviation**2).mean() ** 2 - 3, 0)
        variance = (count - 1) / count * (deviation**2).sum()
        return float(variance), 2 / (excess / count + 2 / (count - 1))

    whole = z(-1, -1, -1)
    examples = jackknife(np.array([z(-1, -1, e) for e in range(n)]))
    sides = [[(i, -1) for i in range(3)], [(-1, j) for j in range(4)]]
    each = [jackknife(np.array([z(*out, -1) for out in side])) for side in sides]
    seeds = sum(v for v, _ in each)
    seeds_freedom = seeds**2 / sum(v**2 / f for v, f in each)
    # Both jackknives over networks hold what pairs of them add: the rest of the
    # table of pairs once rows and columns have told, by least squares.
    table = np.array([repsim.rsa(x, y, method="kendall") for x in xs for y in ys])
    rows, columns = np.repeat(np.eye(3), 4, 0), np.tile(np.eye(4), (3, 1))
    dummies = np.hstack([rows, columns])
    fit = dummies @ np.linalg.pinv(dummies) @ table
    rest = float(((table - fit) ** 2).sum()) / (2 * 3)
    slope = onto.slope(np.array(mean(-1, -1, -1))).item()
    seeds = max(seeds - rest / 12 * slope**2, seeds / 2)
    both = 0.0
    for side in sides:
        inner = np.array([[z(*o, e) - z(*o, -1) for o in side] for e in range(n)])
        inner -= inner.mean(0)
        inner -= inner.mean(1, keepdims=True)
        count = len(side)
        both += (count - 1) / count * (n - 1) / n * float((inner**2).sum())
    variance = max(examples[0] + seeds - both, examples[0], seeds)
    share = examples[0] ** 2 / examples[1] + seeds**2 / seeds_freedom
    reach = stats.t.ppf(0.975, variance**2 / share) * np.sqrt(variance)
    ends = onto.inverse(np.array([whole - reach, whole + reach]))
    found = confidence(
        tree("a", left)["a"], tree("b", right)["b"], "rsa",
        over=("example", "seed"), method="kendall",
    ).squeeze()  # fmt: skip
    assert found["estimate"].item() == pytest.approx(mean(-1, -1, -1))
    assert [found["low"].item(), found["high"].item()] == pytest.approx(list(ends))
    assert found.attrs["over"] == ["example", "seed"]


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        ("procrustes_distance", {}),
        ("cka", {"debiased": False}),
        ("svcca", {"variance": 0.5}),
        ("mutual_knn", {}),
    ],
)
@pytest.mark.parametrize(
    "over", ["example", "stimulus", ("example", "seed"), ("stimulus", "seed")]
)
def test_no_factor_has_an_interval_around_a_biased_value(
    rng: np.random.Generator,
    measure: str,
    options: dict[str, Any],
    over: str | tuple[str, str],
) -> None:
    # Of independent sides these find alignment in noise.
    stimulus = ("example", np.repeat(np.arange(10), 4))
    sides: list[Any] = [
        as_run(rng.normal(size=(40, 30))).assign_coords(stimulus=stimulus)
        for _ in range(6)
    ]
    a, b = sides[:2]
    if "seed" in over:
        a, b = (
            tree("x", {str(i): run for i, run in enumerate(some)})["x"]
            for some in (sides[:3], sides[3:])
        )
    with pytest.warns(UserWarning, match="No interval for 1 of 1 cells"):
        found = confidence(a, b, measure, over=over, parts=10, **options)
    assert np.isnan(found["low"].item()) and np.isnan(found["high"].item())
    assert np.isfinite(found["measured"].item())


def test_all_units_show_more_than_a_few() -> None:
    # One latent of eight directions seen through 20 of infinitely many units.
    rng, repeats, hits, raw = np.random.default_rng(2), 60, 0, []
    z = rng.normal(size=(60, 8))
    other = z + rng.normal(size=z.shape)

    def seen(latent: np.ndarray, units: int) -> xr.Dataset:
        return as_run(latent @ rng.normal(size=(8, units)))

    truth = repsim.cka(z, other)
    for _ in range(repeats):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = confidence(seen(z, 20), seen(other, 20), over="unit").squeeze()
        hits += bool(found["low"] <= truth <= found["high"])
        raw.append([float(found["measured"]), float(found["estimate"])])
    measured, estimate = np.mean(raw, 0)
    assert measured < truth - 0.05
    assert estimate == pytest.approx(truth, abs=0.04)
    assert hits / repeats >= 0.865
    with pytest.warns(UserWarning, match="Few of many units"):
        confidence(seen(z, 8), seen(other, 8), over="unit")


def test_units_without_each_are_computed_again(rng: np.random.Generator) -> None:
    def slow(x: np.ndarray, y: np.ndarray) -> float:
        """Sums of debiased HSIC over pairs of units, a unit with itself left out."""

        def sums(p: np.ndarray, q: np.ndarray, *, same: bool) -> float:
            cells = [
                repsim.hsic(p[:, [u]], q[:, [v]])
                for u in range(p.shape[1])
                for v in range(q.shape[1])
                if not (same and u == v)
            ]
            return float(np.mean(cells))

        norms = sums(x, x, same=True) * sums(y, y, same=True)
        return sums(x, y, same=False) / float(np.sqrt(norms))

    z, other = rng.normal(size=(2, 25, 2))
    x = z @ rng.normal(size=(2, 4)) + 0.1 * rng.normal(size=(25, 4))
    y = (0.5 * z + other) @ rng.normal(size=(2, 3)) + 0.1 * rng.normal(size=(25, 3))
    cell = unit_intervals._cell(x, y)
    assert cell.whole == pytest.approx(slow(x, y), abs=1e-10) and cell.whole < 1
    expected = [slow(np.delete(x, u, 1), y) for u in range(4)]
    np.testing.assert_allclose(cell.left, np.clip(expected, -1, 1), atol=1e-10)
    expected = [slow(x, np.delete(y, u, 1)) for u in range(3)]
    np.testing.assert_allclose(cell.right, np.clip(expected, -1, 1), atol=1e-10)


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


@pytest.mark.parametrize("over", ["example", "unit"])
def test_a_constant_layer_has_no_interval(rng: np.random.Generator, over: str) -> None:
    a = as_run(rng.normal(size=(20, 3)), dead=np.ones((20, 3)))
    with pytest.warns(UserWarning, match="dead"):
        found = confidence(a, over=over)
    dead = found.sel(layer_a="dead")
    assert bool(dead["estimate"].isnull().all())
    assert bool(dead["low"].isnull().all() and dead["high"].isnull().all())
    assert bool(found.sel(layer_a="h", layer_b="h")["low"].notnull())


def test_a_measure_with_an_upper_bound_only_has_an_interval(
    rng: np.random.Generator,
) -> None:
    x = rng.normal(size=(60, 4))
    a, b = (
        xr.Dataset({"h": (("example", "h_unit"), side)})
        for side in (x, x + rng.normal(size=x.shape))
    )
    found = confidence(a, b, "linear_predictivity", parts=20).squeeze()
    low, value, high = (float(found[k]) for k in ("low", "estimate", "high"))
    error = float(found["standard_error"])
    assert error > 0.01
    assert low < value - error < value + error < high < 1


@pytest.mark.parametrize(
    ("over", "measure", "said"),
    [
        ("example", "procrustes_distance", "parts: 100%"),
        ("example", "cka", "steps: 100%"),
        ("seed", "cka", "HSIC"),
        (("example", "seed"), "cka", "pairs of networks: 100%"),
    ],
)
def test_progress_is_a_bar(
    over: Any,
    measure: str,
    said: str,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = tree("a", networks(rng, 3, rng.normal(size=(25, 4))))["a"]
    a = one["0"].to_dataset() if over == "example" else one
    quiet = confidence(a, None, measure, over=over)
    assert capsys.readouterr().err == ""
    xr.testing.assert_identical(
        confidence(a, None, measure, over=over, progress=True), quiet
    )
    assert said in capsys.readouterr().err


def test_refusals(rng: np.random.Generator) -> None:
    a = as_run(rng.normal(size=(20, 3)))
    study = tree("bp", networks(rng, 2, np.ones((20, 3))))
    for kwargs, message in (
        ({"level": 95}, "Expected `level` between 0 and 1, but got 95"),
        ({"over": "clas"}, "Expected `over` to be one of example, seed"),
        ({"measure": 3}, "Expected `measure` to be a name or a function"),
        ({"measure": "ckaa"}, "Did you mean 'cka'"),
        ({"over": "seed"}, "networks of a condition"),
        ({"over": ("seed", "example")}, "the networks last, but got"),
        ({"over": "unit", "measure": "rsa"}, 'debiased linear CKA with over="unit"'),
        ({"parts": 1}, "Expected `parts` to be at least 2"),
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


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        ("cka", {}),
        ("cka", {"kernel": "rbf"}),
        ("rsa", {}),
        ("rsa", {"metric": "sqeuclidean", "method": "pearson"}),
        ("rsa", {"metric": "euclidean", "method": "cosine"}),
    ],
)
def test_numbers_of_any_size(
    measure: str, options: dict[str, str], rng: np.random.Generator
) -> None:
    x, y = related(20, 4, rng)
    expected = confidence(as_run(x), as_run(y), measure, **options)
    for power in (-900, -300, 300, 900):
        runs = as_run(x * 2.0**power), as_run(y * 2.0 ** (-power // 3))
        found = confidence(*runs, measure, **options)
        xr.testing.assert_allclose(found, expected)
