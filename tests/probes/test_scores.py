"""Scores against scikit-learn's and against numbers done by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from repsim.probes import scores


@given(st.integers(0, 1000), st.integers(2, 6))
def test_log_loss_and_calibration(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(k), size=40)
    codes = rng.integers(k, size=40)
    expected = metrics.log_loss(codes, probabilities, labels=range(k))
    assert scores.log_loss(probabilities, codes) == pytest.approx(expected)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == codes
    by_hand = 0.0
    for b in range(scores.BINS):
        low, high = b / scores.BINS, (b + 1) / scores.BINS
        inside = (confidence >= low) & (confidence < high)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            by_hand += inside.mean() * gap
    assert scores.calibration_error(probabilities, codes) == pytest.approx(by_hand)


def test_regression_scores() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(2, 50))
    assert scores.r2(predicted, true) == pytest.approx(
        metrics.r2_score(true, predicted)
    )
    assert np.isnan(scores.r2(predicted, np.ones(50)))


def test_v_information_of_the_prior_is_zero() -> None:
    prior = np.array([0.2, 0.8])
    probabilities = np.tile(prior, (10, 1))
    assert scores.v_information(probabilities, np.arange(10) % 2, prior) == 0
