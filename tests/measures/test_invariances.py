"""What each measure does not depend on, and what it does: the registry's own table."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repsim import measures

Map = Callable[[np.ndarray, np.random.Generator], np.ndarray]
OURS = [name for name in measures.names() if name != "rsa"]
LOCAL = ["mutual_knn", "cknna", "second_order_cosine"]
OPTIONS: dict[str, dict[str, Any]] = {name: {"k": 5} for name in LOCAL}


def _invertible(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    p = x.shape[1]
    q, _ = np.linalg.qr(rng.normal(size=(p, p)))
    r, _ = np.linalg.qr(rng.normal(size=(p, p)))
    return np.asarray(x @ q * np.geomspace(0.1, 10, p) @ r)


MAPS: dict[str, Map] = {
    "permutation": lambda x, rng: x[:, rng.permutation(x.shape[1])],
    "orthogonal": lambda x, rng: (
        x @ np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))[0]
    ),
    "isotropic_scaling": lambda x, rng: x * 10 ** rng.uniform(-3, 3),
    "invertible_linear": _invertible,
    "translation": lambda x, rng: x + 5 * rng.normal(size=(1, x.shape[1])),
}


def pair(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Two related representations whose directions differ in size."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)) * [3, 2, 1, 0.5]
    y = np.concatenate([x[:, :3], rng.normal(size=(n, 2))], axis=1)
    return x, y + 0.5 * rng.normal(size=y.shape), rng


def value(name: str, x: np.ndarray, y: np.ndarray) -> float:
    return measures.get(name)(x, y, **OPTIONS.get(name, {}))


def test_the_table_is_about_known_maps() -> None:
    assert set(MAPS) == set(measures.INVARIANCES)


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("map_name", list(MAPS))
@pytest.mark.parametrize("name", OURS)
def test_invariances_hold_and_the_others_do_not(
    name: str, map_name: str, side: str
) -> None:
    change = MAPS[map_name]
    invariant = map_name in measures.get(name).invariances

    @settings(max_examples=6, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def holds(seed: int) -> None:
        x, y, rng = pair(seed)
        a, b = (change(x, rng), y) if side == "x" else (x, change(y, rng))
        assert value(name, a, b) == pytest.approx(value(name, x, y), abs=1e-7, rel=1e-7)

    if invariant:
        holds()
        return
    moved = []
    for seed in range(4):
        x, y, rng = pair(seed)
        a, b = (change(x, rng), y) if side == "x" else (x, change(y, rng))
        moved.append(abs(value(name, a, b) - value(name, x, y)))
    # PWCCA weighs by its first argument only: whatever is done to y is ignored. What
    # predicts single units may be turned, and they may not.
    ignored = name == "pwcca" and side == "y"
    ignored |= (name, map_name, side) == ("neural_predictivity", "orthogonal", "x")
    assert max(moved) < 1e-7 if ignored else max(moved) > 1e-3


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_identity_symmetry_and_bounds(name: str, seed: int) -> None:
    x, y, _ = pair(seed)
    measure = measures.get(name)
    own, there, back = value(name, x, x), value(name, x, y), value(name, y, x)
    if measure.bounds is not None:
        low, high = measure.bounds
        for number in (own, there, back):
            assert low - 1e-12 <= number <= high + 1e-12
        best = high if measure.larger_is_more_similar else low
        # A ridge keeps less than all of a direction, of a side with itself too.
        if name != "regularized_cca":
            assert own == pytest.approx(best, abs=1e-6)
    if measure.symmetric:
        assert there == pytest.approx(back, abs=1e-9)
    better = own >= there if measure.larger_is_more_similar else own <= there
    assert better or name == "hsic"


def test_what_is_said_not_to_be_symmetric_is_not() -> None:
    x, y, _ = pair(0)
    for name in OURS:
        if not measures.get(name).symmetric:
            assert abs(value(name, x, y) - value(name, y, x)) > 1e-3


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_triangle_inequality(alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, z = (rng.normal(size=(12, p)) for p in (3, 2, 4))
    d = measures.shape_distance
    assert d(x, z, alpha=alpha) <= (d(x, y, alpha=alpha) + d(y, z, alpha=alpha) + 1e-12)


@pytest.mark.parametrize("name", OURS)
def test_all_pairs_are_the_pairs(name: str) -> None:
    x, y, rng = pair(3)
    z = rng.normal(size=(40, 2))
    measure, options = measures.get(name), OPTIONS.get(name, {})
    got = measure.all_pairs([x, y, z], [z, x], **options)
    one = [[value(name, a, b) for b in (z, x)] for a in (x, y, z)]
    # These two angles are the square root of the rounding away from 0 where both sides
    # are equal: arccos(1 - 1.1e-16) is 1.5e-8.
    close = 1e-7 if name in ("arccos_cka_distance", "angular_cka_distance") else 1e-9
    np.testing.assert_allclose(got, one, atol=close)
    own = measure.all_pairs([x, y, z], **options)
    np.testing.assert_allclose(own[:, [2, 0]], got, atol=close)
    if "float32" in measure.precisions:
        rough = measure.all_pairs([x, y, z], precision="float32", **options)
        # Near 0 the angle of equal shapes keeps half of the digits.
        np.testing.assert_allclose(rough, own, atol=2e-3 if "dist" in name else 1e-4)


@pytest.mark.parametrize("name", OURS)
def test_a_constant_side_is_nan_with_one_warning(name: str) -> None:
    x, _, _ = pair(0)
    with pytest.warns(UserWarning, match="constant over the examples: `y`") as caught:
        assert np.isnan(value(name, x, np.full((40, 3), 0.1)))
    assert len(caught) == 1
    got = measures.get(name).all_pairs([x, np.zeros((40, 2))], **OPTIONS.get(name, {}))
    assert np.isnan(got).tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("name", OURS)
def test_shapes_and_numbers_that_are_refused(name: str) -> None:
    x, y, _ = pair(0)
    with pytest.raises(ValueError, match="same examples, but got 40 and 39 rows"):
        value(name, x, y[:-1])
    with pytest.raises(ValueError, match="`y` to be finite"):
        value(name, x, y * np.inf)
    with pytest.raises(ValueError, match="`x` to have shape"):
        value(name, x[0], y)
