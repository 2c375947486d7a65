"""A probe over every layer and step of one recording or of many."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import root_mean_squared_error

from repsim.datasets.recordings import networks
from repsim.probes import scores
from repsim.probes.control import control_values
from repsim.probes.estimators import describe, few_examples_each, make, regresses
from repsim.probes.linear import LinearProbe
from repsim.probes.targets import Target, expect_same_order, resolve, split
from repsim.probes.traversal import features, frame, moments, over_networks, provenance

MEANING = {
    "accuracy": ("held-out accuracy", "1"),
    "train_accuracy": ("training accuracy", "1"),
    "log_loss": ("held-out log loss", "nats"),
    "v_information": ("V-information", "nats"),
    "calibration_error": ("held-out calibration error", "1"),
    "r2": ("held-out R²", "1"),
    "train_r2": ("training R²", "1"),
    "rmse": ("held-out RMSE, in the target's unit", "1"),
    "chance": ("held-out score of the best constant", "1"),
    "control_accuracy": ("held-out accuracy of the control", "1"),
    "control_train_accuracy": ("training accuracy of the control", "1"),
    "control_r2": ("held-out R² of the control", "1"),
    "control_train_r2": ("training R² of the control", "1"),
    "selectivity": ("selectivity", "1"),
}
"""What each variable is called on an axis, and its unit."""


def probe_layers(
    run: xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset] | Iterable[xr.Dataset],
    target: str | ArrayLike = "label",
    *,
    estimator: str | BaseEstimator | None = None,
    test_size: float = 0.25,
    control: bool | str | ArrayLike | None = None,
    seed: int = 0,
) -> xr.Dataset:
    r"""Return how well a probe reads a target from every layer at every step.

    All layers, steps and controls share one seeded split, stratified by class. The
    probe sees the activations as they are: a scikit-learn `Pipeline` brings
    preprocessing, which is then fitted on the training examples only and named in
    `attrs["preprocessing"]`.

    Parameters
    ----------
    run : Dataset, DataTree, mapping or iterable of Dataset
        A recording with layers of dims ([step,] example, unit). Several recordings
        add a dim: a study `condition` and `seed`, a mapping or a list `network`.
    target : str or array-like, shape (example,)
        A coordinate's name, or values. Whole numbers, text and truth values are
        classes; other numbers, and numbers given to a regressor, are continuous.
    estimator : str, estimator or None
        The probe: any scikit-learn classifier or regressor, or "linear", "ridge" or
        "knn". None is `LinearProbe()`, and `RidgeCV` for a continuous target.
    test_size : float
        Share of the examples held out.
    control : True, str or array-like, optional
        A control task. True fits the same probe to labels shuffled over the
        examples; `selectivity` is then the held-out accuracy minus the control's
        training accuracy, which is what the probe can memorise. A grouping (a
        coordinate's name, or an array of types that training and held-out examples
        share) gives each group a random label; both accuracies are then held out.
    seed : int
        Seed of the split and of the control.

    Returns
    -------
    Dataset, dims ([step,] layer)
        `accuracy, train_accuracy` (shares of examples), and from probes with
        probabilities `log_loss` and `v_information` (nats per held-out example) and
        `calibration_error`; for a continuous target `r2, train_r2, rmse`. `chance`
        is the held-out score of the best constant. With a control also
        `control_accuracy`, `control_train_accuracy` and `selectivity` (`control_r2`
        and so on).

    Raises
    ------
    ValueError
        If the target is missing, incomplete, of the wrong length or has a class
        with fewer than two examples; a layer holds NaN or is no matrix.
    TypeError
        If `run` is not a recording, or `estimator` no estimator.

    References
    ----------
    .. [1] G. Alain, Y. Bengio, "Understanding intermediate layers using linear
       classifier probes", 2016. https://doi.org/10.48550/arXiv.1610.01644
    .. [2] J. Hewitt, P. Liang, "Designing and interpreting probes with control
       tasks", EMNLP 2019. https://doi.org/10.18653/v1/D19-1275
    .. [3] Y. Xu et al., "A theory of usable information under computational
       constraints", ICLR 2020. https://doi.org/10.48550/arXiv.2002.10689

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> label = np.arange(80) % 2
    >>> noise = rng.normal(size=(80, 3))
    >>> run = xr.Dataset(
    ...     {
    ...         "early": (("example", "early_unit"), noise),
    ...         "late": (("example", "late_unit"), noise + 9 * label[:, None]),
    ...     },
    ...     coords={"label": ("example", label)},
    ... )
    >>> result = probe_layers(run)
    >>> float(result["accuracy"].sel(layer="late"))
    1.0
    """
    return over_networks(
        run,
        lambda one: _probe(
            one,
            target,
            estimator=estimator,
            test_size=test_size,
            control=None if _is_false(control) else control,
            seed=seed,
        ),
    )


def probe_input(
    run: xr.Dataset | xr.DataTree,
    target: str | ArrayLike = "label",
    *,
    inputs: ArrayLike | xr.DataArray | None = None,
    estimator: str | BaseEstimator | None = None,
    test_size: float = 0.25,
    seed: int = 0,
) -> xr.Dataset:
    """Return how well the same probe reads the target from the input itself.

    What a probe reads from pixels is no achievement of a layer.

    Parameters
    ----------
    run : Dataset or DataTree
        A recording, for its examples and target, or a study.
    target : str or array-like, shape (example,)
        As for `probe_layers`.
    inputs : array-like, shape (example, …), optional
        The recorded inputs, in the recording's order; more dims are flattened. A
        study keeps them in the variable `input` of its root.
    estimator : str, estimator or None
        As for `probe_layers`.
    test_size : float
        As for `probe_layers`.
    seed : int
        As for `probe_layers`; the same gives the same split.

    Returns
    -------
    Dataset
        The variables of `probe_layers`, without dims.

    Raises
    ------
    ValueError
        If there are no inputs, not one for each example, or in another order.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> label = np.arange(80) % 2
    >>> run = xr.Dataset(
    ...     {"h": (("example", "h_unit"), rng.normal(size=(80, 3)))},
    ...     coords={"label": ("example", label)},
    ... )
    >>> pixels = rng.normal(size=(80, 4)) + 9 * label[:, None]
    >>> float(probe_input(run, inputs=pixels)["accuracy"])
    1.0
    """
    if isinstance(run, xr.DataTree):
        if inputs is None and "input" in run.data_vars:
            inputs = run.to_dataset()["input"].values
        run = next(iter(networks(run).values()))
    if inputs is None:
        msg = (
            "Expected `inputs`, the recorded inputs, but got none, and the recording "
            "holds none; pass inputs=…, in the recording's order."
        )
        raise ValueError(msg)
    expect_same_order(run, inputs, "inputs")
    values = np.asarray(inputs)
    n = run.sizes["example"]
    if not values.ndim or len(values) != n:
        msg = (
            f"Expected `inputs` to hold one input for each of the {n} examples, but "
            f"got shape {values.shape}."
        )
        raise ValueError(msg)
    kept = run.drop_vars([str(name) for name in run.data_vars])
    kept = kept.drop_dims([dim for dim in kept.dims if dim != "example"])
    kept.attrs = {}
    kept["input"] = (("example", "input_unit"), values.reshape(n, -1))
    found = probe_layers(
        kept, target, estimator=estimator, test_size=test_size, seed=seed
    )
    return found.isel(layer=0, drop=True)


def _is_false(control: Any) -> bool:
    return isinstance(control, (bool, np.bool_)) and not control


@dataclass(frozen=True)
class _Task:
    """Values to learn, and where they are learnt and tested."""

    target: Target
    values: np.ndarray
    train: np.ndarray
    test: np.ndarray

    def score(self, probe: Any, x: np.ndarray) -> dict[str, float]:
        """Fit a probe, and return its scores on both sides."""
        seen, held = self.values[self.train], self.values[self.test]
        x_train, x_test = x[self.train], x[self.test]
        if self.target.classes is None:
            probe.fit(x_train, seen)
            predicted = np.asarray(probe.predict(x_test), dtype=np.float64)
            return {
                "r2": scores.r2(predicted, held),
                "train_r2": scores.r2(np.asarray(probe.predict(x_train)), seen),
                "rmse": float(root_mean_squared_error(held, predicted)),
            }
        with few_examples_each():
            probe.fit(x_train, self.target.classes[seen])
        result = {
            "accuracy": self._accuracy(probe, x_test, held),
            "train_accuracy": self._accuracy(probe, x_train, seen),
        }
        if hasattr(probe, "predict_proba"):
            probabilities = self._probabilities(probe, x_test)
            prior = np.bincount(seen, minlength=len(self.target.classes)) / len(seen)
            result["log_loss"] = scores.log_loss(probabilities, held)
            result["calibration_error"] = scores.calibration_error(probabilities, held)
            result["v_information"] = scores.v_information(probabilities, held, prior)
        return result

    def _accuracy(self, probe: Any, x: np.ndarray, codes: np.ndarray) -> float:
        assert self.target.classes is not None
        return float((probe.predict(x) == self.target.classes[codes]).mean())

    def _probabilities(self, probe: Any, x: np.ndarray) -> np.ndarray:
        """Return probabilities of all classes; a control can miss some in training."""
        assert self.target.classes is not None
        probabilities = np.zeros((len(x), len(self.target.classes)))
        known = np.searchsorted(self.target.classes, probe.classes_)
        probabilities[:, known] = probe.predict_proba(x)
        return probabilities

    def chance(self) -> float:
        """Return the held-out score of the best constant."""
        seen, held = self.values[self.train], self.values[self.test]
        if self.target.classes is None:
            return scores.r2(np.full(len(held), seen.mean()), held)
        return float((held == np.bincount(seen).argmax()).mean())


def _probe(
    run: xr.Dataset,
    target: str | ArrayLike,
    *,
    estimator: str | BaseEstimator | None,
    test_size: float,
    control: bool | str | ArrayLike | None,
    seed: int,
) -> xr.Dataset:
    cells: dict[tuple[int, ...], dict[str, float]] = {}
    places = moments(run)
    goal = resolve(run, target, regresses(estimator))
    train, test = split(goal, test_size, seed)
    task = _Task(goal, goal.values, train, test)
    probe = _chained(make(estimator, continuous=goal.continuous))
    options: dict[str, Any] = {
        "target": goal.name,
        **describe(make(estimator, continuous=goal.continuous)),
        "test_size": test_size,
        "seed": seed,
        "n_train": len(train),
        "n_test": len(test),
    }
    if goal.classes is not None:
        options["classes"] = [str(c) for c in goal.classes.tolist()]
    against = None
    if control is not None:
        name, values = control_values(run, goal, control, train, test, seed)
        options["control"] = name
        against = _Task(goal, values, train, test)
        rival = _chained(make(estimator, continuous=goal.continuous))
    for place, moment in places:
        x = features(run, moment)
        cells[place] = task.score(probe, x)
        if against is not None:
            cells[place] |= _selectivity(
                cells[place], against.score(rival, x), options["control"]
            )
    result: xr.Dataset = frame(run, cells)
    result["chance"] = task.chance()
    for key, variable in result.data_vars.items():
        long_name, units = MEANING[str(key)]
        variable.attrs |= {"long_name": long_name, "units": units}
    return result.assign_attrs(provenance(**options))


def _selectivity(
    found: dict[str, float], control: dict[str, float], name: str
) -> dict[str, float]:
    """Return a control's scores, and what the probe reads beyond them."""
    score = "accuracy" if "accuracy" in found else "r2"
    rival = f"train_{score}" if name == "shuffled" else score
    return {
        f"control_{score}": control[score],
        f"control_train_{score}": control[f"train_{score}"],
        "selectivity": found[score] - control[rival],
    }


def _chained(probe: Any) -> Any:
    """Let our own probe begin where it ended for the moment before."""
    return (
        probe.set_params(warm_start=True) if isinstance(probe, LinearProbe) else probe
    )
