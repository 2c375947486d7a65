"""LinearProbe against scikit-learn's own objective and conventions."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from repsim.probes import LinearProbe, linear
from repsim.probes.logistic.solver import minimise

Data = tuple[np.ndarray, np.ndarray]


def objective(x: np.ndarray, y: np.ndarray, model: object, C: float) -> float:
    """Return LogisticRegression's objective, written out in float64."""
    coef = np.asarray(model.coef_, dtype=float)  # type: ignore[attr-defined]
    offset = np.asarray(model.intercept_, dtype=float)  # type: ignore[attr-defined]
    codes = np.unique(y, return_inverse=True)[1]
    scores = x.astype(float) @ coef.T + offset
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    losses = logsumexp(scores, axis=1) - scores[np.arange(len(y)), codes]
    return float(C * losses.sum() + 0.5 * (coef**2).sum())


def drawn(rng: np.random.Generator, n: int, d: int, k: int, noise: float = 0.5) -> Data:
    x = rng.normal(size=(n, d))
    scores = x @ rng.normal(size=(d, k)) + noise * d**0.5 * rng.gumbel(size=(n, k))
    return x, scores.argmax(1)


def kinds() -> Iterator[tuple[str, Data]]:
    """Yield every kind of data the probe must not do worse on."""
    rng = np.random.default_rng(0)
    yield "easy", drawn(rng, 400, 10, 4, 0.2)
    yield "separable", drawn(rng, 200, 10, 3, 0.0)
    x, y = drawn(rng, 300, 10, 3)
    yield "collinear", (np.hstack([x, x @ rng.normal(size=(10, 10)), x[:, :3]]), y)
    scale = np.logspace(-3, 3, 10)
    yield "badly scaled", (drawn(rng, 400, 10, 3)[0] * scale, y_of(rng, 400, 3))
    x, y = drawn(rng, 400, 10, 3)
    yield "badly scaled, signal", (x * scale, y)
    yield "offset", (x + 100.0, y)
    yield "n < p", drawn(rng, 40, 120, 3)
    yield "two classes", drawn(rng, 300, 10, 2)
    x, y = drawn(rng, 300, 10, 3)
    yield "strings", (x, np.array(["ape", "bee", "cat"])[y])
    yield "100 classes", drawn(rng, 1500, 8, 100, 0.2)
    x, y = drawn(rng, 300, 10, 3)
    x = np.maximum(x, 0)
    x[:, 4] = 0
    yield "a constant feature", (x, y)


def y_of(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    return rng.integers(k, size=n)


KINDS = dict(kinds())


def tight(x: np.ndarray, y: np.ndarray, C: float) -> LogisticRegression:
    """Return scikit-learn's minimum: Newton where it is affordable."""
    small = x.shape[1] * len(np.unique(y)) < 500
    solver = "newton-cholesky" if small else "lbfgs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=C, solver=solver, tol=1e-8, max_iter=5000).fit(x, y)


@pytest.mark.parametrize("C", [1e-2, 1.0, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_objective_is_never_worse(kind: str, C: float) -> None:
    x, y = KINDS[kind]
    best = objective(x, y, tight(x, y, C), C)
    probe = LinearProbe(C=C).fit(x, y)
    assert objective(x, y, probe, C) <= best * (1 + 1e-4)
    assert probe.objective_ * C * len(y) == pytest.approx(objective(x, y, probe, C))


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_reaches_the_same_objective(kind: str) -> None:
    x, y = KINDS[kind]
    single = x.astype(np.float32)
    probe = LinearProbe().fit(single, y)
    assert probe.coef_.dtype == probe.intercept_.dtype == np.float32
    exact = LinearProbe(tol=1e-10).fit(single.astype(float), y)
    best = objective(single, y, exact, 1.0)
    assert objective(single, y, probe, 1.0) <= best * (1 + 1e-4)


@pytest.mark.parametrize("kind", ["easy", "two classes", "strings", "n < p"])
def test_the_minimum_is_scikit_learns(kind: str) -> None:
    x, y = KINDS[kind]
    theirs, ours = tight(x, y, 1.0), LinearProbe(tol=1e-13).fit(x, y)
    assert ours.coef_.shape == theirs.coef_.shape
    assert ours.intercept_.shape == theirs.intercept_.shape
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-4)
    np.testing.assert_allclose(
        ours.predict_proba(x), theirs.predict_proba(x), atol=1e-5
    )
    assert ours.decision_function(x).shape == theirs.decision_function(x).shape
    assert (ours.predict(x) == theirs.predict(x)).all()


def test_without_intercept_and_with_weights() -> None:
    x, y = KINDS["easy"]
    weight = np.random.default_rng(1).uniform(0, 3, len(y))
    weight[:5] = 0
    for intercept in (True, False):
        theirs = LogisticRegression(
            fit_intercept=intercept, solver="newton-cholesky", tol=1e-10
        ).fit(x, y, weight)
        ours = LinearProbe(fit_intercept=intercept, tol=1e-13).fit(x, y, weight)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 5.0, 2: 0.5, 3: 1.0}])
def test_weights_of_classes(class_weight: str | dict[int, float]) -> None:
    x, y = KINDS["easy"]
    weight = np.random.default_rng(1).uniform(0.5, 3, len(y))
    theirs = LogisticRegression(
        class_weight=class_weight, solver="newton-cholesky", tol=1e-10
    ).fit(x, y, weight)
    ours = LinearProbe(class_weight=class_weight, tol=1e-13).fit(x, y, weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)


@pytest.mark.parametrize("C", [1e2, 1e4, 1e6])
def test_the_excess_that_is_claimed_at_large_C(C: float) -> None:
    x, y = load_iris(return_X_y=True)
    probe = LinearProbe(C=C).fit(x, y)
    best = objective(x, y, LinearProbe(C=C, tol=1e-13, max_iter=9999).fit(x, y), C)
    excess = objective(x, y, probe, C) - best
    assert excess <= 2 * probe.excess_ * C * len(y)
    assert excess <= 2e-5 * best


def test_scikit_learn_accepts_it() -> None:
    failed = []
    for result in check_estimator(LinearProbe(), on_fail=None, on_skip=None):
        if result["status"] not in ("passed", "skipped"):
            failed.append(result["check_name"])
    assert failed == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 30), st.booleans())
def test_the_excess_is_estimated(seed: int, k: int, d: int, single: bool) -> None:
    rng = np.random.default_rng(seed)
    x, y = drawn(rng, 80, d, k, float(rng.uniform(0, 2)))
    y[:k] = np.arange(k)
    x = (x * np.exp(rng.normal(size=d))).astype(np.float32 if single else float)
    best = objective(x, y, LinearProbe(tol=1e-11).fit(x.astype(float), y), 1.0)
    assert objective(x, y, LinearProbe().fit(x, y), 1.0) <= best * (1 + 1e-4)


def test_warm_start_saves_iterations_from_step_to_step() -> None:
    rng = np.random.default_rng(0)
    x, y = drawn(rng, 400, 10, 4, 0.2)
    following = x + 0.02 * rng.normal(size=x.shape)
    cold = LinearProbe().fit(following, y)
    warm = LinearProbe(warm_start=True).fit(x, y).fit(following, y)
    assert warm.n_iter_[0] < cold.n_iter_[0]
    assert warm.objective_ == pytest.approx(cold.objective_, rel=1e-4)
    assert not hasattr(clone(warm), "coef_")


def test_warm_start_reaches_the_same_minimum_across_other_features() -> None:
    rng = np.random.default_rng(0)
    x, y = drawn(rng, 400, 10, 4, 0.2)
    other = np.hstack([x @ rng.normal(size=(10, 10)), rng.normal(size=(400, 2))])
    cold = LinearProbe().fit(other, y)
    warm = LinearProbe(warm_start=True).fit(x, y).fit(other, y)
    assert warm.objective_ == pytest.approx(cold.objective_, rel=1e-4)


def test_a_warm_start_that_does_not_fit_is_left() -> None:
    x, y = KINDS["easy"]
    probe = LinearProbe(warm_start=True).fit(x, y).fit(x[:100], y[:100])
    fresh = LinearProbe().fit(x[:100], y[:100])
    np.testing.assert_array_equal(probe.coef_, fresh.coef_)


def test_read_only_features() -> None:
    x, y = (a.copy() for a in KINDS["easy"])
    x.flags.writeable = False
    assert LinearProbe().fit(x, y).score(x, y) > 0.5


def test_iterations_that_run_out_are_said() -> None:
    x, y = KINDS["separable"]
    with pytest.warns(ConvergenceWarning, match="after `max_iter`=2 iterations"):
        LinearProbe(C=1e4, max_iter=2).fit(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"C": 0.0}, "Expected `C` to be positive and finite, but got 0.0"),
        ({"C": float("inf")}, "Expected `C` to be positive and finite, but got inf"),
        ({"tol": -1.0}, "Expected `tol` to be positive and finite, but got -1.0"),
        ({"max_iter": 0}, "Expected `max_iter` to be at least 1, but got 0"),
    ],
)
def test_parameters_out_of_range(options: dict[str, float], message: str) -> None:
    x, y = KINDS["easy"]
    with pytest.raises(ValueError, match=message):
        LinearProbe(**options).fit(x, y)  # type: ignore[arg-type]


def test_what_scikit_learn_refuses() -> None:
    x, y = KINDS["easy"]
    with pytest.raises(ValueError, match="at least 2 classes, but got only one class"):
        LinearProbe().fit(x, np.zeros(len(y)))
    with pytest.raises(ValueError, match="contains NaN"):
        LinearProbe().fit(np.full_like(x, np.nan), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LinearProbe().fit(x, y[:-1])
    with pytest.raises(ValueError, match="[Uu]nknown label type"):
        LinearProbe().fit(x, np.random.default_rng(0).normal(size=len(y)))


@pytest.mark.parametrize(
    ("factor", "dtype"), [(1e20, "f8"), (1e140, "f8"), (1e-20, "f8"), (1e30, "f4")]
)
def test_units_do_not_matter_where_the_penalty_does_not(
    factor: float, dtype: str
) -> None:
    x, y = drawn(np.random.default_rng(0), 60, 4, 3)
    probe = LinearProbe().fit((x * factor).astype(dtype), y)
    if factor > 1:
        free = LogisticRegression(C=1e8, tol=1e-8, max_iter=10_000).fit(x, y)
        np.testing.assert_allclose(probe.coef_ * factor, free.coef_, rtol=0.02)
    else:
        # So small that the penalty leaves the intercept alone: the frequencies.
        shares = np.bincount(y) / len(y)
        probabilities = probe.predict_proba(x * factor)
        np.testing.assert_allclose(probabilities, np.tile(shares, (60, 1)), rtol=1e-6)
    assert abs(float(probe.intercept_.sum())) < 1e-5


def test_what_cannot_be_computed_is_said() -> None:
    x, y = drawn(np.random.default_rng(0), 60, 4, 3)
    with pytest.raises(ValueError, match=r"stay below 1e\+150, .* but got [23]e\+300"):
        LinearProbe().fit(x * 1e300, y)
    with pytest.raises(ValueError, match="Expected `X` to be numbers, but got text"):
        LinearProbe().fit(x.astype(str), y)
    for name in ("fit_intercept", "warm_start"):
        with pytest.raises(ValueError, match=f"Expected `{name}` to be True or False"):
            LinearProbe(**{name: "yes"}).fit(x, y)  # type: ignore[arg-type]


def test_a_descent_that_rounding_ends_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = drawn(np.random.default_rng(0), 60, 4, 3)
    monkeypatch.setattr(
        linear, "minimise", lambda *a, **o: minimise(*a, **o)._replace(converged=False)
    )
    with pytest.warns(ConvergenceWarning, match="rounding hides every descent, with"):
        LinearProbe().fit(x, y)


@pytest.mark.gpu
def test_an_accelerator_reaches_the_same_objective() -> None:
    for _, (x, y) in kinds():
        for dtype in (np.float32, np.float64):
            here = LinearProbe(device="cpu").fit(x.astype(dtype), y)
            there = LinearProbe(device="cuda").fit(x.astype(dtype), y)
            assert there.objective_ == pytest.approx(here.objective_, rel=1e-4)
            assert there.coef_.dtype == dtype
