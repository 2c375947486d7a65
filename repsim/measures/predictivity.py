"""Linear predictivity: how much of one representation can be read off another."""

from dataclasses import dataclass

import numpy as np
import torch

from repsim.measures.catalogue import register
from repsim.measures.matrices import Matrix
from repsim.measures.parts import ByParts

GRID = 10.0 ** np.arange(-8, 5)
"""Penalties tried, in mean squared singular values of the training part."""


@dataclass(frozen=True)
class Fold:
    """One training part of a representation in its singular directions."""

    train: torch.Tensor
    held: torch.Tensor
    u: torch.Tensor
    s: torch.Tensor
    scores: torch.Tensor


def linear_predictivity(
    x: Matrix,
    y: Matrix,
    *,
    folds: int = 5,
    penalty: float | None = None,
    seed: int = 0,
) -> float:
    r"""Held-out share of the variance of `y` that a ridge regression on `x` explains.

    .. math:: R^2 = 1 - \frac{\sum_{i} \|y_i - \hat y_i\|^2}
        {\sum_{i} \|y_i - \bar y\|^2}

    over all examples, each predicted by the fold that did not see it, with
    :math:`\bar y` the mean of that fold's training part.

    Parameters
    ----------
    x : array, tensor or DataArray, shape (examples, units)
        What predicts.
    y : array, tensor or DataArray, shape (examples, units)
        What is predicted, all units at once, each by its variance.
    folds : int
        Parts of the cross-validation, 2 ≤ folds ≤ n / 2.
    penalty : float or None
        Ridge penalty in mean squared singular values of the training part; None
        chooses in each training part by generalised cross-validation.
    seed : int
        Of the shuffling of examples into folds.

    Returns
    -------
    float
        At most 1, and below 0 where the prediction is worse than the mean; NaN with a
        warning where a side is constant.

    Raises
    ------
    ValueError
        If `folds` or `penalty` are out of range, the shapes do not match or a value
        is not finite.

    Notes
    -----
    Not symmetric. Invariant to rotation, reordering, uniform scaling and shifts of
    either side. Costs folds × O(n p min(n, p) + n p q) operations a pair.

    References
    ----------
    Golub, Heath & Wahba (1979), doi:10.1080/00401706.1979.10489751; Yamins et al.
    (2014), doi:10.1073/pnas.1403112111.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 5))
    >>> round(linear_predictivity(x, x @ rng.normal(size=(5, 3))), 4)
    1.0
    """
    return _RIDGE.one(x, y, least=4, folds=folds, penalty=penalty, seed=seed)


def _folds(
    x: torch.Tensor, *, folds: int, penalty: float | None, seed: int
) -> list[Fold]:
    """Return the training parts of a representation, factored."""
    n = len(x)
    if not 2 <= folds <= n // 2:
        msg = f"Expected `folds` to lie in [2, {n // 2}], but got {folds!r}."
        raise ValueError(msg)
    if penalty is not None and not penalty > 0:
        msg = f"Expected `penalty` to be positive, but got {penalty!r}."
        raise ValueError(msg)
    x = x - x[:1]
    order = torch.as_tensor(np.random.default_rng(seed).permutation(n))
    made = []
    for part in order.to(x.device).tensor_split(folds):
        inside = torch.ones(n, dtype=torch.bool, device=x.device)
        inside[part] = False
        mean = x[inside].mean(dim=0, keepdim=True)
        train, held = x[inside] - mean, x[~inside] - mean
        u, s, vt = torch.linalg.svd(train, full_matrices=False)
        made.append(Fold(train, held, u, s, held @ vt.T))
    return made


def _explained(
    a: list[Fold],
    b: list[Fold],
    *,
    folds: int,
    penalty: float | None,
    seed: int,
) -> float:
    """Return R² over all held-out parts."""
    left, total = 0.0, 0.0
    for x, y in zip(a, b, strict=True):
        loadings = x.u.T @ y.train
        chosen = _chosen(x.s, loadings, y.train) if penalty is None else penalty
        ridge = chosen * float(x.s.square().mean())
        shrunk = x.s / (x.s.square() + ridge) if ridge > 0 else torch.zeros_like(x.s)
        guess = (x.scores * shrunk) @ loadings
        left += float((y.held - guess).square().sum())
        total += float(y.held.square().sum())
    return 1 - left / total


def _chosen(s: torch.Tensor, loadings: torch.Tensor, y: torch.Tensor) -> float:
    """Return the penalty of least generalised cross-validation error."""
    n = len(y)
    power = loadings.square().sum(dim=1)
    outside = float(y.square().sum() - power.sum())
    best, least = float(GRID[-1]), float("inf")
    for penalty in GRID[::-1]:
        kept = s.square() / (s.square() + penalty * s.square().mean())
        error = float(((1 - kept).square() * power).sum()) + max(outside, 0.0)
        free = n - 1 - float(kept.sum())
        score = error / free**2 if free > 0 else float("inf")
        if score < least:
            best, least = float(penalty), score
    return best


_RIDGE = ByParts(_folds, _explained, symmetric=False)

register(
    "linear_predictivity",
    linear_predictivity,
    larger_is_more_similar=True,
    symmetric=False,
    bounds=(-float("inf"), 1.0),
    invariances=("permutation", "orthogonal", "isotropic_scaling", "translation"),
    default_precision="float64",
    pairs=_RIDGE,
)
