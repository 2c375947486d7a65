"""The loss that a predictor implies: what its synthetic gradients are gradients of."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repsim.learning.diagnostics import curl
from repsim.learning.rules.predictors import LinearPredictor, Predictor


@dataclass(frozen=True)
class ReconstructedLoss:
    """A reconstructed loss and how far it can be trusted.

    Parameters
    ----------
    values : Tensor, shape (n,), float64
        The loss at each example, up to a constant for each label unless anchored.
    curl : float
        ‖J − Jᵀ‖/‖J + Jᵀ‖ of the predictor's derivative; 0 if there is such a loss.
    path_difference : float
        Root mean squared difference of the values along two paths, over the standard
        deviation of the values; 0 if there is such a loss.

    Examples
    --------
    >>> s = LinearPredictor(2, 0).double()
    >>> _ = s.A.data.copy_(torch.eye(2))
    >>> h = torch.ones(3, 2, dtype=torch.float64)
    >>> reconstructed_loss(s, h).curl
    0.0
    """

    values: Tensor
    curl: float
    path_difference: float


def reconstructed_loss(
    predictor: Predictor,
    h: Tensor,
    labels: Tensor | None = None,
    *,
    base: Tensor | None = None,
    true_loss: Tensor | None = None,
    points: int = 32,
) -> ReconstructedLoss:
    r"""Integrate a synthetic gradient to the loss that it implies.

    For a linear predictor in closed form, with the symmetric part of A,

    .. math::
        L_S(h, y) = \tfrac{1}{2} h A h^T + (yB + C) h^T + \text{const}(y);

    for others the line integral of S from `base` to h. The second path, whose
    difference is reported, leads over the mean of h.

    Parameters
    ----------
    predictor : Predictor
        One of `rule.predictors`.
    h : Tensor, shape (n, …)
        Where to evaluate: outputs of the predictor's block.
    labels : Tensor or None, shape (n, classes)
        Labels as vectors, where the predictor is conditioned.
    base : Tensor or None, shape (…)
        Where the loss is zero; None is the origin.
    true_loss : Tensor or None, shape (n,)
        Losses to anchor at: for each label the constant of least squares is added.
    points : int
        Points of the Gauss–Legendre rule on each straight piece.

    Returns
    -------
    ReconstructedLoss
        The values, the curl and the dependence on the path.

    Raises
    ------
    ValueError
        If `true_loss` does not have one number for each example, or `points` is not
        positive.

    References
    ----------
    Czarnecki et al. 2017, arXiv:1703.00522, section 4 and Figure 2.

    Examples
    --------
    >>> s = LinearPredictor(2, 0).double()
    >>> _ = s.A.data.copy_(torch.eye(2))
    >>> h = torch.tensor([[1.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    >>> reconstructed_loss(s, h).values.tolist()
    [1.0, 2.0]
    """
    if points < 1:
        msg = f"Expected `points` to be positive, but got {points}."
        raise ValueError(msg)
    start = torch.zeros_like(h[:1]) if base is None else base.to(h)[None]
    start = start.expand_as(h)
    straight = _integral(predictor, start, h, labels, points)
    via = h.mean(0, keepdim=True).expand_as(h)
    bent = _integral(predictor, start, via, labels, points)
    bent = bent + _integral(predictor, via, h, labels, points)
    values = straight
    if isinstance(predictor, LinearPredictor):
        values = _quadratic(predictor, h, labels) - _quadratic(predictor, start, labels)
    difference = (straight - bent).square().mean().sqrt()
    spread = straight.std(correction=0)
    some = slice(4)
    return ReconstructedLoss(
        values=_anchored(values, true_loss, labels),
        curl=curl(
            predictor.jacobians(h[some], None if labels is None else labels[some])
        ),
        path_difference=float(difference / spread) if spread else float("nan"),
    )


def _quadratic(s: LinearPredictor, h: Tensor, labels: Tensor | None) -> Tensor:
    """Return ½hAhᵀ + (yB + C)hᵀ for every example, tokens summed."""
    x = h.detach().double()
    linear = s.C.detach().double().expand_as(x)
    if s.B is not None and labels is not None:
        y = labels.double() @ s.B.detach().double()
        linear = linear + y.reshape(len(y), *[1] * (x.ndim - 2), -1)
    values = 0.5 * x * (x @ s.A.detach().double()) + linear * x
    return values.reshape(len(x), -1).sum(1)


def _integral(
    s: Predictor, start: Tensor, end: Tensor, labels: Tensor | None, points: int
) -> Tensor:
    """Return ∫ S · dh along straight lines, one number an example."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    way = (end - start).detach()
    total = torch.zeros(len(end), dtype=torch.float64, device=end.device)
    with torch.no_grad():
        for node, weight in zip(nodes, weights, strict=True):
            error = s(start + (node + 1) / 2 * way, labels)
            product = (error * way).double().reshape(len(end), -1).sum(1)
            total += weight / 2 * product
    return total


def _anchored(
    values: Tensor, true_loss: Tensor | None, labels: Tensor | None
) -> Tensor:
    """Add the constant that brings each label's values closest to the true losses."""
    if true_loss is None:
        return values
    if true_loss.shape != values.shape:
        msg = (
            f"Expected `true_loss` to have the shape ({len(values)},), one number an "
            f"example, but got {tuple(true_loss.shape)}."
        )
        raise ValueError(msg)
    gap = true_loss.detach().double() - values
    if labels is None:
        return values + gap.mean()
    _, kind = torch.unique(labels, dim=0, return_inverse=True)
    sums = torch.zeros(int(kind.max()) + 1, dtype=torch.float64, device=gap.device)
    means = sums.index_add(0, kind, gap) / torch.bincount(kind)
    return values + means[kind]
