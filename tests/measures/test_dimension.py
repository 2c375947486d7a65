"""The participation ratio and its curve over layers."""

import numpy as np
import pytest
import xarray as xr

from repsim import measures
from repsim.comparison.dimensions import effective_dimension
from repsim.measures import participation_ratio


@pytest.mark.parametrize("shape", [(50, 7), (7, 50)])
def test_it_is_the_ratio_of_eigenvalue_sums(
    rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    x = rng.normal(size=shape) * np.geomspace(1, 10, shape[1]) + 1e4
    values = np.linalg.eigvalsh(np.cov(x.T))
    expected = values.sum() ** 2 / (values**2).sum()
    assert participation_ratio(x) == pytest.approx(expected, rel=1e-9)


def test_a_ball_and_a_line(rng: np.random.Generator) -> None:
    assert participation_ratio(rng.normal(size=(20_000, 5))) == pytest.approx(5, 0.01)
    line = rng.normal(size=(20, 1)) @ rng.normal(size=(1, 9))
    assert participation_ratio(line) == pytest.approx(1)


def test_over_layers_and_steps(rng: np.random.Generator) -> None:
    run = xr.Dataset(
        {
            "a": (("step", "example", "a_unit"), rng.normal(size=(2, 30, 4))),
            "b": (("step", "example", "b_unit"), rng.normal(size=(2, 30, 6))),
        },
        coords={"step": [0, 100]},
    )
    got = effective_dimension(run)
    assert got.dims == ("step", "layer")
    assert got.step.values.tolist() == [0, 100]
    one = participation_ratio(run.b.values[1])
    assert got.sel(step=100, layer="b").item() == pytest.approx(one)
    last = effective_dimension(run.isel(step=-1), layers="b")
    assert last.dims == ("layer",)
    assert last.item() == pytest.approx(one)
    assert got.attrs["measure"] == "participation_ratio"


def test_constant_layers(rng: np.random.Generator) -> None:
    with pytest.warns(UserWarning, match="constant over the examples: `x`"):
        assert np.isnan(participation_ratio(np.ones((5, 2))))
    run = xr.Dataset(
        {
            "a": (("example", "a_unit"), np.ones((5, 2))),
            "b": (("example", "b_unit"), np.eye(5)),
        }
    )
    with pytest.warns(UserWarning, match="without dimension .*'a'") as caught:
        got = effective_dimension(run)
    assert len(caught) == 1
    assert np.isnan(got.values).tolist() == [True, False]


def test_numbers_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="`x` to be finite"):
        participation_ratio(np.full((4, 2), np.nan))
    run = xr.Dataset({"a": (("example", "a_unit"), np.full((4, 2), np.nan))})
    with pytest.raises(ValueError, match="layer 'a' to be finite"):
        effective_dimension(run)


def two_nearest(x: np.ndarray) -> float:
    """Facco et al. 2017, one example after the other."""
    logs = []
    for row in x:
        near = np.sort(np.linalg.norm(x - row, axis=1))
        logs.append(np.log(near[2] / near[1]))
    logs = sorted(logs)
    kept = range(int(0.9 * len(x)))
    up = [-np.log(1 - (i + 1) / len(x)) for i in kept]
    return sum(logs[i] * up[i] for i in kept) / sum(logs[i] ** 2 for i in kept)


def likelihood(x: np.ndarray, k: int) -> float:
    """Levina & Bickel 2004, the mean of inverses."""
    total = 0.0
    for row in x:
        near = np.sort(np.linalg.norm(x - row, axis=1))[1 : k + 1]
        total += np.log(near[-1] / near[:-1]).mean()
    return len(x) / total


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_intrinsic_dimension(rng: np.random.Generator, scale: float) -> None:
    plane = rng.uniform(size=(300, 3)) @ rng.normal(size=(3, 8))
    got = measures.intrinsic_dimension(plane * scale)
    assert got == pytest.approx(two_nearest(plane))
    assert 2.5 < got < 3.5
    got = measures.intrinsic_dimension(plane * scale, method="mle", k=10)
    assert got == pytest.approx(likelihood(plane, 10))
    with pytest.warns(UserWarning, match="300 of 600 examples repeat others"):
        again = measures.intrinsic_dimension(np.vstack([plane, plane]))
    assert again == pytest.approx(two_nearest(plane))


def test_intrinsic_dimension_refuses(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 3))
    with pytest.raises(ValueError, match="`method` to be one of two_nn, mle"):
        measures.intrinsic_dimension(x, method="pca")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`k` between 2 and 19"):
        measures.intrinsic_dimension(x, method="mle", k=20)
    with pytest.raises(ValueError, match="at least 4 examples"):
        measures.intrinsic_dimension(x[:3])
    with pytest.warns(UserWarning, match="constant"):
        assert np.isnan(measures.intrinsic_dimension(np.ones((9, 2))))
