"""Shape distances: how far apart two representations stay after the best rotation."""

from dataclasses import dataclass

import numpy as np
import torch

from repsim.measures.canonical import refuse_full_rank
from repsim.measures.catalogue import register
from repsim.measures.magnitudes import Rounding
from repsim.measures.matrices import Matrix, Nan
from repsim.measures.parts import ByParts, centred

NEAR = 0.999
"""Above this cosine the arc cosine has lost digits that the chord still has."""


TOGETHER = 2**22
"""Numbers of the products that are decomposed in one call."""


@dataclass(frozen=True)
class Shape:
    """One representation of norm 1, up to rotation."""

    z: torch.Tensor
    rank: int


def procrustes_distance(x: Matrix, y: Matrix, *, nan: Nan = "raise") -> float:
    r"""Angle between two representations after the best rotation.

    .. math:: d(X, Y) = \arccos \frac{\|X^T Y\|_*}{\|X\|_F \|Y\|_F}

    on centred matrices, with the nuclear norm :math:`\|\cdot\|_*`.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        Radians in [0, π/2], a metric; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If the shapes do not match or a value is not finite.

    Notes
    -----
    Invariant to rotation, reordering, uniform scaling and shifts of either side.
    Costs 2npq + O(min(p, q)² max(p, q)) operations a pair.

    References
    ----------
    Williams, Kunz, Kornblith & Linderman (2021), arXiv:2110.14739.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    >>> round(procrustes_distance(x, 2 * x[:, ::-1] + 1), 6)
    0.0
    """
    return _PROCRUSTES.one(x, y, nan=nan)


def shape_distance(
    x: Matrix, y: Matrix, *, alpha: float = 1.0, nan: Nan = "raise"
) -> float:
    r"""Angle after the best rotation of partly whitened representations.

    With :math:`X = U S V^T` centred and scaled to a root mean square singular value
    of 1,

    .. math:: \arccos \frac{\|Z_X^T Z_Y\|_*}{\|Z_X\| \|Z_Y\|}, \qquad
        Z = U\,[(1 - \alpha) I + \alpha S]\,V^T .

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    alpha : float
        1 is `procrustes_distance`, 0 the angle of CCA, between them a family.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        Radians in [0, π/2], a metric for each alpha; NaN with a warning where a side
        is constant.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1], the shapes do not match, a value is not finite,
        or, for alpha = 0, a side has rank n − 1.

    Notes
    -----
    Invariant to rotation, reordering, uniform scaling and shifts of either side; for
    alpha = 0 to every invertible linear map. Williams et al. leave the scale of X to
    the user; here it is fixed, so that alpha means the same for every layer.

    References
    ----------
    Williams, Kunz, Kornblith & Linderman (2021), arXiv:2110.14739.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(20, 2))
    >>> round(shape_distance(x, x * [1.0, 9.0], alpha=0.0), 6)
    0.0
    """
    return _SHAPE.one(x, y, alpha=alpha, nan=nan)


def _shape(x: torch.Tensor, *, alpha: float, rounding: Rounding | None = None) -> Shape:
    """Return a representation ready for comparison."""
    if not 0 <= alpha <= 1:
        msg = f"Expected `alpha` to lie in [0, 1], but got {alpha!r}."
        raise ValueError(msg)
    x = centred(x)
    rank = 0
    if alpha < 1:
        u, s, _ = torch.linalg.svd(x, full_matrices=False)
        rank = (rounding or Rounding.of(x)).rank(s, x.shape)
        u, s = u[:, :rank], s[:rank]
        x = u * ((1 - alpha) + alpha * s / s.square().mean().sqrt())
    elif x.shape[1] > x.shape[0]:
        # X = RᵀQᵀ, and a rotation of the units changes nothing.
        x = torch.linalg.qr(x.T, mode="r").R.T
    return Shape(x / torch.linalg.vector_norm(x), rank if alpha == 0 else 0)


def _angles(pairs: list[tuple[Shape, Shape]], *, alpha: float) -> np.ndarray:
    """Return the angle between the two shapes of every pair.

    Decompositions of products of one shape are made in one call, and what comes back
    from a device comes back once for all pairs, not once a pair.
    """
    if alpha == 0:
        for a, b in pairs:
            name = "shape_distance(alpha=0)"
            refuse_full_rank(name, len(a.z), a.rank, b.rank)
    cosines: list[torch.Tensor] = [torch.empty(0)] * len(pairs)
    for run in _alike([(a.z.shape[1], b.z.shape[1]) for a, b in pairs]):
        products = torch.stack([pairs[i][0].z.T @ pairs[i][1].z for i in run])
        sums = torch.linalg.svdvals(products).sum(dim=1)
        for i, value in zip(run, sums, strict=True):
            cosines[i] = value
    cosine = torch.stack(cosines).double().cpu().numpy()
    angles = np.arccos(np.minimum(cosine, 1.0))
    near = np.flatnonzero(~(cosine < NEAR))
    if len(near):
        chords = [_squared_chord(*pairs[i]) for i in near]
        squared = torch.stack(chords).double().cpu().numpy()
        angles[near] = 2 * np.arcsin(np.minimum(np.sqrt(squared) / 2, 1.0))
    return np.asarray(angles)


def _squared_chord(a: Shape, b: Shape) -> torch.Tensor:
    """Return the squared distance of two aligned shapes, which near 0 is exact."""
    u, _, vt = torch.linalg.svd(a.z.T @ b.z, full_matrices=False)
    turned_a, turned_b = a.z @ u, b.z @ vt.T
    # What lies outside the common width has no partner and counts in full.
    apart = (turned_a - turned_b, a.z - turned_a @ u.T, b.z - turned_b @ vt)
    return torch.stack([part.square().sum() for part in apart]).sum()


def _alike(shapes: list[tuple[int, int]]) -> list[list[int]]:
    """Return runs of products of one shape, of which a few fit beside each other."""
    runs: dict[tuple[int, int], list[list[int]]] = {}
    for i, shape in enumerate(shapes):
        most = max(1, TOGETHER // max(1, shape[0] * shape[1]))
        mine = runs.setdefault(shape, [[]])
        if len(mine[-1]) >= most:
            mine.append([])
        mine[-1].append(i)
    return [run for mine in runs.values() for run in mine]


def _procrustes(x: torch.Tensor) -> Shape:
    """Return a representation ready for comparison, not whitened."""
    return _shape(x, alpha=1.0)


def _procrustes_angles(pairs: list[tuple[Shape, Shape]]) -> np.ndarray:
    """Return the angle between the shapes of every pair, which were not whitened."""
    return _angles(pairs, alpha=1.0)


_PROCRUSTES = ByParts(_procrustes, _procrustes_angles, batched=True)
_SHAPE = ByParts(_shape, _angles, batched=True, ranks=True)

for _name, _function, _pairs in (
    ("procrustes_distance", procrustes_distance, _PROCRUSTES),
    ("shape_distance", shape_distance, _SHAPE),
):
    register(
        _name,
        _function,
        larger_is_more_similar=False,
        bounds=(0.0, float(np.pi / 2)),
        invariances=("permutation", "orthogonal", "isotropic_scaling", "translation"),
        default_precision="float64",
        pairs=_pairs,
    )
