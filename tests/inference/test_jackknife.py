"""From values without each example to intervals."""

import numpy as np
import pytest

from repsim.inference.jackknife import (
    Estimates,
    interval,
    pair_variance,
    pairs_across,
    pairs_within,
    scale,
)


def test_pair_variance_is_that_of_products_and_not_of_sums(
    rng: np.random.Generator,
) -> None:
    n, repeats = 40, 400
    for kernel, truth in (
        (lambda u: np.outer(u, u), 2 / (n * (n - 1))),
        (lambda u: u[:, None] + u[None], 0.0),
    ):
        found = []
        for _ in range(repeats):
            g = kernel(rng.normal(size=n))
            np.fill_diagonal(g, 0)
            found.append(pair_variance((g.sum(1) ** 2).sum(), (g**2).sum(), n))
        assert np.mean(found) == pytest.approx(truth, abs=0.25 / n**2)


def test_what_pairs_add_is_what_least_squares_leave(rng: np.random.Generator) -> None:
    table = rng.normal(size=(4, 5, 2))
    rows, columns = np.repeat(np.eye(4), 5, 0), np.tile(np.eye(5), (4, 1))
    design = np.hstack([rows, columns])
    fit = design @ np.linalg.pinv(design) @ table.reshape(20, 2)
    squares = ((table.reshape(20, 2) - fit) ** 2).sum(0)
    np.testing.assert_allclose(pairs_across(table), squares / (3 * 4) / 20)

    n, one = 6, rng.normal(size=(6, 6, 2))
    one = one + one.swapaxes(0, 1)
    i, j = np.triu_indices(n, 1)
    design = np.eye(n)[i] + np.eye(n)[j]
    fit = design @ np.linalg.pinv(design) @ one[i, j]
    squares = ((one[i, j] - fit) ** 2).sum(0)
    pairs = n * (n - 1) / 2
    np.testing.assert_allclose(pairs_within(one), squares / (pairs - n) / pairs)
    assert not pairs_within(one[:3, :3]).any() and not pairs_across(table[:1]).any()


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0), (0.0, np.inf), (-np.inf, 1.0)])
def test_scales_go_back_and_forth(bounds: tuple[float, float] | None) -> None:
    one, x = scale(bounds), np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(one.inverse(one.forward(x)), x)
    numeric = (one.forward(x + 1e-6) - one.forward(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(one.slope(x), numeric, rtol=1e-4)
    # A decreasing map would swap the ends, and an interval would shrink to a point.
    assert (one.slope(x) > 0).all()


def test_intervals_stay_within_the_bounds() -> None:
    without = np.linspace(0.9, 1.0, 10)[:, None]
    found = Estimates(np.array([0.97]), without)
    ends = interval(found, scale((0.0, 1.0)), 0.99)
    assert 0 <= ends.low[0] < 0.97 < ends.high[0] <= 1


def test_groups_of_unlike_sizes_are_those_of_busing(rng: np.random.Generator) -> None:
    # The mean of grouped numbers: its variance is that of weighted group means.
    sizes = np.array([2, 3, 5, 4, 6])
    values = rng.normal(size=sizes.sum())
    which = np.repeat(np.arange(5), sizes)
    without = np.array([[values[which != g].mean()] for g in range(5)])
    found = Estimates(np.array([values.mean()]), without, shares=sizes / sizes.sum())
    ends = interval(found, scale(None), 0.95)
    h = sizes.sum() / sizes
    pseudo = h * values.mean() - (h - 1) * without[:, 0]
    expected = np.mean((pseudo - np.sum(pseudo / h)) ** 2 / (h - 1))
    assert ends.standard_error[0] ** 2 == pytest.approx(expected)
    assert ends.bias[0] == pytest.approx(0, abs=1e-12)
    alike = Estimates(found.value, without, shares=np.full(5, 0.2))
    plain = interval(Estimates(found.value, without), scale(None), 0.95)
    even = interval(alike, scale(None), 0.95)
    np.testing.assert_allclose(even.bias, plain.bias)
    moved = alike.corrected(None)
    np.testing.assert_allclose(moved.value, alike.value - plain.bias)
