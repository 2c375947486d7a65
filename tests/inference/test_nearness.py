"""Rules before measured RDMs: against a slow jackknife, and what it covers."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from repsim.inference.nearness import Nearness, difference

N, LAYERS = 40, 2


def _near(rows: list[np.ndarray], measured: np.ndarray) -> Nearness:
    """Return what networks' RDMs (layer, pair) come to."""
    made = Nearness()
    for one in rows:
        made.add(one, measured)
    return made


def _world(
    rng: np.random.Generator, gain: float, n: int = N, networks: int = 5
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Return subjects' RDMs, and two rules' networks that see one truth more or less.

    With gain 1 the two are alike; stimuli are drawn with everything else.
    """
    truth = rng.normal(size=(n, 4))
    measured = np.stack(
        [pdist(truth + 0.5 * rng.normal(size=truth.shape)) for _ in range(3)]
    )
    sides = [
        [
            np.stack(
                [
                    pdist(truth * size + rng.normal(size=truth.shape))
                    for _ in range(LAYERS)
                ]
            )
            for _ in range(networks)
        ]
        for size in (1.0, gain)
    ]
    return measured, sides


def test_it_is_the_slow_jackknife() -> None:
    rng = np.random.default_rng(0)
    measured, sides = _world(rng, 1.5)

    def value(one: np.ndarray, keep: np.ndarray) -> np.ndarray:
        pairs = squareform(np.outer(keep, keep), checks=False) > 0
        return np.array(
            [
                np.mean([spearmanr(layer[pairs], m[pairs])[0] for m in measured])
                for layer in one
            ]
        )

    every = np.ones(N, dtype=bool)
    for rows in sides:
        made = _near(rows[:1], measured)
        np.testing.assert_allclose(made.values[0], value(rows[0], every), atol=1e-6)
        without = np.stack([value(rows[0], np.arange(N) != k) for k in range(N)])
        slow = without - without.mean(0)
        fast = made.moved[0] - made.moved[0].mean(0)
        # To first order: what is left is of the order of one over N squared.
        assert np.abs(slow - fast).max() < 0.1 * np.abs(slow).max()
    found = difference(*(_near(rows, measured) for rows in sides))
    means = [np.mean([value(one, every) for one in rows], 0) for rows in sides]
    np.testing.assert_allclose(found["difference"], means[1] - means[0], atol=1e-6)
    assert (found["p_value"] < 0.05).all() and (found["low"] > 0).all()


def test_rules_that_are_alike_are_not_told_apart() -> None:
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(100):
        measured, sides = _world(rng, 1.0, n=16, networks=4)
        found = difference(*(_near(rows, measured) for rows in sides))
        rejected += int((found["p_value"] <= 0.05).sum())
    assert rejected <= 20  # of 200 tests, at a level of 5 %


def test_the_mean_of_many_draws_is_covered() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(60):
        measured, sides = _world(rng, 1.6, n=24, networks=4)
        found.append(difference(*(_near(rows, measured) for rows in sides)))
    truth = np.mean([one["difference"] for one in found])
    inside = [(one["low"] <= truth) & (truth <= one["high"]) for one in found]
    assert np.mean(inside) >= 0.9


def test_what_has_no_distance_has_no_number() -> None:
    rng = np.random.default_rng(3)
    measured, sides = _world(rng, 1.0)
    for one in sides[0]:
        one[0] = np.nan
    found = difference(*(_near(rows, measured) for rows in sides))
    assert np.isnan(found["p_value"][0]) and np.isfinite(found["p_value"][1])
    assert not _near(sides[0][:1], measured).enough


@pytest.mark.parametrize("count", [1, 3])
def test_holes_in_a_subject_do_not_count(count: int) -> None:
    measured, sides = _world(np.random.default_rng(4), 1.0)
    measured[0, :count] = np.nan
    made = _near(sides[0], measured)
    expected = np.mean(
        [
            spearmanr(sides[0][0][1], one, nan_policy="omit").statistic
            for one in measured
        ]
    )
    assert made.values[0][1] == pytest.approx(expected, abs=1e-6)
