"""Neighbourhoods: do two representations put the same examples near each other."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array, vstack

from repsim.core.messages import unknown
from repsim.measures.catalogue import register
from repsim.measures.matrices import Matrix, Nan
from repsim.measures.parts import ByParts

NeighbourMetric = Literal["cosine", "euclidean"]

BLOCK = 1024
"""Examples whose distances are held at once."""


def mutual_knn(
    x: Matrix,
    y: Matrix,
    *,
    k: int = 10,
    metric: NeighbourMetric = "cosine",
    nan: Nan = "raise",
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
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

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
    for the Euclidean metric only. Where examples at the same distance compete for the
    last places, each has the same chance, independently on either side, and the value
    is the expectation over these draws: it does not depend on the examples' order, and
    a representation whose neighbours are tied agrees with itself less than fully.
    Costs n²(p + q) operations a pair.

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
    return _KNN.one(x, y, k=k, metric=metric, nan=nan)


@dataclass(frozen=True)
class Neighbourhood:
    """How surely each example is among the nearest of each other one."""

    base: np.ndarray
    """The chance, by row, of every example that `beyond` does not mention: where most
    others are at the very same distance, it stands for them all."""
    beyond: csr_array
    """What single examples have beyond it, (examples, examples)."""


def nearness(
    x: torch.Tensor, k: int, metric: NeighbourMetric
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield, block by block, who is nearer than whom, and the chance to be in N_k."""
    if metric not in ("cosine", "euclidean"):
        raise ValueError(unknown("metric", metric, ["cosine", "euclidean"]))
    n = len(x)
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k < n:
        msg = (
            f"Expected `k` to lie in [1, {n}), a whole number, for {n} examples, but "
            f"got {k!r}."
        )
        raise ValueError(msg)
    lengths = torch.linalg.vector_norm(x, ord=torch.inf, dim=1)
    x = unit_rows(x) if metric == "cosine" else x
    # Distances of what is left of a common offset tell near from nearer where inner
    # products cannot; one diverged example moves the mean of all, and not the median.
    x = x - x.median(dim=0).values
    half = x.square().sum(dim=1) / 2
    norms = (2 * half).sqrt()
    rounding = 4 * torch.finfo(x.dtype).eps * (4 + x.shape[1] ** 0.5)
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        near = x[rows] @ x.T - half
        slack = norms[rows, None] * norms + half
        if metric == "cosine":
            # Of 1 − cos = ‖x − x'‖²/2; without a direction the cosine is 0.
            near.masked_fill_(lengths == 0, 0)
            near += torch.where(lengths == 0, half[rows, None] - 1, 0)
            near[lengths[rows] == 0] = 0
            slack = slack + slack.sqrt()
        places = torch.arange(len(near), device=x.device)
        near[places, places + start] = -torch.inf
        probabilities = _probabilities(near, rounding * slack, int(k))
        near[places, places + start] = torch.where(lengths[rows] == 0, 0, half[rows])
        yield near, probabilities


def unit_rows(x: torch.Tensor) -> torch.Tensor:
    """Return rows of length 1, however large or small; rows of zeros stay."""
    for norm in (torch.inf, 2):
        sizes = torch.linalg.vector_norm(x, ord=norm, dim=1, keepdim=True)
        x = x / torch.where(sizes > 0, sizes, 1)
    return x


def _probabilities(near: torch.Tensor, slack: torch.Tensor, k: int) -> torch.Tensor:
    """Return the chance of each column to be among the k largest of its row.

    Numbers that differ from the k-th largest by rounding alone are equal to it, and
    share the places that are left; `slack` is the rounding of each.
    """
    last = near.topk(k, dim=1)
    edge = last.values[:, -1:]
    slack = slack + slack.gather(1, last.indices[:, -1:])
    sure, tied = near > edge + slack, (near - edge).abs() <= slack
    left = (k - sure.sum(dim=1, keepdim=True)) / tied.sum(dim=1, keepdim=True)
    return sure + tied * left.to(near.dtype)


def stacked(blocks: Iterable[torch.Tensor]) -> csr_array:
    """Return blocks of rows as one sparse matrix."""
    return csr_array(vstack([csr_array(block.cpu().numpy()) for block in blocks]))


def _neighbours(x: torch.Tensor, *, k: int, metric: NeighbourMetric) -> Neighbourhood:
    """Return who is near whom."""
    base, beyond = [], []
    for _, probabilities in nearness(x, k, metric):
        # The commonest chance of a row is 0, or that of a tie that most others share.
        common = probabilities.median(dim=1, keepdim=True).values
        base.append(common[:, 0].cpu().numpy())
        beyond.append(probabilities - common)
    return Neighbourhood(np.concatenate(base), stacked(beyond))


def _shared(
    a: Neighbourhood, b: Neighbourhood, *, k: int, metric: NeighbourMetric
) -> float:
    """Return the expected share of common neighbours, ties broken on either side."""
    n = len(a.base)
    # Σ (base_a + beyond_a)(base_b + beyond_b), of which only the last is sparse.
    common = n * (a.base @ b.base)
    common += a.base @ b.beyond.sum(axis=1) + b.base @ a.beyond.sum(axis=1)
    common += a.beyond.multiply(b.beyond).sum()
    return float(common / (n * k))


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
