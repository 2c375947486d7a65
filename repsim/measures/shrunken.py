"""Directions shrunk by a ridge: correlation where units outnumber examples."""

from dataclasses import dataclass

import torch

from repsim.core.messages import number
from repsim.measures.catalogue import register
from repsim.measures.magnitudes import Rounding
from repsim.measures.matrices import Matrix, Nan
from repsim.measures.parts import ByParts, centred


@dataclass(frozen=True)
class Shrunken:
    """Orthonormal directions of a representation, and what a ridge leaves of each."""

    directions: torch.Tensor
    kept: torch.Tensor
    """s²/(s² + λ), in (0, 1)."""


def regularized_cca(
    x: Matrix, y: Matrix, *, penalty: float = 0.1, nan: Nan = "raise"
) -> float:
    r"""Mean canonical correlation with a ridge, for any number of units.

    The mean over min(rank) of the singular values of

    .. math:: (\Sigma_{xx} + \lambda_x I)^{-1/2}\, \Sigma_{xy}\,
        (\Sigma_{yy} + \lambda_y I)^{-1/2}

    where λ is `penalty` times the mean squared singular value of a side.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    penalty : float
        In mean squared singular values over min(n − 1, units) directions, above 0.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [0, 1), below 1 also of a side with itself; NaN with a warning where a side
        is constant.

    Raises
    ------
    ValueError
        If `penalty` is not positive, the shapes do not match or a value is not finite.

    Notes
    -----
    Invariant to rotation, uniform scaling and shifts. Where rank reaches n − 1, `cca`
    is 1 by counting and refuses; here small directions, which make it so, are shrunk.
    Values of different penalties or widths are not to be compared.

    References
    ----------
    Vinod (1976), doi:10.1016/0304-4076(76)90010-5.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.random.default_rng(0).normal(size=(2, 20, 40))
    >>> regularized_cca(x, x) > regularized_cca(x, y)
    True
    """
    return _REGULARIZED.one(x, y, penalty=penalty, nan=nan)


def gulp_distance(
    x: Matrix, y: Matrix, *, penalty: float = 0.01, nan: Nan = "raise"
) -> float:
    r"""How far ridge predictions from two representations can differ.

    .. math:: d^2 = \mathrm{tr}(G_x^2) + \mathrm{tr}(G_y^2) - 2\,\mathrm{tr}(G_x G_y),
        \qquad G = \tfrac{1}{n} X (\Sigma + \lambda I)^{-1} X^T

    with X centred and of mean squared norm 1: the mean over tasks of the squared
    difference of the two predictions.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    penalty : float
        λ, in mean squared norms of an example, above 0.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        At least 0, a metric up to rotation; NaN with a warning where a side is
        constant.

    Raises
    ------
    ValueError
        If `penalty` is not positive, the shapes do not match or a value is not finite.

    Notes
    -----
    Invariant to rotation, uniform scaling and shifts. The authors' code gives d².

    References
    ----------
    Boix-Adsera, Lawrence, Stepaniants & Rigollet (2022), GULP, arXiv:2210.06545.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 5))
    >>> round(gulp_distance(x, 2 * x[:, ::-1]), 6)
    0.0
    """
    return _GULP.one(x, y, penalty=penalty, nan=nan)


def _positive(penalty: float) -> float:
    """Return a penalty, or say what is wrong with it."""
    if not number(penalty, "penalty") > 0:
        msg = f"Expected `penalty` to be positive, but got {penalty!r}."
        raise ValueError(msg)
    return penalty


def _shrunken(x: torch.Tensor, ridge: float, rounding: Rounding) -> Shrunken:
    """Return directions and what a ridge, in total variances, leaves of them."""
    u, s, _ = torch.linalg.svd(centred(x), full_matrices=False)
    rank = rounding.rank(s, x.shape)
    power = s[:rank].square() / s.square().sum()
    return Shrunken(u[:, :rank], power / (power + ridge))


def _canonical(x: torch.Tensor, *, penalty: float, rounding: Rounding) -> Shrunken:
    """Return a side of regularised canonical correlation."""
    most = min(len(x) - 1, x.shape[1])
    return _shrunken(x, _positive(penalty) / most, rounding)


def _predictive(x: torch.Tensor, *, penalty: float, rounding: Rounding) -> Shrunken:
    """Return a side of GULP."""
    return _shrunken(x, _positive(penalty), rounding)


def _correlation(a: Shrunken, b: Shrunken, *, penalty: float) -> float:
    """Return the mean shrunken canonical correlation."""
    left, right = (side.directions * side.kept.sqrt() for side in (a, b))
    return float(torch.linalg.svdvals(left.T @ right).mean())


def _gap(a: Shrunken, b: Shrunken, *, penalty: float) -> float:
    """Return the root of the squared difference of predictions."""
    left, right = (side.directions * side.kept.sqrt() for side in (a, b))
    shared = float((left.T @ right).square().sum())
    own = float(a.kept.square().sum() + b.kept.square().sum())
    return float(max(own - 2 * shared, 0.0) ** 0.5)


_REGULARIZED = ByParts(_canonical, _correlation, ranks=True)
_GULP = ByParts(_predictive, _gap, ranks=True)

for _name, _function, _pairs in (
    ("regularized_cca", regularized_cca, _REGULARIZED),
    ("gulp_distance", gulp_distance, _GULP),
):
    _similar = _name == "regularized_cca"
    register(
        _name,
        _function,
        larger_is_more_similar=_similar,
        bounds=(0.0, 1.0) if _similar else (0.0, float("inf")),
        invariances=("permutation", "orthogonal", "isotropic_scaling", "translation"),
        default_precision="float64",
        pairs=_pairs,
    )
