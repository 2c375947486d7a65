"""Canonical correlations against scikit-learn, Google's code and closed forms."""

import numpy as np
import pytest
from scipy import linalg
from sklearn.cross_decomposition import CCA

from repsim import measures
from repsim.measures import cca, pwcca, svcca


def related(rng: np.random.Generator, n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, 5))
    return x, x[:, :3] @ rng.normal(size=(3, 4)) + rng.normal(size=(n, 4))


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Canonical correlations by the generalised eigenvalue problem."""
    x, y = x - x.mean(0), y - y.mean(0)
    m = x.T @ y @ np.linalg.solve(y.T @ y, y.T @ x)
    found = linalg.eigh(m, x.T @ x, eigvals_only=True)[::-1]
    return np.sqrt(np.clip(found[: min(x.shape[1], y.shape[1])], 0, 1))


def google_pwcca(x: np.ndarray, y: np.ndarray) -> float:
    """google/svcca's compute_pwcca for full-rank input, (examples, units) here."""
    x, y = x - x.mean(0), y - y.mean(0)
    xx, yy = linalg.inv(linalg.sqrtm(x.T @ x)), linalg.inv(linalg.sqrtm(y.T @ y))
    u, s, _ = np.linalg.svd(xx @ (x.T @ y) @ yy, full_matrices=False)
    variates = x @ xx @ u
    weights = np.abs(variates.T @ x).sum(1)
    return float((weights / weights.sum() * s).sum())


def test_cca_is_the_mean_canonical_correlation(rng: np.random.Generator) -> None:
    x, y = related(rng)
    expected = correlations(x, y).mean()
    assert cca(x, y) == pytest.approx(expected, abs=1e-10)
    assert cca(y, x) == pytest.approx(expected, abs=1e-10)


def test_cca_agrees_with_scikit_learn(rng: np.random.Generator) -> None:
    x, y = related(rng)
    a, b = CCA(n_components=4, max_iter=5000, tol=1e-12).fit_transform(x, y)
    found = [abs(np.corrcoef(a[:, i], b[:, i])[0, 1]) for i in range(4)]
    assert cca(x, y) == pytest.approx(np.mean(found), abs=1e-5)


def test_pwcca_is_that_of_google(rng: np.random.Generator) -> None:
    x, y = related(rng)
    for a, b in ((x, y), (y, x)):
        assert pwcca(a, b) == pytest.approx(google_pwcca(a, b), abs=1e-10)


def test_svcca_keeps_the_share_of_squared_singular_values(
    rng: np.random.Generator,
) -> None:
    x, y = related(rng)
    x = x * [10, 5, 1, 0.1, 0.01]

    def leading(x: np.ndarray, share: float) -> np.ndarray:
        x = x - x.mean(0)
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        kept = np.searchsorted(np.cumsum(s**2) / (s**2).sum(), share) + 1
        return np.asarray(u[:, :kept] * s[:kept])

    for share in (0.5, 0.9, 0.99):
        expected = correlations(leading(x, share), leading(y, share)).mean()
        assert svcca(x, y, variance=share) == pytest.approx(expected, abs=1e-9)
    assert svcca(x, y, variance=1.0) == pytest.approx(cca(x, y), abs=1e-10)


def test_repeated_units_do_not_count(rng: np.random.Generator) -> None:
    x, y = related(rng)
    doubled = np.concatenate([x, x @ rng.normal(size=(5, 2))], axis=1)
    assert cca(doubled, y) == pytest.approx(cca(x, y), abs=1e-10)


def test_full_rank_is_refused_with_the_reason(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(10, 9)), rng.normal(size=(10, 2))
    for function in (cca, pwcca, lambda a, b: svcca(a, b, variance=1.0)):
        for a, b in ((x, y), (y, x), (rng.normal(size=(10, 30)), y)):
            with pytest.raises(ValueError, match="rank below n − 1 = 9 .*spans every"):
                function(a, b)


def test_ranks_that_add_up_are_warned_of(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(10, 6)), rng.normal(size=(10, 4))
    with pytest.warns(UserWarning, match="are 1 by counting"):
        value = cca(x, y)
    # Six and four directions of nine: one is common to both, whatever they are.
    assert value > 0.25
    assert correlations(x, y)[0] == pytest.approx(1)


@pytest.mark.parametrize("variance", [0.0, -1.0, 1.1, float("nan")])
def test_shares_that_are_refused(rng: np.random.Generator, variance: float) -> None:
    x, y = related(rng)
    with pytest.raises(ValueError, match=r"`variance` to lie in \(0, 1\]"):
        svcca(x, y, variance=variance)
    with pytest.raises(ValueError, match="`variance`"):
        measures.get("svcca").all_pairs([x, y], variance=variance)
