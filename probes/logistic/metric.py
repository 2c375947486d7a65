"""The metric a descent is measured in: the curvature, cheaply, and kept up to date.

It steers and moves no minimum, so what makes it cheap is welcome: a sample of the
examples stands for all of them, and only the directions of most variance are coupled
across classes.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

SAMPLE = 2000
"""Examples that stand for all of them in a covariance, at least."""

COUPLED = 700
"""Most coefficients whose curvature is kept as one matrix, across classes."""

SPECTRAL = 1024
"""Most features of which the principal directions are worth their time."""

JITTER = 1e-5
"""Added to the Hessian in coordinates in which it began as the identity."""


@dataclass(frozen=True)
class Metric:
    r"""A positive form on coefficients, and its inverse.

    In the coordinates of `factor`, T, the penalised covariance
    :math:`c\,X^T S X + \Lambda` is the identity, c the curvature of the loss where the
    descent begins. That is the metric to begin with (Böhning's bound, with the
    classes' frequencies for the uniform ones). Renewed on the way, it is the loss's
    Hessian on the first coordinates, those of most variance, of all classes together,
    and a diagonal on the others.
    """

    factor: Tensor
    variances: Tensor | None
    curvature: float
    block: Tensor | None = None
    rest: Tensor | None = None

    def inverse(self, slope: Tensor) -> Tensor:
        """Return the inverse metric times a gradient (K, d + 1)."""
        out, slope = torch.empty_like(slope), slope.to(self.factor.dtype)
        along = slope[:, :-1] @ self.factor
        if self.block is None or self.rest is None:
            out[:, -1] = slope[:, -1] / self.curvature
        else:
            k, first = len(slope), len(self.factor) - self.rest.shape[1]
            free = len(self.block) // k - first
            goal = torch.cat([along[:, :first], slope[:, slope.shape[1] - free :]], 1)
            solution = torch.cholesky_solve(goal.view(-1, 1), self.block).view(k, -1)
            along = torch.cat([solution[:, :first], along[:, first:] / self.rest], 1)
            out[:, -1] = solution[:, -1] if free else 0
        out[:, :-1] = along @ self.factor.T
        return out


def renewed(
    metric: Metric,
    features: Tensor,
    probabilities: Tensor,
    shares: Tensor,
    penalty: Tensor,
    intercept: bool,
) -> Metric:
    """Return the metric of the curvature at given probabilities."""
    weights = probabilities * (1 - probabilities) * shares.to(probabilities.dtype)
    first = min(features.shape[1], COUPLED // len(probabilities) - 1)
    if metric.variances is not None and first > 0:
        coupled = _coupled(
            metric, features, probabilities, weights, shares, first, intercept
        )
        if coupled is not None:
            return coupled
    mean = weights.mean(0).double()
    curvature = max(float(mean.sum()), 1e-12)
    return whitened(_covariance(features, mean), penalty, curvature)


def _coupled(
    metric: Metric,
    features: Tensor,
    probabilities: Tensor,
    weights: Tensor,
    shares: Tensor,
    first: int,
    intercept: bool,
) -> Metric | None:
    """Return the metric with a block over the first coordinates, if it has a factor."""
    assert metric.variances is not None
    k = len(probabilities)
    chosen, standing = _drawn(weights.sum(0), 2 * k * (first + 1))
    root = (standing * shares[chosen]).sqrt().to(features.dtype)
    lead = metric.factor[:, :first].T @ features[chosen].T * root
    if intercept:
        lead = torch.cat([lead, root[None]])
    hessian = _hessian(lead, probabilities[:, chosen])
    # The penalty is what the covariance leaves of the identity.
    penalty = 1 - metric.curvature * metric.variances
    ridge = penalty.new_full((len(lead),), JITTER)
    ridge[:first] += penalty[:first]
    hessian.diagonal().add_(ridge.repeat(k))
    block, failed = torch.linalg.cholesky_ex(hessian)
    if int(failed):
        return None
    here = weights.sum(1, keepdim=True)
    rest = here * metric.variances[first:] + penalty[first:] + JITTER
    return replace(metric, block=block, rest=rest)


def _drawn(weight: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return examples drawn by their weight, and what each of them stands for."""
    n = len(weight)
    if n <= size:
        everything = torch.arange(n, device=weight.device)
        return everything, torch.ones(n, dtype=torch.float64, device=weight.device)
    share = weight.double().clamp(min=0) + 1e-30
    odds = (size * share / share.sum()).clamp(max=1)
    odds = (odds * (size / float(odds.sum()))).clamp(max=1)
    draw = torch.Generator().manual_seed(0)
    lots = torch.rand(n, generator=draw, dtype=odds.dtype).to(odds.device)
    chosen = torch.nonzero(lots < odds)[:, 0]
    return chosen, 1 / odds[chosen]


def _hessian(lead: Tensor, probabilities: Tensor) -> Tensor:
    """Return the loss's Hessian over (class, coordinate), weights in the features.

    Of what is symmetric half is computed; the other half is left at zero.
    """
    k, q = len(probabilities), len(lead)
    if k == 1:
        scaled = lead * (probabilities * (1 - probabilities)).clamp_(min=0).sqrt_()
        return scaled @ scaled.T
    each = (probabilities[:, None, :] * lead).view(k * q, -1)
    hessian = lead.new_zeros(k * q, k * q)
    for a in range(0, k * q, q):
        mine = each[a : a + q]
        part = mine @ each[a:].T
        part[:, :q] -= mine @ lead.T
        hessian[a:, a : a + q] = part.T.neg_()
    return hessian


def metric(
    features: Tensor, weight: Tensor, penalty: Tensor, curvature: float
) -> Metric:
    """Return the metric at the start of a descent."""
    covariance = _covariance(features, weight)
    if len(covariance) > SPECTRAL:
        return whitened(covariance * curvature, penalty, curvature)
    root = penalty.clamp(min=1e-30).rsqrt()
    ratio = covariance * root * root[:, None]
    # Single precision does where its rounding is small beside the penalty, 1 here.
    rounding = torch.finfo(torch.float32).eps * float(ratio.diagonal().sum())
    directions = _directions(ratio.to(features.dtype)) if rounding < 0.1 else None
    directions = _directions(ratio) if directions is None else directions
    if directions is None:
        return whitened(covariance * curvature, penalty, curvature)
    values, vectors = directions
    values, vectors = values.double().flip(0).clamp_(min=0), vectors.flip(1)
    total = curvature * values + 1
    factor = vectors * root[:, None] / total.sqrt()
    kept = factor.to(features.dtype), (values / total).to(features.dtype)
    return Metric(*kept, curvature)


def _directions(form: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return eigenvalues and eigenvectors, unless the routine fails.

    Of matrices with many zero rows, as units that are never active leave, MKL's
    single precision routine sometimes returns NaN.
    """
    try:
        values, vectors = torch.linalg.eigh(form)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return None
    fine = torch.isfinite(values).all() and torch.isfinite(vectors).all()
    return (values, vectors) if bool(fine) else None


def whitened(form: Tensor, penalty: Tensor, curvature: float) -> Metric:
    """Return the metric of a covariance plus a penalty, without its directions."""
    form = form.clone()
    diagonal = form.diagonal()
    jitter = torch.finfo(torch.float32).eps * float(diagonal.max())
    diagonal += penalty
    eye = torch.eye(len(form), dtype=form.dtype, device=form.device)
    for _ in range(10):
        diagonal += jitter
        lower, failed = torch.linalg.cholesky_ex(form)
        if not int(failed):
            inverse = torch.linalg.solve_triangular(lower, eye, upper=False)
            return Metric(inverse.T, None, curvature)
        jitter *= 10
    return Metric(eye, None, curvature)


def _covariance(features: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted covariance of a sample of the examples, double precision."""
    n, d = features.shape
    sample, total = max(4 * d, SAMPLE), float(weight.sum())
    if n > 2 * sample:
        draw = torch.Generator().manual_seed(0)
        chosen = torch.randperm(n, generator=draw)[:sample].to(features.device)
        features, weight = features[chosen], weight[chosen]
    if bool((weight == weight[0]).all()):
        gram = (features.T @ features).double() * float(weight[0])
    else:
        scaled = features * weight.sqrt().to(features.dtype)[:, None]
        gram = (scaled.T @ scaled).double()
    return gram * (total / max(float(weight.sum()), 1e-300))
