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
        found = codelength_layers(run, label, seed=seed)
        np.testing.assert_allclose(found["uniform"], n * np.log2(classes))
        np.testing.assert_allclose(found["codelength"], found["uniform"], rtol=0.03)


def test_what_a_layer_knows_shortens_the_code(planted: Maker) -> None:
    found = codelength_layers(planted(steps=2, n=400))
    assert found["codelength"].dims == ("step", "layer")
    assert (found["compression"].sel(layer="late") > 2).all()
    assert (abs(found["compression"].sel(layer="early") - 1) < 0.03).all()
    ratio = found["uniform"] / found["codelength"]
    np.testing.assert_allclose(found["compression"], ratio)
    assert found.attrs["evidence_bits"] == 10
    assert found.attrs["C_grid"] == [10.0**p for p in range(-5, 3)]
    total = found["block_codelength"].sum("block")
    np.testing.assert_allclose(total, found["codelength"])


def test_the_length_is_that_of_the_blocks_coded_by_hand(planted: Maker) -> None:
    run = planted(n=400)
    found = codelength_layers(run, seed=2).sel(layer="late")
    order = np.random.default_rng([2, 3]).permutation(400)
    x, y = run["late"].values[order], run["label"].values[order]
    ends = [*found["block"].values[1:].tolist(), 400]
    for block, (t, end) in enumerate(zip([0, *ends], ends, strict=False)):
        C = float(found["C"][block])
        bits = (end - t) * np.log2(4)
        if C:
            fitted = LogisticRegression(C=C, tol=1e-8, max_iter=2000).fit(x[:t], y[:t])
            chances = (t * fitted.predict_proba(x[t:end]) + 1 / 4) / (t + 1)
            bits = -np.log2(chances[np.arange(end - t), y[t:end]]).sum()
        assert float(found["block_codelength"][block]) == pytest.approx(bits, rel=0.02)
    assert float(found["C"][0]) == float(found["C"][1]) == 0


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
