"""Neighbours with their weights: do near examples stand in the same relations."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from repsim.measures.catalogue import register
from repsim.measures.matrices import Matrix, Nan
from repsim.measures.neighbours import nearness, stacked, unit_rows
from repsim.measures.parts import ByParts

GATHERED = 1 << 24
"""Numbers of pairs of rows that are multiplied at once."""


@dataclass(frozen=True)
class LocalKernel:
    """A centred kernel where examples are neighbours, elsewhere 0."""

    weighted: csr_array
    """Chance of being a neighbour times the centred kernel, (examples, examples)."""
    own: float
    """The alignment with itself."""


@dataclass(frozen=True)
class Circle:
    """Rows of length 1 and who is near whom."""

    rows: torch.Tensor
    near: csr_array


def cknna(x: Matrix, y: Matrix, *, k: int = 10, nan: Nan = "raise") -> float:
    r"""Centred kernel alignment of nearest neighbours.

    With the cosine kernels K and L, their row means taken off, and
    :math:`\alpha_{ij} = 1` where j is among the k nearest of i on both sides,

    .. math:: \frac{A(K, L)}{\sqrt{A(K, K)\,A(L, L)}}, \qquad
        A(K, L) = \sum_{i \ne j} \alpha_{ij}
        (K_{ij} - \bar K_i)(L_{ij} - \bar L_i).

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    k : int
        Neighbours, 1 ≤ k < n.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [−1, 1]; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If k is not in [1, n), the shapes do not match or a value is not finite.

    Notes
    -----
    Invariant to rotation, reordering and uniform scaling of either side. Examples at
    the same distance share the last places in α, as in `mutual_knn`. The published
    code masks the kernels first and centres them by the unbiased HSIC, which gives
    another number that depends on the order of its arguments; this is the formula of
    the paper. Costs n²(p + q) operations a pair.

    References
    ----------
    Huh, Cheung, Wang & Isola (2024), The Platonic representation hypothesis,
    arXiv:2405.07987.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 5))
    >>> round(cknna(x, 2 * x), 6)
    1.0
    """
    return _CKNNA.one(x, y, k=k, nan=nan)


def second_order_cosine(
    x: Matrix, y: Matrix, *, k: int = 10, nan: Nan = "raise"
) -> float:
    r"""Cosine between how an example relates to its neighbours on either side.

    With :math:`N_i` the k nearest others of example i on either side, and
    :math:`s^x_i` its cosines with them in x,

    .. math:: \frac{1}{n} \sum_i \cos(s^x_i, s^y_i), \qquad
        s^x_i = \left(\cos(x_i, x_j)\right)_{j \in N^x_i \cup N^y_i}.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    k : int
        Neighbours of each side, 1 ≤ k < n.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [−1, 1]; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If k is not in [1, n), the shapes do not match or a value is not finite.

    Notes
    -----
    Invariant to rotation, reordering and uniform scaling of either side. All examples
    at the distance of the last neighbour are neighbours; an example without cosines
    (all zeros) counts 0. Costs n²(p + q) operations a pair.

    References
    ----------
    Hamilton, Leskovec & Jurafsky (2016), Cultural shift or linguistic drift?,
    doi:10.18653/v1/D16-1229.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 5))
    >>> round(second_order_cosine(x, 2 * x), 6)
    1.0
    """
    return _SECOND_ORDER.one(x, y, k=k, nan=nan)


def _local(x: torch.Tensor, *, k: int) -> LocalKernel:
    """Return the centred cosines of neighbours."""
    blocks, own = [], 0.0
    for near, chances in nearness(x, k, "cosine"):
        # `near` is the cosine up to a shift a row, which goes with the mean.
        apart = near - near.mean(dim=1, keepdim=True)
        blocks.append(chances * apart)
        own += float((chances * apart.square()).sum())
    return LocalKernel(stacked(blocks), own)


def _alignment(a: LocalKernel, b: LocalKernel, *, k: int) -> float:
    """Return the alignment of two local kernels."""
    size = (a.own * b.own) ** 0.5
    return float(a.weighted.multiply(b.weighted).sum() / size) if size > 0 else np.nan


def _circle(x: torch.Tensor, *, k: int) -> Circle:
    """Return rows of length 1 and their neighbours, ties included."""
    near = stacked((chances > 0) * 1.0 for _, chances in nearness(x, k, "cosine"))
    return Circle(unit_rows(x), near)


def _relations(a: Circle, b: Circle, *, k: int) -> float:
    """Return the mean cosine between relations to the neighbours of both sides."""
    union = (a.near + b.near).tocoo()
    i, j = (torch.as_tensor(ends, dtype=torch.long) for ends in union.coords)
    step = max(1, GATHERED // max(a.rows.shape[1], b.rows.shape[1]))

    def cosines(side: Circle) -> np.ndarray:
        x = side.rows
        ends = zip(torch.split(i, step), torch.split(j, step), strict=True)
        parts = [(x[p.to(x.device)] * x[q.to(x.device)]).sum(dim=1) for p, q in ends]
        return np.asarray(torch.cat(parts).double().cpu().numpy())

    s, t = cosines(a), cosines(b)
    n, rows = len(a.rows), union.coords[0]
    both, own_s, own_t = (
        np.bincount(rows, weights=one, minlength=n) for one in (s * t, s * s, t * t)
    )
    size = np.sqrt(own_s * own_t)
    return float(np.divide(both, size, out=np.zeros(n), where=size > 0).mean())


_CKNNA = ByParts(_local, _alignment)
_SECOND_ORDER = ByParts(_circle, _relations)

for _name, _function, _pairs in (
    ("cknna", cknna, _CKNNA),
    ("second_order_cosine", second_order_cosine, _SECOND_ORDER),
):
    register(
        _name,
        _function,
        larger_is_more_similar=True,
        bounds=(-1.0, 1.0),
        invariances=("permutation", "orthogonal", "isotropic_scaling"),
        default_precision="float64",
        pairs=_pairs,
    )
