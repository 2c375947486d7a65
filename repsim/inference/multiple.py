"""Many tests at once: q-values, and the sentence for too few networks."""

import warnings

import numpy as np
from statsmodels.stats.multitest import multipletests


def false_discovery(p: np.ndarray) -> np.ndarray:
    r"""Return Benjamini–Hochberg q-values over all finite entries.

    .. math:: q_{(i)} = \min_{j \ge i} \frac{m}{j} p_{(j)}

    Parameters
    ----------
    p : ndarray, any shape
        p-values; NaN where there is no test.

    Returns
    -------
    ndarray
        The smallest rate of false discoveries at which each test is rejected, in
        the shape of `p`, NaN where `p` is.

    References
    ----------
    Benjamini & Hochberg 1995, https://doi.org/10.1111/j.2517-6161.1995.tb02031.x

    Examples
    --------
    >>> false_discovery(np.array([0.01, 0.02, np.nan, 0.6])).round(3).tolist()
    [0.03, 0.03, nan, 0.6]
    """
    q = np.full(p.shape, np.nan)
    finite = np.isfinite(p)
    if finite.any():
        q[finite] = multipletests(p[finite], method="fdr_bh")[1]
    return q


def too_few(
    smallest: float, level: float, size_a: int, size_b: int, what: str = "networks"
) -> str:
    """Return the sentence for a test that cannot reject, or nothing; warn with it."""
    if smallest <= level:
        return ""
    sentence = (
        f"Too few networks to reject at the {level:g} level: with {size_a} and "
        f"{size_b} {what} the smallest attainable p is {smallest:.3g}, whatever the "
        "difference; run more seeds."
    )
    warnings.warn(sentence, UserWarning, stacklevel=3)
    return sentence
