"""The artificial sets: their labellings, sizes and seeds."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from repsim import datasets
from repsim.datasets.inputs import toy


@pytest.mark.parametrize("name", toy.names())
def test_sizes_and_contract(name: str) -> None:
    data = datasets.load(name)
    dims = int(name.split("_")[1])
    assert data["features"].shape == (100 if dims == 2 else 1000, dims)
    assert data["features"].dtype == np.float32
    assert set(np.unique(data["label"])) == {0, 1}
    assert data.identical(datasets.load(name))
    assert datasets.load(name, "test").sizes["example"] == 1000


@pytest.mark.parametrize("dims", [2, 100])
def test_lin_is_separable_through_the_origin_on_both_splits(dims: int) -> None:
    train = toy.make("lin", dims, examples=2000)
    test = toy.make("lin", dims, "test")
    model = LogisticRegression(C=1e6, fit_intercept=False, max_iter=5000)
    model.fit(train["features"], train["label"])
    assert model.score(train["features"], train["label"]) == 1
    assert model.score(test["features"], test["label"]) > 0.97


def test_noisy_is_lin_with_a_tenth_swapped() -> None:
    plane = np.random.default_rng([0, 1, 2]).standard_normal(2)
    data = toy.make("noisy", 2)
    clean = data["features"].values @ plane > 0
    assert int((clean != data["label"].values).sum()) == 10


def test_xor_is_the_sign_of_a_product() -> None:
    data = toy.make("xor", 100)
    x = data["features"].values
    np.testing.assert_array_equal(data["label"].values, x[:, 0] * x[:, 1] > 0)


def test_random_labels_say_nothing() -> None:
    data = toy.make("random", 2, examples=20_000, seed=3)
    x, y = data["features"].values, data["label"].values
    assert abs(y.mean() - 0.5) < 0.02
    assert np.all(abs(x[y == 1].mean(0) - x[y == 0].mean(0)) < 0.05)


def test_seeds_and_splits_are_separate_draws() -> None:
    first, second = toy.make("lin", 2, seed=0), toy.make("lin", 2, seed=1)
    assert not np.allclose(first["features"], second["features"])
    test = toy.make("lin", 2, "test", examples=100)
    assert not np.allclose(first["features"], test["features"])


def test_errors() -> None:
    with pytest.raises(ValueError, match="`kind` to be one of lin"):
        toy.make("linear", 2)
    with pytest.raises(ValueError, match="`dims` to be at least 2"):
        toy.make("lin", 1)
    with pytest.raises(ValueError, match="`examples` to be at least 1"):
        toy.make("lin", 2, examples=0)
