"""CKA without each example: exact, tiled, and covering."""

import itertools
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


def slow_grouped(x: np.ndarray, y: np.ndarray, which: np.ndarray) -> float:
    """CKA from loops over pairs, triples and quadruples of different groups."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        two, three, four = [], [], []
        for i, j in itertools.permutations(range(len(k)), 2):
            if which[i] == which[j]:
                continue
            two.append(k[i, j] * m[i, j])
            others = [g for g in range(len(k)) if which[g] not in (which[i], which[j])]
            three += [k[i, j] * m[i, g] for g in others]
            four += [
                k[i, j] * m[g, h] for g in others for h in others
                if which[g] != which[h]
            ]  # fmt: skip
        return float(np.mean(two) - 2 * np.mean(three) + np.mean(four))

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / float(np.sqrt(hsic(k, k) * hsic(m, m)))


def test_cka_between_groups_is_exact(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = related(12, 3, rng)
    which = np.repeat(np.arange(6), 2)[rng.permutation(12)]
    found = alignment.leave_group_out([x, y], [y], which)
    expected = slow_grouped(x, y, which)
    assert found.value[0, 0] == pytest.approx(expected, abs=1e-10)
    assert found.value[1, 0] == pytest.approx(1.0, abs=1e-10)
    slow = [
        slow_grouped(x[which != g], y[which != g], which[which != g]) for g in range(6)
    ]
    np.testing.assert_allclose(found.without[:, 0, 0], np.clip(slow, -1, 1), atol=1e-9)
    monkeypatch.setattr(alignment, "_CELLS", 60)
    tiled = alignment.leave_group_out([x, y], [y], which)
    np.testing.assert_allclose(tiled.without, found.without, atol=1e-10)


def test_groups_of_one_are_examples(rng: np.random.Generator) -> None:
    x, y = related(15, 4, rng)
    one, other = (
        alignment.leave_one_out([x], [y]),
        alignment.leave_group_out([x], [y], np.arange(15)),
    )
    np.testing.assert_allclose(other.without, one.without, atol=1e-12)
    assert one.pairs is not None and other.pairs is not None
    np.testing.assert_allclose(other.pairs, one.pairs, atol=1e-12)
    with pytest.raises(ValueError, match="at least 5 groups for an interval"):
        alignment.leave_group_out([x], [y], np.arange(15) % 4)
