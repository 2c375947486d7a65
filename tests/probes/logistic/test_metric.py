"""The metric of a descent against Hessians written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from repsim.probes import LinearProbe
from repsim.probes.logistic.conditioning import condition
from repsim.probes.logistic.metric import SPECTRAL, _drawn, metric, renewed, whitened
from repsim.probes.logistic.problem import Problem
from repsim.probes.logistic.solver import minimise, place


def drawn(n: int, d: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(n, d)) * np.logspace(-1, 1, d))
    return x, torch.from_numpy(rng.integers(k, size=n))


def test_at_the_start_it_is_the_covariance_with_the_penalty() -> None:
    x, _ = drawn(300, 6, 3)
    shares, penalty = torch.full((300,), 1 / 300.0).double(), torch.rand(6).double()
    form = 0.2 * x.T @ x / 300 + torch.diag(penalty)
    slope = torch.randn(3, 7).double()
    expected = torch.linalg.solve(form, slope[:, :-1].T).T
    factored = whitened(0.2 * x.T @ x / 300, penalty, 0.2)
    for found in (metric(x, shares, penalty, 0.2), factored):
        out = found.inverse(slope)
        torch.testing.assert_close(out[:, :-1], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(out[:, -1], slope[:, -1] / 0.2)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("k", [2, 4])
def test_renewed_it_is_the_hessian_of_all_classes(k: int, intercept: bool) -> None:
    # Few enough examples that none is left out of the sample.
    n = 2 * (1 if k == 2 else k) * 6
    x, codes = drawn(n, 5, k)
    shares = torch.rand(n).double()
    shares /= shares.sum()
    problem = condition(x, codes, k, shares, 0.01, intercept).problem
    theta = torch.randn(problem.rows, 6).double()
    theta[:, -1] *= intercept
    here = place(problem, theta)

    def value(flat: torch.Tensor) -> torch.Tensor:
        t = flat.view(theta.shape)
        logits = t[:, :-1] @ problem.features.T + t[:, -1:] * intercept
        if k == 2:
            logits = torch.cat([torch.zeros_like(logits), logits])
        chosen = logits.gather(0, problem.codes)[0]
        losses = logits.logsumexp(0) - chosen
        return losses @ shares + 0.5 * (t[:, :-1].square() * problem.penalty).sum()

    full = torch.autograd.functional.hessian(value, theta.flatten())
    slope = torch.randn_like(theta)
    # As a loss's gradient does, it sums to zero over classes: what they share has
    # no curvature but the penalty's, which the metric takes a little larger.
    slope -= slope.mean(0) if k > 2 else 0
    slope[:, -1] *= intercept
    found = problem.refreshed(here.residual).precondition(slope)
    back = (full @ found.flatten()).view(slope.shape)
    torch.testing.assert_close(back, slope, rtol=0.02, atol=0.02)


def test_a_sample_stands_for_all_examples() -> None:
    rng = np.random.default_rng(0)
    n, size = 20_000, 2_000
    weight = torch.from_numpy(rng.lognormal(sigma=2.0, size=n))
    x = torch.from_numpy(rng.normal(size=(n, 5)))
    chosen, standing = _drawn(weight, size)
    assert 0.8 * size < len(chosen) < 1.1 * size
    # Those of great weight are certain to be drawn and stand for themselves alone.
    heavy = torch.topk(weight, 50).indices
    assert torch.isin(heavy, chosen).all()
    assert (standing[torch.isin(chosen, heavy)] == 1).all()
    full = (weight[:, None] * x).T @ x
    sample = ((weight[chosen] * standing)[:, None] * x[chosen]).T @ x[chosen]
    assert (sample - full).norm() / full.norm() < 0.05
    assert abs(float(standing.sum()) / n - 1) < 0.2
    everyone, ones = _drawn(weight[:100], 100)
    assert everyone.tolist() == list(range(100)) and (ones == 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_sampled_hessian_is_nearer_the_curvature_than_the_start(seed: int) -> None:
    n, d, k = 3_000, 10, 4
    x, codes = drawn(n, d, k)
    shares = torch.full((n,), 1 / n).double()
    problem = condition(x, codes, k, shares, 1e-4, True).problem
    draw = torch.Generator().manual_seed(seed)
    here = place(problem, torch.randn(k, d + 1, generator=draw).double())
    chances = torch.softmax(here.logits, 0)
    z = torch.cat([problem.features, torch.ones(n, 1).double()], 1)
    spread = torch.diag_embed(chances.T) - chances.T[:, :, None] * chances.T[:, None]
    full = torch.einsum("nab,ni,nj->aibj", spread / n, z, z).reshape(k * (d + 1), -1)
    full += torch.diag(torch.cat([problem.penalty, torch.zeros(1)]).repeat(k))

    def roundness(metric_of: Problem) -> float:
        """Return the condition number, apart from what all classes share."""
        eye = torch.eye(len(full)).double()
        inverse = [metric_of.precondition(e.view(k, -1)).flatten() for e in eye]
        values = torch.linalg.eigvals(torch.stack(inverse, 1) @ full).real
        values = values.sort().values[d + 1 :]
        return float(values[-1] / values[0])

    renewed_here = problem.refreshed(here.residual)
    assert len(_drawn(chances[0], 2 * k * (d + 1))[0]) < n / 10
    assert roundness(renewed_here) < 0.5 * roundness(problem)


def test_many_features_or_classes_take_the_mean_over_classes() -> None:
    x, codes = drawn(60, 4, 3)
    shares = torch.full((60,), 1 / 60.0).double()
    penalty = torch.full((4,), 0.1).double()
    chances = torch.full((500, 60), 1 / 500.0).double()
    found = renewed(metric(x, shares, penalty, 0.1), x, chances, shares, penalty, True)
    assert found.block is None
    wide = torch.randn(30, SPECTRAL + 1)
    even, ridge = torch.full((30,), 1 / 30.0), torch.ones(SPECTRAL + 1).double()
    assert metric(wide, even.double(), ridge, 0.1).variances is None


@pytest.mark.parametrize("wrong", ["float32", "all", "raises"])
def test_a_routine_that_fails_is_no_harm(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 8)).astype("f4"), rng.integers(3, size=300)
    x[:, 5:] = 0.5  # units that never change
    plain = LinearProbe().fit(x, y)
    routine = torch.linalg.eigh

    def failing(form: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if wrong == "raises":
            raise torch.linalg.LinAlgError
        values, vectors = routine(form)
        if wrong == "all" or form.dtype == torch.float32:
            return values * np.nan, vectors * np.nan
        return values, vectors

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    found = LinearProbe().fit(x, y)
    assert found.objective_ == pytest.approx(plain.objective_, rel=1e-5)


def test_a_metric_that_is_no_number_stops_the_descent() -> None:
    x, codes = drawn(200, 5, 3)
    shares = torch.full((200,), 1 / 200.0).double()
    way = condition(x, codes, 3, shares, 0.01, True)
    factor = way.problem.metric.factor * np.nan
    spoilt = replace(way.problem, metric=replace(way.problem.metric, factor=factor))
    start = way.start()
    found = minimise(spoilt, start, tol=1e-5, max_iter=50)
    assert not found.converged and found.objective == start.value
