"""How representations fill the sphere of directions: spread out, or round one axis."""

from numbers import Real

import numpy as np
import torch

from repsim.measures.catalogue import register
from repsim.measures.magnitudes import near_one
from repsim.measures.matrices import Matrix, Nan, matrix, warn_constant
from repsim.measures.neighbours import BLOCK, unit_rows
from repsim.measures.parts import ByParts


def uniformity(x: Matrix, *, t: float = 2.0) -> float:
    r"""Logarithm of the mean Gaussian potential of directions: low where they spread.

    .. math:: \log \frac{2}{n(n-1)} \sum_{i<j} e^{-t \|\hat x_i - \hat x_j\|^2},
        \qquad \hat x = x / \|x\|

    Parameters
    ----------
    x : array, tensor or DataArray, shape (examples, units)
        A representation.
    t : float
        How fast the potential falls, above 0.

    Returns
    -------
    float
        In [−4t, 0]; 0 where all point the same way; NaN with a warning where the
        representation is constant.

    Raises
    ------
    ValueError
        If `t` is not positive, or `x` is not a finite matrix.

    References
    ----------
    Wang & Isola (2020), arXiv:2005.10242.

    Examples
    --------
    >>> import numpy as np
    >>> round(uniformity(np.eye(2)), 6)
    -4.0
    """
    rows = matrix(x, "x")
    return np.nan if warn_constant(rows) else _uniformity(_scaled(rows), t=t)


def concentricity(x: Matrix) -> float:
    r"""Mean cosine of the examples with their mean.

    .. math:: \frac{1}{n} \sum_i \cos(x_i, \bar x)

    Parameters
    ----------
    x : array, tensor or DataArray, shape (examples, units)
        A representation.

    Returns
    -------
    float
        In [0, 1] but for rounding: 0 where the mean says nothing, 1 where all point
        its way; NaN with a warning where the representation is constant.

    Raises
    ------
    ValueError
        If it is not a matrix or not finite.

    References
    ----------
    Klabunde et al. (2023), Similarity of neural network models: a survey,
    arXiv:2305.06329.

    Examples
    --------
    >>> import numpy as np
    >>> round(concentricity(np.eye(2)), 6)
    0.707107
    """
    rows = matrix(x, "x")
    return np.nan if warn_constant(rows) else _concentricity(_scaled(rows))


def uniformity_difference(
    x: Matrix, y: Matrix, *, t: float = 2.0, nan: Nan = "raise"
) -> float:
    r"""Absolute difference of `uniformity`.

    .. math:: |\mathrm{uniformity}(x) - \mathrm{uniformity}(y)|

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    t : float
        How fast the potential falls, above 0.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        At least 0; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If `t` is not positive, the shapes do not match or a value is not finite.

    References
    ----------
    Wang & Isola (2020), arXiv:2005.10242.

    Examples
    --------
    >>> import numpy as np
    >>> uniformity_difference(np.eye(3), 2 * np.eye(3))
    0.0
    """
    return _UNIFORMITY.one(x, y, t=t, nan=nan)


def concentricity_difference(x: Matrix, y: Matrix, *, nan: Nan = "raise") -> float:
    r"""Absolute difference of `concentricity`.

    .. math:: |\mathrm{concentricity}(x) - \mathrm{concentricity}(y)|

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        At least 0; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If the shapes do not match or a value is not finite.

    References
    ----------
    Klabunde et al. (2023), Similarity of neural network models: a survey,
    arXiv:2305.06329.

    Examples
    --------
    >>> import numpy as np
    >>> concentricity_difference(np.eye(3), 2 * np.eye(3))
    0.0
    """
    return _CONCENTRICITY.one(x, y, nan=nan)


def _scaled(x: torch.Tensor) -> torch.Tensor:
    """Return numbers near 1."""
    return near_one(x, x.dtype)[0]


def _uniformity(x: torch.Tensor, *, t: float) -> float:
    """Return the logarithm of the mean potential of all pairs."""
    if not isinstance(t, Real) or isinstance(t, bool) or not t > 0:
        msg = f"Expected `t` to be a positive number, but got {t!r}."
        raise ValueError(msg)
    x, total = unit_rows(x), 0.0
    norms = x.square().sum(dim=1)
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK]
        squared = norms[start : start + BLOCK, None] + norms - 2 * rows @ x.T
        potential = (squared.clamp(min=0) * -t).exp_()
        places = torch.arange(len(rows), device=x.device)
        potential[places, places + start] = 0
        total += float(potential.sum())
    return float(np.log(total / (len(x) * (len(x) - 1))))


def _concentricity(x: torch.Tensor) -> float:
    """Return the mean cosine with the mean."""
    mean = unit_rows(x.mean(dim=0, keepdim=True))
    return float((unit_rows(x) @ mean.T).mean())


def _difference(a: float, b: float, **options: float) -> float:
    """Return how far apart two numbers are."""
    return abs(a - b)


_UNIFORMITY = ByParts(_uniformity, _difference)
_CONCENTRICITY = ByParts(_concentricity, _difference)

for _name, _function, _pairs, _most in (
    ("uniformity_difference", uniformity_difference, _UNIFORMITY, float("inf")),
    ("concentricity_difference", concentricity_difference, _CONCENTRICITY, 2.0),
):
    register(
        _name,
        _function,
        larger_is_more_similar=False,
        bounds=(0.0, _most),
        invariances=("permutation", "orthogonal", "isotropic_scaling"),
        default_precision="float64",
        pairs=_pairs,
    )
