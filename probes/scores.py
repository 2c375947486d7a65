"""How well a probe reads a target: numbers from predictions, nothing else."""

import numpy as np

BINS = 15
"""Bins of the calibration error, of equal width."""


def log_loss(chances: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean negative logarithm of the true class's probability, in nats."""
    true = chances[np.arange(len(codes)), codes].astype(np.float64)
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


def calibration_error(chances: np.ndarray, codes: np.ndarray) -> float:
    r"""Return the expected calibration error, |confidence − accuracy| over bins.

    .. math:: \sum_b \frac{n_b}{n} \lvert \mathrm{acc}_b - \mathrm{conf}_b \rvert
    """
    confidence = chances.max(axis=1).astype(np.float64)
    right = (chances.argmax(axis=1) == codes).astype(np.float64)
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(places, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(codes))


def v_information(chances: np.ndarray, codes: np.ndarray, prior: np.ndarray) -> float:
    r"""Return what the probe knows beyond the classes' frequencies, in nats.

    .. math:: I_V(X \to Y) = H_V(Y) - H_V(Y \mid X)

    Both are held-out log losses: of the best constant prediction, and of the probe.
    The estimate is negative where the probe does worse than the constant.
    """
    constant = np.broadcast_to(prior, (len(codes), len(prior)))
    return log_loss(constant, codes) - log_loss(chances, codes)


def r2(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the share of the variance explained, 1 − residual / total."""
    total = float(((true - true.mean()) ** 2).sum())
    return 1 - float(((true - predicted) ** 2).sum()) / total if total else np.nan


def rmse(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the root of the mean squared error, in the target's unit."""
    return float(np.sqrt(((true - predicted) ** 2).mean()))
