"""Linear predictivity: how much of one representation can be read off another."""

from dataclasses import dataclass

import numpy as np
import torch

from repsim.measures.catalogue import register
from repsim.measures.matrices import Matrix, Nan
from repsim.measures.parts import ByParts, centred

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
    nan: Nan = "raise",
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
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

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
    return _RIDGE.one(x, y, least=4, folds=folds, penalty=penalty, seed=seed, nan=nan)


def neural_predictivity(
    x: Matrix,
    y: Matrix,
    *,
    folds: int = 10,
    penalty: float | None = None,
    seed: int = 0,
    nan: Nan = "raise",
) -> float:
    r"""Median over units of the correlation of held-out ridge predictions.

    .. math:: \mathrm{median}_j \frac{1}{F} \sum_{f=1}^{F} r(\hat y_{fj}, y_{fj})

    with Pearson's r of unit j over the examples of fold f, predicted from `x` by the
    other folds: Brain-Score's neural predictivity, by ridge regression and before its
    division by a noise ceiling.

    Parameters
    ----------
    x : array, tensor or DataArray, shape (examples, units)
        What predicts.
    y : array, tensor or DataArray, shape (examples, units)
        What is predicted, each unit by itself.
    folds : int
        Parts of the cross-validation, 2 ≤ folds ≤ n / 2.
    penalty : float or None
        Ridge penalty in mean squared singular values of the training part; None
        chooses for each unit in each training part by generalised cross-validation.
    seed : int
        Of the shuffling of examples into folds.
    nan : {"raise", "omit"}
        Refuse NaN, or leave out the examples that hold it on either side.

    Returns
    -------
    float
        In [−1, 1]; NaN with a warning where a side is constant.

    Raises
    ------
    ValueError
        If `folds` or `penalty` are out of range, the shapes do not match or a value
        is not finite.

    Notes
    -----
    Not symmetric. Invariant to reordering, uniform scaling and shifts of either side
    and to rotation of `x`. A prediction that does not vary correlates 0; a unit that
    does not vary in any held-out part is left out. A unit of large variance counts no
    more than another, unlike in `linear_predictivity`.

    References
    ----------
    Schrimpf et al. (2018), Brain-Score, doi:10.1101/407007.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 5))
    >>> round(neural_predictivity(x, x @ rng.normal(size=(5, 3))), 4)
    1.0
    """
    return _NEURAL.one(x, y, least=4, folds=folds, penalty=penalty, seed=seed, nan=nan)


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
    x = centred(x)
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


def _median_correlation(
    a: list[Fold], b: list[Fold], *, folds: int, penalty: float | None, seed: int
) -> float:
    """Return the median over units of the mean correlation over folds."""
    by_fold = []
    for x, y in zip(a, b, strict=True):
        loadings = x.u.T @ y.train
        mean = x.s.square().mean()
        if penalty is None:
            ridge = _chosen_by_unit(x.s, loadings, y.train) * mean
        else:
            ridge = torch.full_like(loadings[0], penalty) * mean
        power = x.s.square()[:, None] + ridge
        shrunk = torch.where(power > 0, x.s[:, None] / power, 0)
        # What a prediction of nothing is by rounding: of the loadings, then shrunk.
        nothing = (x.scores.square().sum(dim=0) @ shrunk.square()).sqrt()
        nothing *= torch.linalg.vector_norm(y.train, dim=0)
        nothing *= 64 * torch.finfo(x.s.dtype).eps
        by_fold.append(_correlation(x.scores @ (shrunk * loadings), y.held, nothing))
    r = torch.stack(by_fold).nanmean(dim=0)
    return float(np.nanmedian(r.cpu().numpy()))


def _correlation(
    guess: torch.Tensor, truth: torch.Tensor, nothing: torch.Tensor
) -> torch.Tensor:
    """Return Pearson's r of each unit, NaN where the truth does not vary."""
    guess, truth = centred(guess), centred(truth)
    a, b = (torch.linalg.vector_norm(side, dim=0) for side in (guess, truth))
    r = (guess * truth).sum(dim=0) / torch.where(a > nothing, a * b, torch.inf)
    return torch.where(truth.abs().amax(dim=0) > 0, r, torch.nan)


def _chosen_by_unit(
    s: torch.Tensor, loadings: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Return the penalty of least generalised cross-validation error of each unit."""
    power = loadings.square()
    outside = (y.square().sum(dim=0) - power.sum(dim=0)).clamp(min=0)
    best = torch.full_like(outside, float(GRID[-1]))
    least = torch.full_like(outside, torch.inf)
    for penalty in GRID[::-1]:
        kept = s.square() / (s.square() + penalty * s.square().mean())
        free = len(y) - 1 - float(kept.sum())
        if free <= 0:
            continue
        score = ((1 - kept).square() @ power + outside) / free**2
        best = torch.where(score < least, float(penalty), best)
        least = torch.minimum(score, least)
    return best


_NEURAL = ByParts(_folds, _median_correlation, symmetric=False)
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
register(
    "neural_predictivity",
    neural_predictivity,
    larger_is_more_similar=True,
    symmetric=False,
    bounds=(-1.0, 1.0),
    invariances=("permutation", "isotropic_scaling", "translation"),
    default_precision="float64",
    pairs=_NEURAL,
)
