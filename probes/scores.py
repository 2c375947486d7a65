"""How well a probe reads a target: numbers from predictions, nothing else."""

import numpy as np

BINS = 15
"""Bins of the calibration error, of equal width."""


def log_loss(chances: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean negative logarithm of the true class's probability, in nats.

    Parameters
    ----------
    chances : ndarray, shape (n, k)
        Probabilities; zeros count as the smallest positive float64.
    codes : ndarray, shape (n,)
        True classes, 0 … k − 1.

    Returns
    -------
    float
        Nats per example.

    Examples
    --------
    >>> round(log_loss(np.full((3, 2), 0.5), np.array([0, 1, 1])), 4)
    0.6931
    """
    true = chances[np.arange(len(codes)), codes].astype(np.float64)
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


def calibration_error(chances: np.ndarray, codes: np.ndarray) -> float:
    r"""Return the expected calibration error, |confidence − accuracy| over bins.

    .. math:: \sum_b \frac{n_b}{n} \lvert \mathrm{acc}_b - \mathrm{conf}_b \rvert

    Parameters
    ----------
    chances : ndarray, shape (n, k)
        Probabilities.
    codes : ndarray, shape (n,)
        True classes, 0 … k − 1.

    Returns
    -------
    float
        Between 0 and 1; 15 bins of equal width.

    References
    ----------
    .. [1] C. Guo et al., "On calibration of modern neural networks", ICML 2017.
       https://doi.org/10.48550/arXiv.1706.04599

    Examples
    --------
    >>> calibration_error(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    0.5
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

    Parameters
    ----------
    chances : ndarray, shape (n, k)
        The probe's probabilities for held-out examples.
    codes : ndarray, shape (n,)
        Their true classes.
    prior : ndarray, shape (k,)
        The classes' frequencies among the training examples.

    Returns
    -------
    float
        Nats per example.

    References
    ----------
    .. [1] Y. Xu et al., "A theory of usable information under computational
       constraints", ICLR 2020. https://doi.org/10.48550/arXiv.2002.10689

    Examples
    --------
    >>> prior = np.array([0.5, 0.5])
    >>> round(v_information(np.eye(2), np.array([0, 1]), prior), 4)
    0.6931
    """
    constant = np.broadcast_to(prior, (len(codes), len(prior)))
    return log_loss(constant, codes) - log_loss(chances, codes)


def r2(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the share of the variance explained, 1 − residual / total.

    Parameters
    ----------
    predicted, true : ndarray, shape (n,)
        Values.

    Returns
    -------
    float
        At most 1; negative where the mean would do better.

    Examples
    --------
    >>> r2(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    1.0
    """
    total = float(((true - true.mean()) ** 2).sum())
    return 1 - float(((true - predicted) ** 2).sum()) / total if total else np.nan


def rmse(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the root of the mean squared error, in the target's unit.

    Parameters
    ----------
    predicted, true : ndarray, shape (n,)
        Values.

    Returns
    -------
    float
        Not negative.

    Examples
    --------
    >>> rmse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    1.4142135623730951
    """
    return float(np.sqrt(((true - predicted) ** 2).mean()))
