"""The same minimum in better coordinates: centred, rotated where n < d, scaled.

None of it changes the objective. The free intercept absorbs the centring; with a
quadratic penalty the weights lie in the span of the examples, so d > n features turn
into n; and the penalty follows the scaling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from repsim.probes.solver import Problem


@dataclass(frozen=True)
class Conditioned:
    """A problem in its own coordinates, and the way back to the features."""

    problem: Problem
    mean: Tensor
    scale: Tensor
    basis: Tensor | None

    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (K, d) and intercepts (K,) for the raw features."""
        weights = theta[:, :-1].double() / self.scale
        if self.basis is not None:
            weights = weights @ self.basis.double().T
        return weights, theta[:, -1].double() - weights @ self.mean.double()

    def theta(self, logits: Tensor) -> Tensor:
        """Return the coefficients whose logits come near the given ones (K, n)."""
        problem = self.problem
        offset = (logits * problem.shares).sum(1, keepdim=True)
        if not problem.intercept:
            offset = torch.zeros_like(offset)
        pull = ((logits - offset) * problem.shares) @ problem.features
        slope = torch.cat([pull * problem.curvature, torch.zeros_like(offset)], 1)
        return problem.precondition(slope) + torch.nn.functional.pad(
            offset - offset.mean() * (len(offset) > 1), (pull.shape[1], 0)
        )


def condition(
    x: Tensor, targets: Tensor, shares: Tensor, strength: float, intercept: bool
) -> Conditioned:
    """Return the problem in coordinates in which it is round.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        Features; left as they are.
    targets : Tensor, shape (K, n)
        One-hot columns, or the one row of a two-class problem.
    shares : Tensor, shape (n,)
        Weights of the examples, which sum to 1.
    strength : float
        Weight of half the squared coefficients of the raw features.
    intercept : bool
        Whether the intercept is free; without one nothing is centred.

    Returns
    -------
    Conditioned
        The problem and the way back.
    """
    mean = shares @ x if intercept else torch.zeros_like(x[0])
    z = x - mean
    basis = None
    if z.shape[1] > z.shape[0]:
        basis, triangle = torch.linalg.qr(z.T)
        z = triangle.T.contiguous()
    peak = z.abs().amax(0)
    peak[peak == 0] = 1
    z = z / peak
    spread = (shares @ z.square()).sqrt()
    spread[spread == 0] = 1
    z.div_(spread)
    scale = peak.double() * spread.double()
    penalty = strength / scale.square()
    curvature = _curvature(targets, shares)
    factor = _factor(z, shares, penalty, curvature)
    problem = Problem(
        features=z,
        targets=targets,
        shares=shares,
        penalty=penalty.to(z.dtype),
        factor=factor,
        curvature=curvature,
        intercept=intercept,
    )
    return Conditioned(problem, mean, scale, basis)


def _curvature(targets: Tensor, shares: Tensor) -> float:
    """Return the loss's mean second derivative at the classes' frequencies."""
    chances = targets @ shares
    return float((chances * (1 - chances)).mean())


def _factor(z: Tensor, shares: Tensor, penalty: Tensor, curvature: float) -> Tensor:
    """Return the Cholesky factor of curvature × covariance + penalty.

    Rounding can leave a collinear covariance indefinite, so the diagonal (which is
    one) grows until the factor exists: the metric steers, it moves no minimum.
    """
    root = shares.sqrt()[:, None]
    gram = ((z * root).T @ (z * root)).double().mul_(curvature)
    diagonal = gram.diagonal()
    diagonal += penalty
    jitter = torch.finfo(z.dtype).eps * curvature
    while True:
        diagonal += jitter
        factor, info = torch.linalg.cholesky_ex(gram)
        if not int(info):
            found: Tensor = factor.to(z.dtype)
            return found
        jitter *= 10
