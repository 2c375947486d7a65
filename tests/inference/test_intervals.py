"""Intervals: exact leave-one-out values, coverage in short form, and refusals."""

import warnings

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim.inference import confidence


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
