"""Intervals: exact leave-one-out values, coverage in short form, and refusals."""

import warnings

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.inference import confidence, unit_intervals


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


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_intervals_over_groups_cover(noise: float) -> None:
    rng, repeats = np.random.default_rng(7), 60
    hits = {"example": 0, "stimulus": 0}
    for _ in range(repeats):
        a, b, truth = grouped(rng, 25, 6, noise)
        for over in hits:
            found = confidence(a, b, over=over).squeeze()
            hits[over] += bool(found["low"] <= truth <= found["high"])
    # 95 % within three standard errors of 2.8 %; the table in the docs has more.
    assert 0.865 <= hits["stimulus"] / repeats <= 1.0
    assert hits["example"] < hits["stimulus"]


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
        UserWarning, match="a fifth of the variance of h .position 7 in h"
    ):
        confidence(as_run(x), as_run(y))


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


def test_two_factors_cover_new_examples_and_networks() -> None:
    # Networks are noisy copies of one base of many examples; the truth is the mean
    # over pairs of networks on very many examples.
    rng, repeats, hits = np.random.default_rng(1), 40, {"both": 0, "seed": 0}
    a, b = 0.5, 0.8

    def draw(n: int, count: int, noise: float, name: str) -> xr.DataTree:
        runs = {
            f"{name}/{i}": as_run(
                base[:n] * scales[i] + noise * rng.normal(size=(n, 4))
            )
            for i in range(count)
        }
        return xr.DataTree.from_dict(runs)[name]

    for turn in range(repeats + 1):
        n, count = (1500, 24) if turn == 0 else (40, 5)
        base = rng.normal(size=(n, 4))
        scales = 1 + 0.6 * rng.normal(size=(count, 1, 4))
        left = draw(n, count, a, "a")
        scales = 1 + 0.6 * rng.normal(size=(count, 1, 4))
        right = draw(n, count, b, "b")
        if turn == 0:
            many = confidence(left, right, over="seed")
            truth = float(many["estimate"].item())
            continue
        for name, over in (("both", ("example", "seed")), ("seed", "seed")):
            found = confidence(left, right, over=over)
            hits[name] += bool(found["low"].item() <= truth <= found["high"].item())
    # 95 % within three standard errors of 3.4 %; the truth's own error adds to it.
    assert hits["both"] / repeats >= 0.85
    assert hits["seed"] < hits["both"]
    assert found.attrs["over"] == "seed"


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
    whole, left, right = unit_intervals._cell(x, y)
    assert whole == pytest.approx(slow(x, y), abs=1e-10) and whole < 1
    expected = [slow(np.delete(x, u, 1), y) for u in range(4)]
    np.testing.assert_allclose(left, np.clip(expected, -1, 1), atol=1e-10)
    expected = [slow(x, np.delete(y, u, 1)) for u in range(3)]
    np.testing.assert_allclose(right, np.clip(expected, -1, 1), atol=1e-10)


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
