"""A linear probe: scikit-learn's logistic regression, minimised faster."""

import warnings
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from repsim.core.devices import device_named, multiplying
from repsim.core.messages import Misuse, unknown
from repsim.probes.logistic.conditioning import Conditioned, condition
from repsim.probes.logistic.solver import Solution, minimise

LARGEST, LARGEST_SINGLE = 1e150, 1e18


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Logistic regression with scikit-learn's objective and a faster minimiser.

    .. math::
        C \sum_i s_i\, \ell(W x_i + b, y_i) + \tfrac12 \lVert W \rVert^2

    with the multinomial loss, or the binomial one and a single row of coefficients
    where there are two classes; the intercept is not penalised. This is what
    ``sklearn.linear_model.LogisticRegression(C=C)`` minimises.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty, positive and finite.
    tol : float
        Stop when the estimated excess of the objective over its minimum is below
        `tol` times the objective. (scikit-learn's `tol` bounds the gradient, which
        says little about the excess.)
    max_iter : int
        Most iterations; a `ConvergenceWarning` says when they ran out.
    fit_intercept : bool
        Whether there is an intercept.
    class_weight : dict, "balanced" or None
        Weights of the classes, which multiply the examples' weights; "balanced" is
        inverse to their frequencies.
    warm_start : bool
        Begin at the logits of the previous fit where it had as many examples and the
        same classes, also when the features are others, as those of the next layer.
    device : str
        "auto" takes an accelerator where there is one; otherwise as for torch.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The classes, sorted.
    coef_ : ndarray, shape (1 or n_classes, n_features)
        W, in the dtype of the features (float32 or float64).
    intercept_ : ndarray, shape (1 or n_classes,)
        b.
    n_iter_ : ndarray, shape (1,)
        Iterations made.
    objective_ : float
        The objective reached, divided by C times the sum of the weights.
    excess_ : float
        The estimate of how far `objective_` lies above its minimum.
    n_features_in_ : int
        Number of features.

    References
    ----------
    .. [1] G. Alain, Y. Bengio, "Understanding intermediate layers using linear
       classifier probes", 2016. https://doi.org/10.48550/arXiv.1610.01644
    .. [2] D. Böhning, "Multinomial logistic regression algorithm", Annals of the
       Institute of Statistical Mathematics 44, 1992.
       https://doi.org/10.1007/BF00048682

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> probe = LinearProbe(C=1.0).fit(x, y)
    >>> round(float(probe.score(x, y)), 2)
    0.97
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        tol: float = 1e-5,
        max_iter: int = 1000,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        warm_start: bool = False,
        device: str = "auto",
    ) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.device = device

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Minimise the objective.

        Parameters
        ----------
        X : array-like, shape (n_examples, n_features)
            Features; float32 stays float32, everything else becomes float64.
        y : array-like, shape (n_examples,)
            Classes: numbers or strings.
        sample_weight : array-like, shape (n_examples,), optional
            Weights of the examples, not negative; 1 by default.

        Returns
        -------
        LinearProbe
            Itself, fitted.

        Raises
        ------
        ValueError
            If a parameter is out of range, X or y are not finite or do not fit
            together, or y has fewer than two classes.
        """
        self._check_parameters()
        x, labels = validate_data(
            self, X, y, dtype=[np.float64, np.float32], order="C", copy=False
        )
        dtype = x.dtype
        x = _moderate(X, x)
        check_classification_targets(labels)
        weight = _check_sample_weight(
            sample_weight, x, dtype=np.float64, ensure_non_negative=True
        )
        used = weight > 0
        if not used.all():
            x, labels, weight = x[used], labels[used], weight[used]
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            msg = (
                "Expected `y` to have at least 2 classes, but got only one class: "
                f"{classes.tolist()}."
            )
            raise ValueError(msg)
        if self.class_weight is not None:
            each = compute_class_weight(
                self.class_weight, classes=classes, y=labels, sample_weight=weight
            )
            weight = weight * each[codes]
        previous = getattr(self, "classes_", np.empty(0))
        known = np.array_equal(previous, classes)
        solution, way = self._minimise(x, codes, len(classes), weight, known)
        self.classes_ = classes
        self._keep(solution, way, dtype)
        return self

    def _minimise(
        self, x: np.ndarray, codes: np.ndarray, k: int, weight: np.ndarray, known: bool
    ) -> tuple[Solution, Conditioned]:
        device = device_named(self.device)
        features, places = _tensor(x).to(device), torch.from_numpy(codes).to(device)
        total = float(weight.sum())
        shares = torch.from_numpy(weight / total).to(device)
        start = getattr(self, "_logits", None) if self.warm_start and known else None
        if start is not None and start.shape[1] != len(x):
            start = None
        left = self.max_iter
        while True:
            way = condition(
                features, places, k, shares, 1 / (self.C * total), self.fit_intercept
            )
            with multiplying("float32", device):
                solution = minimise(
                    way.problem, way.start(start), tol=self.tol, max_iter=left
                )
            left -= solution.n_iter
            if solution.converged or left <= 0 or features.dtype == torch.float64:
                return solution._replace(n_iter=self.max_iter - left), way
            # Rounding stopped the descent: finish in double precision.
            features, start = features.double(), solution.logits

    def _keep(self, solution: Solution, way: Conditioned, dtype: Any) -> None:
        if not solution.converged:
            cut = solution.n_iter >= self.max_iter
            where = (
                f"after `max_iter`={self.max_iter} iterations"
                if cut
                else "where rounding hides every descent"
            )
            advice = "raise `max_iter`" if cut else "rescale the features"
            warnings.warn(
                f"LinearProbe stopped {where}, with an estimated excess of "
                f"{solution.excess:.1e}; {advice}.",
                ConvergenceWarning,
                stacklevel=3,
            )
        weights, intercept = way.coefficients(solution.theta)
        self.coef_ = weights.cpu().numpy().astype(dtype)
        self.intercept_ = intercept.cpu().numpy().astype(dtype)
        self.n_iter_ = np.array([max(solution.n_iter, 1)], dtype=np.int32)
        self.objective_ = solution.objective
        self.excess_ = solution.excess
        self._logits = solution.logits if self.warm_start else None

    def _check_parameters(self) -> None:
        for name in ("fit_intercept", "warm_start"):
            switch = getattr(self, name)
            if not isinstance(switch, (bool, np.bool_, Integral)):
                msg = f"Expected `{name}` to be True or False, but got {switch!r}."
                raise ValueError(msg)
        for name in ("C", "tol"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 < float(value) < np.inf:
                msg = f"Expected `{name}` to be positive and finite, but got {value!r}."
                raise ValueError(Misuse(msg))
        rounds: Any = self.max_iter
        if not isinstance(rounds, Integral) or int(rounds) < 1:
            msg = f"Expected `max_iter` to be at least 1, but got {rounds!r}."
            raise ValueError(msg)
        rare: Any = self.class_weight
        if isinstance(rare, str) and rare != "balanced":
            raise ValueError(unknown("class_weight", rare, ["balanced"]))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return the logits.

        Parameters
        ----------
        X : array-like, shape (n_examples, n_features)
            Features.

        Returns
        -------
        ndarray, shape (n_examples,) or (n_examples, n_classes)
            One column a class; of two classes, the logit of the second one.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores: np.ndarray = x @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the logarithms of the classes' probabilities.

        Parameters
        ----------
        X : array-like, shape (n_examples, n_features)
            Features.

        Returns
        -------
        ndarray, shape (n_examples, n_classes)
            In nats, in the order of `classes_`.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        scores = scores - scores.max(axis=1, keepdims=True)
        total: np.ndarray = np.exp(scores).sum(axis=1, keepdims=True)
        return np.asarray(scores - np.log(total))

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the classes' probabilities.

        Parameters
        ----------
        X : array-like, shape (n_examples, n_features)
            Features.

        Returns
        -------
        ndarray, shape (n_examples, n_classes)
            In the order of `classes_`; rows sum to 1.
        """
        return np.asarray(np.exp(self.predict_log_proba(X)))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the most probable classes.

        Parameters
        ----------
        X : array-like, shape (n_examples, n_features)
            Features.

        Returns
        -------
        ndarray, shape (n_examples,)
            Members of `classes_`.
        """
        scores = self.decision_function(X)
        codes = scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)
        return np.asarray(self.classes_[codes])


def _moderate(given: Any, x: np.ndarray) -> np.ndarray:
    """Return features whose squares are numbers, in double precision if need be."""
    if np.asarray(given).dtype.kind in "US":
        msg = "Expected `X` to be numbers, but got text; convert it first."
        raise ValueError(msg)
    largest = float(np.abs(x).max())
    if largest > LARGEST:
        msg = (
            f"Expected `X` to stay below {LARGEST:.0e}, whose square is a number, but "
            f"got {largest:.0e}; rescale the features."
        )
        raise ValueError(msg)
    return x if largest < LARGEST_SINGLE else x.astype(np.float64)


def _tensor(x: np.ndarray) -> Tensor:
    # Torch warns about arrays it may not write, although nothing here writes.
    return torch.from_numpy(x if x.flags.writeable else x.copy())
