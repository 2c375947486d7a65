"""CKA without each example: exact, tiled, and covering."""

from collections.abc import Callable

import numpy as np
import pytest

import repsim
from repsim.inference import closed_forms as alignment
from repsim.inference.jackknife import interval, scale


def related(n: int, p: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, p)) * np.arange(1, p + 1) ** -0.5
    return x, x @ rng.normal(size=(p, p)) + rng.normal(size=(n, p))


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
