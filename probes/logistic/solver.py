"""L-BFGS for penalised logistic regression, in the metric of the data.

Everything is class-major: logits are (K, n), coefficients (K, d + 1) with the intercept
in the last column. With a handful of classes a product of shape (K, d) × (d, n) is
three to six times faster than its transpose, and sums over classes run along
contiguous memory. Coefficients, gradients and the memory are double precision whatever
the features are: they are small, and rounding there would end the descent early.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from repsim.probes.logistic.lbfgs import LBFGSMemory
from repsim.probes.logistic.problem import Problem

TRIALS = 30
REFRESH = (8, 20, 40, 80, 160, 320, 640)
WINDOW = 6
ROUNDING = 1e-12


class Solution(NamedTuple):
    """What `minimise` found, in the coordinates of its problem."""

    theta: Tensor
    logits: Tensor
    objective: float
    excess: float
    n_iter: int
    converged: bool


class Place(NamedTuple):
    """A point of the descent: coefficients, logits, objective and residuals."""

    theta: Tensor
    logits: Tensor
    value: float
    residual: Tensor


def place(problem: Problem, theta: Tensor, logits: Tensor | None = None) -> Place:
    """Return the point of given coefficients."""
    if logits is None:
        logits = problem.logits(theta)
    value, residual = problem.loss(logits)
    return Place(theta, logits, value + 0.5 * problem.ridge(theta, theta), residual)


def minimise(problem: Problem, start: Place, *, tol: float, max_iter: int) -> Solution:
    """Minimise a problem's objective from a start."""
    here, memory = start, LBFGSMemory()
    slope = problem.gradient(here.residual, here.theta)
    steep = problem.precondition(slope)
    gains: list[float] = []
    for done in range(max_iter):
        if done in REFRESH:
            problem = problem.refreshed(here.residual)
            memory.change_metric(problem.precondition)
            steep = problem.precondition(slope)
        step = memory.direction(slope, steep)
        decrease = -float((step * slope).sum())
        if not decrease > 0:
            memory, step = LBFGSMemory(), steep.neg()
            decrease = -float((step * slope).sum())
        if not math.isfinite(decrease):
            return Solution(here.theta, here.logits, here.value, math.inf, done, False)
        gains.append(0.5 * decrease)
        excess = _excess(gains, here.value)
        if done >= REFRESH[0]:
            # A Newton step would gain half of this, by the last Hessian seen, and the
            # tail of a logistic loss holds twice that: of exp(-z), g²/2h is a half. At
            # large C the memory's own gains are too small by factors.
            excess = max(excess, float((steep * slope).sum()))
        if decrease == 0 or (done and excess <= tol * here.value):
            return Solution(here.theta, here.logits, here.value, excess, done, True)
        point = _search(problem, here, step, decrease)
        if point is None:
            return Solution(here.theta, here.logits, here.value, excess, done, False)
        move = point.theta - here.theta
        here = point
        before, uphill = slope, steep
        slope = problem.gradient(here.residual, here.theta)
        steep = problem.precondition(slope)
        memory.add(move, slope - before, steep - uphill)
    return Solution(here.theta, here.logits, here.value, excess, max_iter, False)


def _excess(gains: list[float], value: float) -> float:
    """Return the estimate of what remains to be gained of an objective's value.

    The gain the next step promises is all that remains where convergence is fast.
    Where it is slow the gains of the last steps, taken as a geometric series, say more.
    """
    window = min(WINDOW, len(gains) // 2)
    if not window:
        return float("inf")
    late, early = sum(gains[-window:]), sum(gains[-2 * window : -window])
    if late >= early:
        # Gains that grow are no convergence, unless they are rounding.
        return late if late <= ROUNDING * value else float("inf")
    return max(gains[-1], late * late / (early - late))


def _search(
    problem: Problem, here: Place, step: Tensor, decrease: float
) -> Place | None:
    """Return a point along the step, or None where rounding hides every descent.

    The objective is convex, so its slope along the step brackets the minimum, which
    survives rounding where differences of values do not. Logits are linear along the
    step: a trial needs no product with the features.
    """
    change = problem.logits(step)
    base = 0.5 * problem.ridge(here.theta, here.theta)
    linear, square = problem.ridge(here.theta, step), problem.ridge(step, step)
    low, low_slope, high, high_slope = 0.0, -decrease, float("inf"), 0.0
    length = 1.0
    for _ in range(TRIALS):
        logits = torch.add(here.logits, change, alpha=length)
        value, residual = problem.loss(logits)
        value += base + length * linear + 0.5 * length**2 * square
        slope = float(torch.dot(residual.view(-1), change.view(-1)))
        slope += linear + length * square
        # What is no number has gone too far.
        rises = not value <= here.value + 1e-6 * abs(here.value)
        slope = slope if math.isfinite(slope) else decrease
        if slope < -0.9 * decrease and not rises:
            low, low_slope = length, slope
        elif slope > 0.5 * decrease or rises:
            high, high_slope = length, max(slope, 0.0)
        else:
            return Place(here.theta + length * step, logits, value, residual)
        length = _between(low, low_slope, high, high_slope)
    return None


def _between(low: float, low_slope: float, high: float, high_slope: float) -> float:
    """Return the next length to try: the secant's zero, kept inside the bracket."""
    if high == float("inf"):
        return 4 * low
    guess = low - low_slope * (high - low) / (high_slope - low_slope)
    margin = 0.1 * (high - low)
    return min(max(guess, low + margin), high - margin)
