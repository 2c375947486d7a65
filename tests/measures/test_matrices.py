"""What a measure takes, and what it says of what it does not."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import repsim
from repsim import measures


def test_masked_values_are_refused_until_they_are_left_out() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    mask = np.zeros_like(x, dtype=bool)
    mask[2, 1] = True
    held = np.ma.array(x, mask=mask)
    with pytest.raises(ValueError, match=r"`y` without masked .*1 of 60.*nan=\"omit\""):
        measures.cka(x, held)
    rest = np.delete(x, 2, axis=0)
    got = measures.cka(x, held**2, nan="omit")
    assert got == pytest.approx(measures.cka(rest, rest**2))
    assert measures.cka(x, np.ma.array(x)) == pytest.approx(1)


def test_nan_is_an_option_of_every_measure_and_of_compare() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=(40, p)) for p in (3, 4, 2))
    b[5, 0] = c[11, 1] = np.nan
    run = xr.Dataset(
        {
            n: (("example", f"{n}_unit"), x)
            for n, x in zip("abc", (a, b, c), strict=True)
        }
    )
    whole = run.isel(example=np.delete(np.arange(40), [5, 11]))
    for measure in ("cka", "cca", "rsa", "mutual_knn", "hsic"):
        with pytest.raises(ValueError, match="finite"):
            repsim.compare(run, measure=measure)
        got = repsim.compare(run, measure=measure, nan="omit")
        right = repsim.compare(whole, measure=measure)
        np.testing.assert_allclose(got, right, rtol=1e-9)
        assert '"nan": "omit"' in got.attrs["options"]

    def width(x: Any, y: Any) -> float:
        return float(len(x))

    assert repsim.compare(run, measure=width, nan="omit").values[0, 0] == 38
    with pytest.raises(ValueError, match="`nan` to be one of raise, omit"):
        repsim.compare(run, nan="drop")
    infinite = run.fillna(np.inf)
    with pytest.raises(ValueError, match="finite"):
        repsim.compare(infinite, nan="omit")
    with pytest.raises(ValueError, match="`x` to be finite"):
        measures.cka(infinite.b, a, nan="omit")


def test_a_tensor_without_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="hold numbers, but got a tensor on device"):
        measures.cka(torch.empty(4, 2, device="meta"), np.ones((4, 2)))


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_quantised_numbers_are_read() -> None:
    x = torch.arange(12.0).reshape(6, 2).square()
    y = torch.quantize_per_tensor(x, 0.5, 0, torch.qint32)
    assert measures.cka(y, x) == pytest.approx(1)


@pytest.mark.parametrize(
    "x, message",
    [
        (np.ones((4, 2)) * 1j, "real numbers, but got complex128"),
        (np.array([["a"], ["b"]]), "real numbers, but got <U1"),
        (np.ones((4, 2), dtype=object), "real numbers, but got object"),
    ],
)
def test_what_holds_no_real_numbers(x: np.ndarray, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        measures.cka(x, x)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("regularized_cca", {"penalty": 0.0}, "`penalty` to be positive, but got 0.0"),
        ("gulp_distance", {"penalty": -1.0}, "`penalty` to be positive, but got -1.0"),
        ("uniformity_difference", {"t": 0}, "`t` to be a positive number, but got 0"),
        ("cknna", {"k": 20}, r"`k` to lie in \[1, 20\)"),
        ("second_order_cosine", {"k": 0}, r"`k` to lie in \[1, 20\)"),
        ("neural_predictivity", {"folds": 11}, r"`folds` to lie in \[2, 10\]"),
        (
            "arccos_cka_distance",
            {"kernel": "poly"},
            "`kernel` to be one of linear",
        ),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any], message: str) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(ValueError, match=message):
        measures.get(name)(x, x, **options)


def test_as_many_folds_as_asked_for() -> None:
    # 50 examples in 20 folds had been 17 of three.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    y = x @ rng.normal(size=(3, 2)) + rng.normal(size=(50, 2))
    order = np.random.default_rng(0).permutation(50)
    left = total = 0.0
    for held in np.array_split(order, 20):
        rest = np.setdiff1d(order, held)
        u, v = x[rest] - x[rest].mean(0), y[rest] - y[rest].mean(0)
        ridge = 0.1 * (np.linalg.svd(u, compute_uv=False) ** 2).mean()
        weights = np.linalg.solve(u.T @ u + ridge * np.eye(3), u.T @ v)
        truth = y[held] - y[rest].mean(0)
        left += ((truth - (x[held] - x[rest].mean(0)) @ weights) ** 2).sum()
        total += (truth**2).sum()
    got = measures.linear_predictivity(x, y, folds=20, penalty=0.1)
    assert got == pytest.approx(1 - left / total)
