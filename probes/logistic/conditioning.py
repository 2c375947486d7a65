"""The same minimum in better coordinates: centred, rotated where n < d, scaled.

None of it changes the objective. The free intercept absorbs the centring; with a
quadratic penalty the weights lie in the span of the examples, so d > n features turn
into n; and the penalty follows the scaling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from repsim.probes.logistic.metric import metric
from repsim.probes.logistic.problem import Problem
from repsim.probes.logistic.solver import Place, place

ROWS = 1024


@dataclass(frozen=True)
class Conditioned:
    """A problem in its own coordinates, and the way back to the features."""

    problem: Problem
    mean: Tensor
    scale: Tensor
    basis: Tensor | None

    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (K, d) and intercepts (K,) for the raw features."""
        weights = theta[:, :-1] / self.scale
        if self.basis is not None:
            weights = weights @ self.basis.double().T
        offsets = theta[:, -1] - weights @ self.mean.double()
        if self.problem.rows > 1 and self.problem.intercept:
            # What all classes share changes nothing, but would cost digits.
            offsets = offsets - offsets.mean()
        return weights, offsets

    def start(self, logits: Tensor | None = None) -> Place:
        """Return the better of the classes' frequencies and given logits (K, n)."""
        constant = self._frequencies()
        flat = constant[:, -1:].to(self.problem.features.dtype)
        n = len(self.problem.features)
        cold = place(self.problem, constant, flat.expand(-1, n).contiguous())
        if logits is None:
            return cold
        warm = place(self.problem, self._towards(logits))
        return warm if warm.value < cold.value else cold

    def _frequencies(self) -> Tensor:
        problem = self.problem
        width = problem.features.shape[1] + 1
        theta = problem.penalty.new_zeros(problem.rows, width)
        if problem.intercept:
            probabilities = _probabilities(problem.codes, problem.shares)
            odds = probabilities.log()
            theta[:, -1] = (
                odds[1] - odds[0] if problem.rows == 1 else odds - odds.mean()
            )
        return theta

    def _towards(self, logits: Tensor) -> Tensor:
        """Return the coefficients whose logits come near the given ones."""
        problem = self.problem
        goal = logits.to(problem.features.dtype)
        theta = self._frequencies()
        if problem.intercept:
            offset = goal.double() @ problem.shares
            theta[:, -1] = offset - (offset.mean() if problem.rows > 1 else 0)
            goal = goal - offset[:, None].to(goal.dtype)
        pull = (goal * problem.shares.to(goal.dtype)) @ problem.features
        slope = torch.zeros_like(theta)
        slope[:, :-1] = pull * problem.metric.curvature
        return theta + problem.precondition(slope)


def condition(
    x: Tensor,
    codes: Tensor,
    k: int,
    shares: Tensor,
    strength: float,
    intercept: bool,
) -> Conditioned:
    """Return the problem in coordinates in which it is round."""
    codes = codes[None]
    mean = shares.to(x.dtype) @ x if intercept else torch.zeros_like(x[0])
    z, basis = x - mean, None
    if z.shape[1] > z.shape[0]:
        basis, triangle = torch.linalg.qr(z.T)
        z = triangle.T.contiguous()
    scale = _spread(z, shares)
    z.div_(scale.to(z.dtype))
    penalty = strength / scale.square()
    probabilities = _probabilities(codes, shares)
    curvature = float((probabilities * (1 - probabilities)).mean())
    problem = Problem(
        features=z,
        codes=codes,
        rows=1 if k == 2 else k,
        shares=shares,
        penalty=penalty,
        intercept=intercept,
        metric=metric(z, shares, penalty, curvature),
    )
    return Conditioned(problem, mean, scale, basis)


def _spread(z: Tensor, shares: Tensor) -> Tensor:
    """Return the columns' root mean squares, 1 where a column is zero."""
    total = shares.new_zeros(z.shape[1])
    for start in range(0, len(z), ROWS):
        rows = slice(start, start + ROWS)
        total += shares[rows].to(z.dtype) @ z[rows].square()
    total[~(total > 0)] = 1
    return total.sqrt()


def _probabilities(codes: Tensor, shares: Tensor) -> Tensor:
    """Return the classes' weighted frequencies."""
    return torch.bincount(codes[0], weights=shares)
