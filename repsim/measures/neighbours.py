"""Neighbourhoods: do two representations put the same examples near each other."""

from numbers import Integral
from typing import Literal

import torch

from repsim.core.messages import unknown
from repsim.measures.catalogue import register
from repsim.measures.matrices import Matrix
from repsim.measures.parts import ByParts

NeighbourMetric = Literal["cosine", "euclidean"]

BLOCK = 1024
"""Examples whose distances are held at once."""


def mutual_knn(
    x: Matrix, y: Matrix, *, k: int = 10, metric: NeighbourMetric = "cosine"
) -> float:
    r"""Mean share of nearest neighbours that two representations have in common.

    .. math:: \frac{1}{n}\sum_i \frac{|N_k(x_i) \cap N_k(y_i)|}{k}

    where :math:`N_k` are the k nearest other examples.

    Parameters
    ----------
    x, y : array, tensor or DataArray, shape (examples, units)
        Two representations of the same examples.
    k : int
        Neighbours, 1 ≤ k < n.
    metric : {"cosine", "euclidean"}
        What near means; an example that is all zeros has cosine 0 with every other.

    Returns
    -------
    float
        In [0, 1]; k/(n − 1) on average for unrelated representations; NaN with a
        warning where a side is constant.

    Raises
    ------
    ValueError
        If k is not in [1, n), the metric does not exist, the shapes do not match or
        a value is not finite.

    Notes
    -----
    Invariant to rotation, reordering and uniform scaling of either side; to shifts
    for the Euclidean metric only. Examples at the same distance are taken in no
    particular order. Costs n²(p + q) operations a pair.

    References
    ----------
    Huh, Cheung, Wang & Isola (2024), The Platonic representation hypothesis,
    arXiv:2405.07987.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 5))
    >>> mutual_knn(x, 2 * x)
    1.0
    """
    return _KNN.one(x, y, k=k, metric=metric)


def _neighbours(x: torch.Tensor, *, k: int, metric: NeighbourMetric) -> torch.Tensor:
    """Return the numbers of the nearest others, (examples, k)."""
    if metric not in ("cosine", "euclidean"):
        raise ValueError(unknown("metric", metric, ["cosine", "euclidean"]))
    n = len(x)
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k < n:
        msg = (
            f"Expected `k` to lie in [1, {n}), a whole number, for {n} examples, but "
            f"got {k!r}."
        )
        raise ValueError(msg)
    if metric == "cosine":
        norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        x = x / torch.where(norms > 0, norms, torch.ones_like(norms))
        offset = torch.zeros(n, dtype=x.dtype, device=x.device)
    else:
        x = x - x.mean(dim=0, keepdim=True)
        offset = x.square().sum(dim=1) / 2
    found = []
    for start in range(0, n, BLOCK):
        near = x[start : start + BLOCK] @ x.T - offset
        rows = torch.arange(len(near), device=x.device)
        near[rows, rows + start] = -torch.inf
        found.append(near.topk(k, dim=1).indices)
    return torch.cat(found)


def _shared(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    k: int,
    metric: NeighbourMetric,
) -> float:
    """Return the mean share of common neighbours."""
    n = len(a)
    mark = torch.zeros(min(BLOCK, n), n, dtype=torch.bool, device=a.device)
    common = 0
    for start in range(0, n, BLOCK):
        rows = a[start : start + BLOCK]
        inside = mark[: len(rows)].zero_().scatter_(1, rows, True)
        common += int(inside.gather(1, b[start : start + BLOCK]).sum())
    return common / (n * k)


_KNN = ByParts(_neighbours, _shared)

register(
    "mutual_knn",
    mutual_knn,
    larger_is_more_similar=True,
    bounds=(0.0, 1.0),
    invariances=("permutation", "orthogonal", "isotropic_scaling"),
    default_precision="float64",
    pairs=_KNN,
)
