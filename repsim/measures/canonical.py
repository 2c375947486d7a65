"""Canonical correlations: similarity up to any invertible linear map."""

import warnings
from dataclasses import dataclass

import torch

from repsim.measures.catalogue import register
from repsim.measures.magnitudes import Rounding
from repsim.measures.matrices import Matrix, Nan
from repsim.measures.parts import ByParts, centred


@dataclass(frozen=True)
class Basis:
    """The directions of one representation."""

    directions: torch.Tensor
    x: torch.Tensor


def cca(x: Matrix, y: Matrix, *, nan: Nan = "raise") -> float:
    r"""Mean canonical correlation.

    With orthonormal bases U and V of the centred representations,

    .. math:: \rho = \mathrm{svd}(U^T V), \qquad
        CCA = \frac{1}{r}\sum_{i \le r} \rho_i,\quad r = \min(\mathrm{rank}).

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [0, 1]; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If the shapes do not match, a value is not finite, or a side has rank n − 1,
        because every direction of the other is then found in it, whatever it says.

    Warns
    -----
    UserWarning
        If the ranks add up to more than n − 1: some correlations are 1 by counting.

    Notes
    -----
    Invariant to all invertible linear maps and shifts of either side, so large and
    small directions count alike. Costs 2n(p² + q² + pq) operations a pair.

    References
    ----------
    Hotelling (1936), doi:10.1093/biomet/28.3-4.321; Raghu et al. (2017),
    arXiv:1706.05806.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 3))
    >>> round(cca(x, x @ rng.normal(size=(3, 3))), 6)
    1.0
    """
    return _CCA.one(x, y, nan=nan)


def svcca(x: Matrix, y: Matrix, *, variance: float = 0.99, nan: Nan = "raise") -> float:
    r"""Mean canonical correlation of the singular directions that hold most variance.

    Each side is first cut to its fewest leading singular directions with

    .. math:: \sum_{i \le k} s_i^2 \ge \text{variance} \cdot \sum_i s_i^2.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    variance : float
        The share to keep, in (0, 1].
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [0, 1]; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If `variance` is not in (0, 1], or as for `cca`, of the directions kept.

    Warns
    -----
    UserWarning
        As for `cca`.

    Notes
    -----
    Invariant to rotation, uniform scaling and shifts of either side; not to other
    linear maps, which change what is kept.

    References
    ----------
    Raghu et al. (2017), SVCCA, arXiv:1706.05806.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> round(svcca(x, 2 * x + 1), 6)
    1.0
    """
    return _SVCCA.one(x, y, variance=variance, nan=nan)


def pwcca(x: Matrix, y: Matrix, *, nan: Nan = "raise") -> float:
    r"""Canonical correlation weighted by what each direction explains of `x`.

    With the canonical variates :math:`h_i` of x and its centred units :math:`x_j`,

    .. math:: PWCCA = \frac{\sum_i \alpha_i \rho_i}{\sum_i \alpha_i}, \qquad
        \alpha_i = \sum_j |h_i^T x_j|.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples; the weights come from `x`, so the
        order matters.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [0, 1]; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        As for `cca`.

    Warns
    -----
    UserWarning
        As for `cca`.

    Notes
    -----
    Invariant to reordering and uniform scaling of the units and to shifts. A
    rotation of `x` changes the absolute projections and so the value.

    References
    ----------
    Morcos, Raghu & Bengio (2018), arXiv:1806.05759.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> round(pwcca(x, -x), 6)
    1.0
    """
    return _PWCCA.one(x, y, nan=nan)


def refuse_full_rank(measure: str, n: int, *ranks: int) -> None:
    """Raise if a side spans everything, and warn if both must share directions."""
    if max(ranks) >= n - 1:
        msg = (
            f"Expected `x` and `y` to have rank below n − 1 = {n - 1} for {measure}, "
            f"but got ranks {' and '.join(str(rank) for rank in ranks)}: a side that "
            "spans every direction correlates perfectly with anything; use more "
            "examples, fewer units, svcca with a smaller `variance`, or cka."
        )
        raise ValueError(msg)
    if sum(ranks) > n - 1:
        warnings.warn(
            f"The ranks of both sides add up to more than n − 1 = {n - 1}, so some "
            f"canonical correlations of {measure} are 1 by counting.",
            UserWarning,
            stacklevel=2,
        )


def _basis(x: torch.Tensor, *, rounding: Rounding) -> Basis:
    """Return all directions of a representation."""
    x = centred(x)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    return Basis(u[:, : rounding.rank(s, x.shape)], x)


def _leading(x: torch.Tensor, *, variance: float, rounding: Rounding) -> Basis:
    """Return the directions that hold a share of the variance."""
    if not 0 < variance <= 1:
        msg = f"Expected `variance` to lie in (0, 1], but got {variance!r}."
        raise ValueError(msg)
    x = centred(x)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    share = s.square().cumsum(0) / s.square().sum()
    # A share that falls short by rounding alone is reached.
    short = share < variance - 8 * torch.finfo(s.dtype).eps
    kept = min(int(short.sum()) + 1, rounding.rank(s, x.shape))
    return Basis(u[:, :kept], x)


def _correlations(a: Basis, b: Basis, measure: str) -> torch.Tensor:
    """Return the canonical correlations."""
    n = len(a.x)
    refuse_full_rank(measure, n, a.directions.shape[1], b.directions.shape[1])
    cosines: torch.Tensor = torch.linalg.svdvals(a.directions.T @ b.directions)
    return cosines.clamp(max=1)


def _mean(a: Basis, b: Basis) -> float:
    """Return the mean canonical correlation."""
    return float(_correlations(a, b, "cca").mean())


def _leading_mean(a: Basis, b: Basis, *, variance: float) -> float:
    """Return the mean canonical correlation of what was kept."""
    return float(_correlations(a, b, f"svcca(variance={variance})").mean())


def _weighted(a: Basis, b: Basis) -> float:
    """Return the projection-weighted mean."""
    n = len(a.x)
    refuse_full_rank("pwcca", n, a.directions.shape[1], b.directions.shape[1])
    left, rho, _ = torch.linalg.svd(a.directions.T @ b.directions, full_matrices=False)
    weights = ((a.directions @ left).T @ a.x).abs().sum(dim=1)
    return float((weights * rho.clamp(max=1)).sum() / weights.sum())


_CCA = ByParts(_basis, _mean, ranks=True)
_SVCCA = ByParts(_leading, _leading_mean, ranks=True)
_PWCCA = ByParts(_basis, _weighted, symmetric=False, ranks=True)

register(
    "cca",
    cca,
    larger_is_more_similar=True,
    bounds=(0.0, 1.0),
    invariances=(
        "permutation",
        "orthogonal",
        "isotropic_scaling",
        "invertible_linear",
        "translation",
    ),
    default_precision="float64",
    pairs=_CCA,
)
register(
    "svcca",
    svcca,
    larger_is_more_similar=True,
    bounds=(0.0, 1.0),
    invariances=("permutation", "orthogonal", "isotropic_scaling", "translation"),
    default_precision="float64",
    pairs=_SVCCA,
)
register(
    "pwcca",
    pwcca,
    larger_is_more_similar=True,
    symmetric=False,
    bounds=(0.0, 1.0),
    invariances=("permutation", "isotropic_scaling", "translation"),
    default_precision="float64",
    pairs=_PWCCA,
)
