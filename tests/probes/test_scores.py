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


@given(st.integers(0, 1000), st.integers(2, 6))
def test_balanced_accuracy_and_auroc(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(k), rng.integers(k, size=40)])
    evidence = rng.dirichlet(np.ones(k), size=len(codes)).round(1)  # with ties
    evidence /= evidence.sum(axis=1, keepdims=True)
    expected = metrics.balanced_accuracy_score(codes, evidence.argmax(1))
    found = scores.balanced_accuracy(evidence.argmax(1), codes)
    assert found == pytest.approx(expected)
    one = evidence[:, 1] if k == 2 else evidence
    expected = metrics.roc_auc_score(codes, one, multi_class="ovr")
    assert scores.auroc(one, codes) == pytest.approx(expected)
    assert np.isnan(scores.auroc(evidence[:1], codes[:1]))


@pytest.mark.parametrize("sharpness", [0.05, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("n", [20, 500])
def test_calibrated_answers_show_the_floor(sharpness: float, n: int) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(4, sharpness), size=n)
    cumulative = probabilities.cumsum(axis=1)
    shown = [
        scores.calibration_error(
            probabilities, (rng.random((n, 1)) > cumulative[:, :3]).sum(axis=1)
        )
        for _ in range(400)
    ]
    expected = scores.calibration_floor(probabilities)
    assert expected == pytest.approx(np.mean(shown), rel=0.15)
