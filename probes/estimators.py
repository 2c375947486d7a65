"""Which estimator probes: ours by default, any of scikit-learn's, or a name."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline

from repsim.core.messages import unknown
from repsim.probes.linear import LinearProbe

PENALTIES = tuple(np.logspace(-3, 6, 10).tolist())
"""Ridge penalties, chosen among by leave-one-out on the training examples."""


def names() -> list[str]:
    """Return the names `make` knows.

    Returns
    -------
    list of str
        Sorted.

    Examples
    --------
    >>> names()
    ['knn', 'linear', 'ridge']
    """
    return ["knn", "linear", "ridge"]


def make(estimator: str | BaseEstimator | None, *, continuous: bool) -> Any:
    """Return a fresh, unfitted estimator."""
    if estimator is None or isinstance(estimator, str):
        name = estimator or "linear"
        if name not in names():
            raise ValueError(unknown("estimator", name, names()))
        if name == "knn":
            kind = KNeighborsRegressor if continuous else KNeighborsClassifier
            return kind(n_neighbors=10)
        if continuous:
            return RidgeCV(alphas=PENALTIES, alpha_per_target=True)
        return LinearProbe() if name == "linear" else RidgeClassifierCV(PENALTIES)
    if isinstance(estimator, type) or not isinstance(estimator, BaseEstimator):
        msg = (
            "Expected `estimator` to be a scikit-learn estimator or one of "
            f"{', '.join(names())}, but got {_kind(estimator)}."
        )
        raise TypeError(msg)
    if continuous and not is_regressor(estimator):
        msg = (
            "Expected `estimator` to be a regressor for a continuous target, but got "
            f"{type(estimator).__name__}; leave it out for ridge regression."
        )
        raise ValueError(msg)
    if not continuous and not is_classifier(estimator):
        msg = (
            "Expected `estimator` to be a classifier for classes, but got "
            f"{type(estimator).__name__}; leave it out for logistic regression."
        )
        raise ValueError(msg)
    return clone(estimator)


def _kind(thing: Any) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__name__} itself; call it"
    return type(thing).__name__


def regresses(estimator: str | BaseEstimator | None) -> bool:
    """Return whether a user's estimator makes any numeric target continuous."""
    return isinstance(estimator, BaseEstimator) and bool(is_regressor(estimator))


@contextmanager
def few_examples_each() -> Iterator[None]:
    """Silence the doubt whether many classes of few examples are classes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater")
        yield


def describe(estimator: Any) -> dict[str, str]:
    """Return what to write in a result's `attrs` about an estimator."""
    before = (
        [step for _, step in estimator.steps[:-1]] if _is_pipeline(estimator) else []
    )
    last = estimator.steps[-1][1] if before else estimator
    steps = ", ".join(_line(step) for step in before)
    return {
        "estimator": _line(last),
        "preprocessing": f"{steps} (fitted on training examples)" if steps else "none",
    }


def _is_pipeline(estimator: Any) -> bool:
    return isinstance(estimator, Pipeline)


def _line(estimator: Any) -> str:
    text: str = estimator.__repr__(N_CHAR_MAX=10_000)
    return " ".join(text.split())
