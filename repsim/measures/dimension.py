"""Effective dimension: in how many directions a representation spreads."""

import warnings
from typing import Literal, get_args

import torch

from repsim.core.messages import unknown, whole
from repsim.measures.magnitudes import near_one
from repsim.measures.matrices import Matrix, check_examples, warn_constant
from repsim.measures.matrices import matrix as checked
from repsim.measures.neighbours import BLOCK
from repsim.measures.parts import centred

DimensionMethod = Literal["two_nn", "mle"]


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


def intrinsic_dimension(
    x: Matrix, *, method: DimensionMethod = "two_nn", k: int = 20
) -> float:
    r"""Dimension of the surface near which the examples lie.

    With the distance :math:`r_{ij}` of example i to its j-th nearest other one,
    "two_nn" is the slope through the origin of

    .. math:: -\log(1 - i/n) \approx d \, \log \mu_{(i)}, \qquad
        \mu_i = r_{i2} / r_{i1},

    over the ratios in ascending order, the largest tenth left out; "mle" is

    .. math:: \left[\frac{1}{n (k - 1)} \sum_i \sum_{j<k}
        \log \frac{r_{ik}}{r_{ij}}\right]^{-1} .

    Parameters
    ----------
    x : array, tensor or DataArray, shape (examples, units)
        A representation.
    method : {"two_nn", "mle"}
        Two nearest neighbours, or maximum likelihood from k of them.
    k : int
        Neighbours of "mle", 2 ≤ k < n.

    Returns
    -------
    float
        Above 0; NaN with a warning where the representation is constant.

    Raises
    ------
    ValueError
        If the method does not exist, k is out of range, or fewer than 4 different
        examples are left.

    Warns
    -----
    UserWarning
        If examples repeat each other, which are then taken once: the distance 0 has
        no logarithm.

    Notes
    -----
    Invariant to rotation, reordering, uniform scaling and shifts. Both underestimate
    dimensions beyond about 10 from few examples; compare values of the same examples.
    Costs n² × units operations.

    References
    ----------
    Facco, d'Errico, Rodriguez & Laio (2017), doi:10.1038/s41598-017-11873-y. Levina &
    Bickel (2004), NeurIPS 17, with the mean of inverses of MacKay & Ghahramani.

    Examples
    --------
    >>> import numpy as np
    >>> plane = np.random.default_rng(0).uniform(size=(500, 2))
    >>> round(intrinsic_dimension(np.hstack([plane, plane**2])))
    2
    """
    if method not in get_args(DimensionMethod):
        raise ValueError(unknown("method", method, get_args(DimensionMethod)))
    rows = checked(x, "x")
    if warn_constant(rows):
        return float("nan")
    once = torch.unique(near_one(rows, rows.dtype)[0], dim=0)
    if len(once) < len(rows):
        warnings.warn(
            f"{len(rows) - len(once)} of {len(rows)} examples repeat others and are "
            "taken once.",
            UserWarning,
            stacklevel=2,
        )
    check_examples(len(once), 4)
    if method == "two_nn":
        ratios = nearest_distances(once, 2).log()
        mu = (ratios[:, 1] - ratios[:, 0]).sort().values
        n = len(mu)
        kept = mu[: int(0.9 * n)]
        height = -torch.log1p(-torch.arange(1, len(kept) + 1, dtype=mu.dtype) / n)
        return float((kept @ height.to(mu.device)) / (kept @ kept))
    k = whole(k, "k", 2, len(once) - 1)
    logs = nearest_distances(once, k).log()
    return 1 / float((logs[:, -1:] - logs[:, :-1]).mean())


def nearest_distances(x: torch.Tensor, k: int) -> torch.Tensor:
    """Return the distances to the k nearest others in order, (examples, k)."""
    blocks = []
    for start in range(0, len(x), BLOCK):
        # By differences, not by inner products: the nearest ones would cancel.
        apart = torch.cdist(
            x[start : start + BLOCK], x, compute_mode="donot_use_mm_for_euclid_dist"
        )
        places = torch.arange(len(apart), device=x.device)
        apart[places, places + start] = torch.inf
        blocks.append(apart.topk(k, dim=1, largest=False).values)
    return torch.cat(blocks)


def ratio_of(x: torch.Tensor) -> float:
    """Return the ratio of finite float64 numbers, NaN where they do not vary."""
    x = centred(near_one(x, x.dtype)[0])
    total = float(x.square().sum())
    if total == 0:
        return float("nan")
    x = x / total**0.5
    small = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    return 1 / float(small.square().sum())
