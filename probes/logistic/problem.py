"""The objective of a logistic regression: values, gradients and a metric."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from repsim.probes.logistic.metric import Metric, renewed


@dataclass(frozen=True)
class Problem:
    r"""The mean loss of linear logits plus a diagonal quadratic penalty.

    .. math::
        F(W, b) = \sum_i s_i\, \ell(W x_i + b, y_i)
                  + \tfrac12 \sum_{kj} \lambda_j W_{kj}^2
    """

    features: Tensor
    codes: Tensor
    rows: int
    shares: Tensor
    penalty: Tensor
    intercept: bool
    metric: Metric

    def logits(self, theta: Tensor) -> Tensor:
        """Return the logits (K, n), in the features' precision."""
        theta = theta.to(self.features.dtype)
        return torch.mm(theta[:, :-1], self.features.T).add_(theta[:, -1:])

    def loss(self, logits: Tensor) -> tuple[float, Tensor]:
        """Return the mean loss and the residuals p − y (K, n), weighted."""
        if self.rows == 1:
            truth = self.codes.to(logits.dtype)
            losses = torch.nn.functional.softplus(logits) - truth * logits
            residual = torch.sigmoid(logits).sub_(truth)
        else:
            residual = torch.softmax(logits, 0)
            chosen = residual.gather(0, self.codes)
            losses = chosen.log().neg_()
            if not bool(chosen.min() > 0):
                # The chance underflowed; its logarithm need not.
                losses = logits.logsumexp(0) - logits.gather(0, self.codes)
            residual.scatter_(0, self.codes, chosen.sub_(1))
        value = float(torch.dot(losses[0].double(), self.shares))
        return value, residual.mul_(self.shares.to(logits.dtype))

    def gradient(self, residual: Tensor, theta: Tensor) -> Tensor:
        """Return the gradient (K, d + 1)."""
        slope = torch.empty_like(theta)
        slope[:, :-1] = residual @ self.features
        slope[:, :-1].addcmul_(theta[:, :-1], self.penalty)
        slope[:, -1] = residual.sum(1) if self.intercept else 0
        return slope

    def ridge(self, theta: Tensor, other: Tensor) -> float:
        """Return the penalty's inner product of two sets of coefficients."""
        return float((theta[:, :-1] * self.penalty * other[:, :-1]).sum())

    def precondition(self, slope: Tensor) -> Tensor:
        """Return the inverse metric times a gradient (K, d + 1)."""
        return self.metric.inverse(slope)

    def refreshed(self, residual: Tensor) -> "Problem":
        """Return the problem with the metric of the curvature found here."""
        probabilities = residual / self.shares.to(residual.dtype)
        if self.rows == 1:
            probabilities = probabilities + self.codes
        else:
            ones = torch.ones_like(self.codes, dtype=probabilities.dtype)
            probabilities = probabilities.scatter_add(0, self.codes, ones)
        return replace(
            self,
            metric=renewed(
                self.metric,
                self.features,
                probabilities.clamp_(0, 1),
                self.shares,
                self.penalty,
                self.intercept,
            ),
        )
