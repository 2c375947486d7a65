"""How well a probe reads a target: numbers from predictions, nothing else."""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import r2_score

BINS = 15
"""Bins of the calibration error, of equal width."""


def log_loss(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean negative logarithm of the true class's probability, in nats."""
    # scikit-learn's clips at the dtype's eps (16 nats in single precision), warns of
    # float32 rows that do not sum to 1 in double precision, and takes 2 ms a layer.
    true = probabilities[np.arange(len(codes)), codes].astype(np.float64)
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


def calibration_error(probabilities: np.ndarray, codes: np.ndarray) -> float:
    r"""Return the expected calibration error, |confidence − accuracy| over bins.

    .. math:: \sum_b \frac{n_b}{n} \lvert \mathrm{acc}_b - \mathrm{conf}_b \rvert
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == codes).astype(np.float64)
    gaps = np.bincount(_bins(confidence), weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(codes))


def calibration_floor(probabilities: np.ndarray) -> float:
    r"""Return the calibration error to be expected of perfectly calibrated answers.

    In a bin of variance :math:`V = \sum_i c_i (1 - c_i)`, c the confidences, a gap is
    normal, of mean size :math:`\sqrt{2 V / \pi}`, and never larger on average than
    2 V, which is what a single example has.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    variance = np.bincount(_bins(confidence), weights=confidence * (1 - confidence))
    gaps = np.minimum(np.sqrt(2 * variance / np.pi), 2 * variance)
    return float(gaps.sum() / len(confidence))


def _bins(confidence: np.ndarray) -> np.ndarray:
    return np.asarray(np.minimum((confidence * BINS).astype(int), BINS - 1))


def balanced_accuracy(predicted: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean over the classes there of the share named rightly."""
    counts = np.bincount(codes)
    right = np.bincount(codes[predicted == codes], minlength=len(counts))
    return float((right[counts > 0] / counts[counts > 0]).mean())


def auroc(evidence: np.ndarray, codes: np.ndarray) -> float:
    """Return the area under the ROC curve, one class against the rest, their mean.

    By ranks: the share of pairs in the right order, ties half. Of two classes the
    evidence is that for the second; NaN where there are no two classes.
    """
    if evidence.ndim == 1:
        evidence, truth = evidence[:, None], (codes == 1)[:, None]
    else:
        truth = codes[:, None] == np.arange(evidence.shape[1])
    there = truth.sum(axis=0)
    pairs = there * (len(codes) - there)
    below = (rankdata(evidence, axis=0) * truth).sum(axis=0) - there * (there + 1) / 2
    known = pairs > 0
    return float((below[known] / pairs[known]).mean()) if known.any() else np.nan


def r2(predicted: np.ndarray, true: np.ndarray) -> np.ndarray | float:
    """Return the shares of the variance explained; NaN where there is none."""
    shares = r2_score(true, predicted, multioutput="raw_values")
    shares = np.where(np.ptp(true, axis=0) > 0, shares, np.nan)
    return shares if true.ndim == 2 else float(shares[0])
