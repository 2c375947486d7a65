"""L-BFGS for penalised logistic regression, in the metric of the data.

Everything is class-major: logits are (K, n), coefficients (K, d + 1) with the intercept
in the last column. With a handful of classes a product of shape (K, d) × (d, n) is
three to six times faster than its transpose, and sums over classes run along
contiguous memory.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

MEMORY = 15
TRIALS = 30


@dataclass(frozen=True)
class Problem:
    r"""The mean loss of linear logits plus a diagonal quadratic penalty.

    .. math::
        F(W, b) = \sum_i s_i\, \ell(W x_i + b, y_i)
                  + \tfrac12 \sum_{kj} \lambda_j W_{kj}^2

    Parameters
    ----------
    features : Tensor, shape (n, d)
        Centred features.
    targets : Tensor, shape (K, n)
        One-hot columns, or 0 and 1 in the one row of a two-class problem.
    shares : Tensor, shape (n,)
        Weights of the examples, which sum to 1.
    penalty : Tensor, shape (d,)
        Positive weights of the squared coefficients.
    factor : Tensor, shape (d, d)
        Lower Cholesky factor of the metric.
    curvature : float
        The metric's value for an intercept.
    intercept : bool
        Whether b is free; 0 otherwise.
    """

    features: Tensor
    targets: Tensor
    shares: Tensor
    penalty: Tensor
    factor: Tensor
    curvature: float
    intercept: bool

    def logits(self, theta: Tensor) -> Tensor:
        """Return the logits (K, n)."""
        return torch.addmm(theta[:, -1:], theta[:, :-1], self.features.T)

    def loss(self, logits: Tensor) -> tuple[float, Tensor]:
        """Return the mean loss and the residuals p − y (K, n), weighted."""
        if len(logits) == 1:
            losses = torch.nn.functional.softplus(logits) - self.targets * logits
            losses, chances = losses[0], torch.sigmoid(logits)
        else:
            shifted = logits - logits.amax(0)
            chosen = (shifted * self.targets).sum(0)
            chances = shifted.exp_()
            total = chances.sum(0)
            losses = total.log() - chosen
            chances.div_(total)
        value = float(torch.dot(losses.double(), self.shares.double()))
        return value, chances.sub_(self.targets).mul_(self.shares)

    def gradient(self, residual: Tensor, theta: Tensor) -> Tensor:
        """Return the gradient (K, d + 1)."""
        slope = torch.empty_like(theta)
        torch.addcmul(
            residual @ self.features, theta[:, :-1], self.penalty, out=slope[:, :-1]
        )
        slope[:, -1] = residual.sum(1) if self.intercept else 0
        return slope

    def value(self, theta: Tensor) -> float:
        """Return the objective."""
        return self.loss(self.logits(theta))[0] + 0.5 * self.ridge(theta, theta)

    def precondition(self, slope: Tensor) -> Tensor:
        """Return the inverse metric times a gradient."""
        out = torch.empty_like(slope)
        out[:, :-1] = torch.cholesky_solve(slope[:, :-1].T, self.factor).T
        out[:, -1] = slope[:, -1] / self.curvature
        return out

    def ridge(self, theta: Tensor, other: Tensor) -> float:
        """Return the penalty's inner product of two sets of coefficients."""
        return float((theta[:, :-1] * self.penalty * other[:, :-1]).sum())


class Solution(NamedTuple):
    """What `minimise` found, in the coordinates of its problem."""

    theta: Tensor
    logits: Tensor
    objective: float
    excess: float
    n_iter: int
    converged: bool


class _Memory:
    """Curvature pairs, and the direction they and the metric give."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor, float]] = []
        self.scale = 1.0

    def add(self, problem: Problem, move: Tensor, change: Tensor) -> None:
        """Keep a pair, and scale the metric to the curvature it shows."""
        product = float(torch.dot(move.view(-1), change.view(-1)))
        if product <= 0:
            return
        size = float((change * problem.precondition(change)).sum())
        self.scale = product / size
        self.pairs = [*self.pairs[1 - MEMORY :], (move, change, 1 / product)]

    def direction(self, problem: Problem, slope: Tensor) -> Tensor:
        """Return minus the inverse Hessian's estimate times the gradient."""
        q = slope.neg()
        alphas = []
        for move, change, inverse in reversed(self.pairs):
            alpha = torch.dot(move.view(-1), q.view(-1)) * inverse
            q.sub_(change * alpha)
            alphas.append(alpha)
        q = problem.precondition(q).mul_(self.scale)
        for (move, change, inverse), alpha in zip(
            self.pairs, reversed(alphas), strict=True
        ):
            beta = torch.dot(change.view(-1), q.view(-1)) * inverse
            q.add_(move * (alpha - beta))
        return q


def minimise(problem: Problem, start: Tensor, *, tol: float, max_iter: int) -> Solution:
    """Minimise a problem's objective from a start.

    Parameters
    ----------
    problem : Problem
        What to minimise.
    start : Tensor, shape (K, d + 1)
        Where to begin.
    tol : float
        Stop when the estimated excess of the objective over its minimum falls
        below `tol` times the objective.
    max_iter : int
        Most iterations.

    Returns
    -------
    Solution
        With `converged` false where the iterations ran out, or where rounding
        stopped the descent before the tolerance.
    """
    theta, logits = start, problem.logits(start)
    value, residual = problem.loss(logits)
    value = value + 0.5 * problem.ridge(theta, theta)
    slope = problem.gradient(residual, theta)
    memory, excess, done = _Memory(), float("inf"), 0
    for done in range(max_iter):
        step = memory.direction(problem, slope)
        decrease = -float(torch.dot(step.view(-1), slope.view(-1)))
        excess = 0.5 * decrease
        if excess <= tol * value and (done or excess == 0):
            return Solution(theta, logits, value, excess, done, True)
        found = _search(problem, theta, logits, step, value, decrease)
        if found is None:
            return Solution(theta, logits, value, excess, done, False)
        length, value, logits, residual = found
        move = step.mul_(length)
        theta = theta + move
        before, slope = slope, problem.gradient(residual, theta)
        memory.add(problem, move, slope - before)
    return Solution(theta, logits, value, excess, done + 1, False)


def _search(
    problem: Problem,
    theta: Tensor,
    logits: Tensor,
    step: Tensor,
    value: float,
    decrease: float,
) -> tuple[float, float, Tensor, Tensor] | None:
    """Return a length, the value there, its logits and residuals.

    The objective is convex, so its slope along the step brackets the minimum, which
    survives rounding where differences of values do not. Logits are linear along the
    step: a trial needs no product with the features.
    """
    change = problem.logits(step)
    base = 0.5 * problem.ridge(theta, theta)
    linear, square = problem.ridge(theta, step), problem.ridge(step, step)
    low, low_slope, high, high_slope = 0.0, -decrease, float("inf"), 0.0
    length = 1.0
    for _ in range(TRIALS):
        there = logits + length * change
        new, residual = problem.loss(there)
        new += base + length * linear + 0.5 * length**2 * square
        slope = float(torch.dot(residual.view(-1), change.view(-1)))
        slope += linear + length * square
        rises = new > value + 1e-6 * abs(value)
        if slope < -0.9 * decrease and not rises:
            low, low_slope = length, slope
        elif slope > 0.5 * decrease or rises:
            high, high_slope = length, max(slope, 0.0)
        else:
            return length, new, there, residual
        length = _between(low, low_slope, high, high_slope)
    return None


def _between(low: float, low_slope: float, high: float, high_slope: float) -> float:
    """Return the next length to try: the secant's zero, kept inside the bracket."""
    if high == float("inf"):
        return 4 * low
    guess = low - low_slope * (high - low) / (high_slope - low_slope)
    margin = 0.1 * (high - low)
    return min(max(guess, low + margin), high - margin)
