"""Units matched one to one: similarity of single units, and of whole layers by them."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from repsim.measures.catalogue import register
from repsim.measures.matrices import Matrix, Nan
from repsim.measures.parts import ByParts, centred


def hard_unit_matching(x: Matrix, y: Matrix, *, nan: Nan = "raise") -> float:
    r"""Mean correlation of units under the best one-to-one matching.

    With the correlations :math:`r_{ij}` of unit i of x and unit j of y over examples,

    .. math:: \max_{\pi} \frac{1}{m} \sum_{i} r_{i \pi(i)}

    over the one-to-one matchings π of the narrower side's m units.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [−1, 1]; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If the shapes do not match or a value is not finite.

    Notes
    -----
    Invariant to reordering, scaling (each unit by its own positive number) and shifts;
    not to rotation. Units that are the same for all examples have no correlation and
    are left out. Costs 2npq + O(max(p, q)³) operations a pair.

    References
    ----------
    Li, Yosinski, Clune, Lipson & Hopcroft (2015), Convergent learning,
    arXiv:1511.07543 (bipartite matching).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 5))
    >>> round(hard_unit_matching(x, 2 * x[:, ::-1] + 1), 6)
    1.0
    """
    return _HARD.one(x, y, nan=nan)


def soft_unit_matching(x: Matrix, y: Matrix, *, nan: Nan = "raise") -> float:
    r"""Mean correlation of each unit with its best partner, from either side.

    .. math:: \frac{1}{2}\left(\frac{1}{p} \sum_i \max_j r_{ij}
        + \frac{1}{q} \sum_j \max_i r_{ij}\right)

    with the correlations :math:`r_{ij}` of unit i of x and unit j of y over examples;
    several units may share a partner.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [−1, 1]; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If the shapes do not match or a value is not finite.

    Notes
    -----
    Invariances and dead units as in `hard_unit_matching`. Costs 2npq operations.

    References
    ----------
    Li, Yosinski, Clune, Lipson & Hopcroft (2015), Convergent learning,
    arXiv:1511.07543 (semi-matching, here the mean over both directions).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 5))
    >>> round(soft_unit_matching(x, np.hstack([x, x])), 6)
    1.0
    """
    return _SOFT.one(x, y, nan=nan)


def permutation_distance(x: Matrix, y: Matrix, *, nan: Nan = "raise") -> float:
    r"""Angle between two representations after the best reordering of units.

    .. math:: \min_P \arccos \frac{\langle X, Y P \rangle}{\|X\|_F \|Y\|_F}

    on centred matrices, over permutations P; the narrower side is padded with zeros.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        Radians in [0, π], a metric; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If the shapes do not match or a value is not finite.

    Notes
    -----
    `procrustes_distance` with permutations in place of rotations, so never below it.
    Invariant to reordering, uniform scaling and shifts of either side. Costs
    2npq + O(max(p, q)³) operations a pair.

    References
    ----------
    Williams, Kunz, Kornblith & Linderman (2021), arXiv:2110.14739.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 5))
    >>> round(permutation_distance(x, 2 * x[:, ::-1] + 1), 6)
    0.0
    """
    return _PERMUTATION.one(x, y, nan=nan)


def _standardised(x: torch.Tensor) -> torch.Tensor:
    """Return the units that vary, centred and of norm 1."""
    x = centred(x)
    sizes = x.abs().amax(dim=0)
    x = x[:, sizes > 0] / sizes[sizes > 0]
    norms: torch.Tensor = torch.linalg.vector_norm(x, dim=0)
    return x / norms


def _hard(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean correlation under the best matching."""
    r = (a.T @ b).cpu().numpy()
    return float(np.clip(r[linear_sum_assignment(r, maximize=True)].mean(), -1, 1))


def _soft(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean of the best correlations of both sides."""
    r = a.T @ b
    best = r.amax(dim=1).mean() + r.amax(dim=0).mean()
    return float((best / 2).clamp(-1, 1))


def _unit_norm(x: torch.Tensor) -> torch.Tensor:
    """Return a centred representation of norm 1."""
    x = centred(x)
    norm: torch.Tensor = torch.linalg.vector_norm(x)
    return x / norm


def _reordered(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the angle after the best reordering of the units of either side."""
    product = (a.T @ b).cpu().numpy()
    i, j = linear_sum_assignment(product, maximize=True)
    # From the chord: near 0 the arc cosine has lost half of its digits.
    left, right = torch.as_tensor(i), torch.as_tensor(j)
    chord = float((a[:, left] - b[:, right]).square().sum())
    matched = a[:, left].square().sum() + b[:, right].square().sum()
    chord += max(2 - float(matched), 0.0) if a.shape[1] != b.shape[1] else 0.0
    return 2 * float(np.arcsin(min(np.sqrt(chord) / 2, 1.0)))


_HARD = ByParts(_standardised, _hard)
_SOFT = ByParts(_standardised, _soft)
_PERMUTATION = ByParts(_unit_norm, _reordered)

for _name, _function, _pairs in (
    ("hard_unit_matching", hard_unit_matching, _HARD),
    ("soft_unit_matching", soft_unit_matching, _SOFT),
    ("permutation_distance", permutation_distance, _PERMUTATION),
):
    _similar = _name != "permutation_distance"
    register(
        _name,
        _function,
        larger_is_more_similar=_similar,
        bounds=(-1.0, 1.0) if _similar else (0.0, float(np.pi)),
        invariances=("permutation", "isotropic_scaling", "translation"),
        default_precision="float64",
        pairs=_pairs,
    )
