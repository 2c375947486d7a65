"""Effective dimension: in how many directions a representation spreads."""

import torch

from repsim.measures.magnitudes import near_one
from repsim.measures.matrices import Matrix, warn_constant
from repsim.measures.matrices import matrix as checked
from repsim.measures.parts import centred


def participation_ratio(x: Matrix) -> float:
    r"""Effective number of directions of a representation.

    With the eigenvalues :math:`\lambda_i` of its covariance over examples,

    .. math:: PR = \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}.

    Parameters
    ----------
    x : array, tensor or DataArray, shape (examples, units)
        A representation.

    Returns
    -------
    float
        Between 1 (a line) and min(n − 1, units) (a ball); NaN with a warning where
        the representation is constant.

    Raises
    ------
    ValueError
        If it is not a matrix or not finite.

    Notes
    -----
    Invariant to rotation, reordering, uniform scaling and shifts. The value of a
    sample lies below that of the population, visibly so once units outnumber a tenth
    of the examples; compare values of the same examples. Costs
    min(n units², n² units) operations.

    References
    ----------
    Gao et al. (2017), doi:10.1101/214262.

    Examples
    --------
    >>> import numpy as np
    >>> round(participation_ratio(np.eye(5)), 6)
    4.0
    """
    rows = checked(x, "x")
    if warn_constant(rows):
        return float("nan")
    return ratio_of(rows)


def ratio_of(x: torch.Tensor) -> float:
    """Return the ratio of finite float64 numbers, NaN where they do not vary."""
    x = centred(near_one(x, x.dtype)[0])
    total = float(x.square().sum())
    if total == 0:
        return float("nan")
    x = x / total**0.5
    small = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    return 1 / float(small.square().sum())
