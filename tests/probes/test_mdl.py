"""Code lengths: noise costs the uniform code, knowledge costs less."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB

from repsim.probes import codelength_layers

Maker = Callable[..., xr.Dataset]


@pytest.mark.parametrize(
    ("n", "width", "classes"), [(300, 12, 4), (600, 40, 10), (200, 300, 2), (400, 5, 3)]
)
def test_random_labels_cost_the_uniform_code(
    planted: Maker, n: int, width: int, classes: int
) -> None:
    for seed in range(3):
        run = planted(seed, n=n, width=max(width, classes), classes=classes)
        label = np.random.default_rng(seed).permutation(run["label"].values)
        found = codelength_layers(run[["early"]], label, seed=seed)
        np.testing.assert_allclose(found["uniform"], n * np.log2(classes))
        np.testing.assert_allclose(found["codelength"], found["uniform"], rtol=0.03)


def test_what_a_layer_knows_shortens_the_code(planted: Maker) -> None:
    found = codelength_layers(planted(steps=2, n=400))
    assert found["codelength"].dims == ("step", "layer")
    assert (found["compression"].sel(layer="late") > 2).all()
    assert (abs(found["compression"].sel(layer="early") - 1) < 0.03).all()
    ratio = found["uniform"] / found["codelength"]
    np.testing.assert_allclose(found["compression"], ratio)
    total = found["block_codelength"].sum("block")
    np.testing.assert_allclose(total, found["codelength"])


Scaler = Callable[[np.ndarray, np.ndarray], np.ndarray]


def by_hand(
    raw: np.ndarray, y: np.ndarray, ends: list[int], C: float, one_scale: Scaler
) -> list[float]:
    """Return the blocks' costs by scikit-learn's regression of one C, in bits."""
    bits = [ends[0] * np.log2(4)]
    for t, end in zip(ends[:-1], ends[1:], strict=True):
        x = one_scale(raw, np.arange(t))
        fitted = LogisticRegression(C=C, tol=1e-7, max_iter=5000).fit(x[:t], y[:t])
        probabilities = np.zeros((end - t, 4))
        probabilities[:, fitted.classes_] = fitted.predict_proba(x[t:end])
        unseen = ~np.isin(np.arange(4), fitted.classes_)
        probabilities = (t * probabilities + 1 / 4 + unseen) / (t + 1 + unseen.sum())
        bits.append(float(-np.log2(probabilities[np.arange(end - t), y[t:end]]).sum()))
    return bits


@pytest.mark.parametrize("layer", ["early", "late"])
def test_the_length_is_the_mixture_of_the_codes_by_hand(
    planted: Maker, one_scale: Scaler, layer: str
) -> None:
    run = planted(n=400)
    found = codelength_layers(run, seed=2).sel(layer=layer)
    order = np.random.default_rng([2, 3]).permutation(400)
    x, y = run[layer].values[order].astype(float), run["label"].values[order]
    ends = [*found["block"].values[1:].tolist(), 400]
    grid = found.attrs["C_grid"]
    assert grid == [10.0**power for power in range(-5, 3)]
    codes = np.array([by_hand(x, y, ends, C, one_scale) for C in grid])
    uniform = np.diff([0, *ends]) * np.log2(4)
    shares = np.array([1 / 2, *[1 / 16] * 8])
    spent = np.vstack([uniform, codes]).cumsum(axis=1)
    mixture = -np.log2(shares @ 2.0 ** -(spent - uniform.cumsum())) + uniform.cumsum()
    np.testing.assert_allclose(found["codelength"], mixture[-1], rtol=1e-3)
    np.testing.assert_allclose(
        found["block_codelength"], np.diff([0, *mixture]), rtol=0.02
    )
    before = np.log2(shares)[:, None] - np.c_[np.zeros(9), spent[:, :-1]]
    leaders = np.array([0.0, *grid])[before.argmax(0)]
    np.testing.assert_array_equal(found["C"], leaders)


def test_it_costs_a_bit_more_than_uniform_and_four_more_than_the_best_at_most(
    planted: Maker, one_scale: Scaler
) -> None:
    run = planted(n=300, width=60)
    for seed in range(3):
        found = codelength_layers(run[["late"]], seed=seed)
        assert (found["codelength"] <= found["uniform"] + 1 + 1e-6).all()
    order = np.random.default_rng([2, 3]).permutation(300)
    ends = [*found["block"].values[1:].tolist(), 300]
    x, y = run["late"].values[order].astype(float), run["label"].values[order]
    grid = [10.0**power for power in range(-5, 3)]
    best = min(sum(by_hand(x, y, ends, C, one_scale)) for C in grid)
    assert best < found["codelength"].sel(layer="late") <= best + 4.1


def test_no_block_sees_what_comes_after_it(planted: Maker) -> None:
    run = planted(n=400)
    found = codelength_layers(run)
    order = np.random.default_rng([0, 3]).permutation(400)
    late = order[found["block"].values[-1] :]
    other = run.copy(deep=True)
    other["late"][late] = other["late"][late] * 0
    changed = codelength_layers(other)
    np.testing.assert_array_equal(changed["C"], found["C"])
    np.testing.assert_array_equal(
        changed["block_codelength"][:, :-1], found["block_codelength"][:, :-1]
    )


def test_labels_not_seen_yet_never_cost_infinitely_much(planted: Maker) -> None:
    run = planted(n=300, classes=4)
    label = run["label"].values.copy()
    label[np.random.default_rng([0, 3]).permutation(300)[-2:]] = 9
    found = codelength_layers(run, label, estimator=GaussianNB())
    assert np.isfinite(found["codelength"]).all()
    assert found["C"].isnull().any()


def test_several_recordings(planted: Maker) -> None:
    found = codelength_layers({"a": planted(0), "b": planted(1)})
    assert found["codelength"].dims == ("network", "layer")


def test_many_classes_of_few_examples_pass_quietly(planted: Maker) -> None:
    found = codelength_layers(planted(n=200, classes=80, width=80))
    assert (found["compression"] > 0.97).all()


def test_what_has_no_code_length(planted: Maker) -> None:
    with pytest.raises(ValueError, match="'angle' to be classes for a code length"):
        codelength_layers(planted(), "angle")
    with pytest.raises(ValueError, match="RidgeClassifier gives no probabilities"):
        codelength_layers(planted(), estimator=RidgeClassifier())
    both = np.column_stack([planted()["label"] > 1, planted()["label"] > 2])
    with pytest.raises(ValueError, match="one class of each example for a code length"):
        codelength_layers(planted(), both)


def test_groups_are_sent_whole(planted: Maker) -> None:
    run = planted(n=400)
    rng = np.random.default_rng(0)
    stimulus = rng.permutation(np.arange(400) % 50)
    coin = rng.integers(2, size=50)[stimulus]
    run["late"] = ("example", "late_unit"), rng.normal(size=(50, 60))[stimulus]
    run = run[["late"]].assign_coords(stimulus=("example", stimulus))
    with pytest.warns(UserWarning, match="400 of 400 examples equal another one"):
        fooled = codelength_layers(run, coin)
    found = codelength_layers(run, coin, groups="stimulus")
    assert fooled["compression"] > 1.5
    assert abs(found["compression"] - 1) < 0.05
    # Eight repeats a stimulus: no block cuts one.
    assert (found["block"] % 8 == 0).all()
    assert found.attrs["groups"] == "stimulus"


@pytest.mark.parametrize("factor", [1e-30, 1e-4, 1e30])
def test_the_scale_of_a_layer_is_not_read(planted: Maker, factor: float) -> None:
    run = planted(n=120)[["late"]]
    scaled = run.assign(late=run["late"] * np.float32(factor))
    found, plain = codelength_layers(scaled), codelength_layers(run)
    np.testing.assert_allclose(found["codelength"], plain["codelength"], rtol=1e-3)
    raw = codelength_layers(scaled, standardise="none")
    assert abs(raw["codelength"] / plain["codelength"] - 1) > 0.01
