"""A probe over every layer and step of one recording or of many."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import root_mean_squared_error

from repsim.core import cluster
from repsim.core.bars import progress_bar
from repsim.core.messages import seed_number, whole
from repsim.datasets.recordings import is_stored, networks
from repsim.probes import scores
from repsim.probes.control import control_values
from repsim.probes.estimators import describe, few_examples_each, make, regresses
from repsim.probes.linear import LinearProbe
from repsim.probes.splits import Split, group_codes, splits
from repsim.probes.standardising import Standardise, expect_standardise, standardised
from repsim.probes.targets import Target, TaskKind, expect_same_order, resolve
from repsim.probes.traversal import features, frame, moments, over_networks, provenance

MEANING = {
    "accuracy": ("held-out accuracy", "1"),
    "train_accuracy": ("training accuracy", "1"),
    "balanced_accuracy": ("held-out balanced accuracy", "1"),
    "auroc": ("held-out area under the ROC curve", "1"),
    "confusion": ("held-out examples", "1"),
    "log_loss": ("held-out log loss", "nats"),
    "v_information": ("V-information", "nats"),
    "calibration_error": ("held-out calibration error", "1"),
    "calibration_floor": ("calibration error of calibrated answers", "1"),
    "r2": ("held-out R²", "1"),
    "train_r2": ("training R²", "1"),
    "rmse": ("held-out RMSE, in the target's unit", "1"),
    "chance": ("held-out score of the best constant", "1"),
    "chance_log_loss": ("held-out log loss of the training frequencies", "nats"),
    "control_accuracy": ("held-out accuracy of the control", "1"),
    "control_train_accuracy": ("training accuracy of the control", "1"),
    "control_r2": ("held-out R² of the control", "1"),
    "control_train_r2": ("training R² of the control", "1"),
    "control_sd": ("standard deviation of the control over its draws", "1"),
    "selectivity": ("selectivity", "1"),
}
"""What each variable is called on an axis, and its unit."""


def probe_layers(
    run: xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset] | Iterable[xr.Dataset],
    target: str | ArrayLike = "label",
    *,
    estimator: str | BaseEstimator | None = None,
    task: TaskKind | None = None,
    standardise: Standardise = "layer",
    test_size: float = 0.25,
    repeats: int = 1,
    groups: str | ArrayLike | None = None,
    control: bool | str | ArrayLike | None = None,
    control_draws: int = 1,
    confusion: bool = False,
    seed: int = 0,
    progress: bool = False,
    scheduler: Any = None,
) -> xr.Dataset:
    r"""Return how well a probe reads a target from every layer at every step.

    All layers, steps, networks and controls share the same seeded splits, stratified
    by class. Units of measurement are not read: before the probe sees a layer, it is
    centred and divided by one number, :math:`\sqrt{\sum_j \sigma_j^2 / d}` over the d
    units that vary, both from the training examples. Preprocessing of your own comes
    in a scikit-learn `Pipeline`, is fitted to the training examples only and named in
    `attrs["preprocessing"]`.

    Parameters
    ----------
    run : Dataset, DataTree, mapping or iterable of Dataset
        A recording with layers of dims ([step,] example, unit). Several recordings
        add a dim: a study `condition` and `seed`, a mapping or a list `network`.
    target : str or array-like, shape (example,) or (example, output)
        A coordinate's name, or values. Whole numbers, text and truth values are
        classes; other numbers, and numbers given to a regressor, are continuous. A
        matrix is several numbers, or, of 0 and 1, several labels of each example.
    estimator : str, estimator or None
        The probe: any scikit-learn classifier or regressor, or "linear", "ridge" or
        "knn". None is `LinearProbe()`, and `RidgeCV` for a continuous target. "ridge"
        alone takes whole numbers as classes only if they are called `label` or are
        the codes 0 … k − 1 of at most 20 classes.
    task : "classification", "regression" or None
        What the target is; None goes by the rules above.
    standardise : "layer", "units" or "none"
        One scale for the layer (see above), one for each unit, or activations as they
        are, of which a penalty reads the scale.
    test_size : float
        Share of the examples held out (of the groups, where there are `groups`).
    repeats : int
        Number of splits. Of several, scores are means, and `<score>_se` their
        standard errors, corrected for the examples that splits share [4]_.
    groups : str or array-like, shape (example,), optional
        Which examples belong together (tokens of a sequence, repeats of a stimulus): a
        coordinate's name, as `"sequence"`, or values. No group is on both sides.
    control : True, str or array-like, optional
        A control task. True fits the same probe to labels shuffled over the
        examples (over the groups, where members share a label); `selectivity` is then
        the held-out accuracy minus the control's training accuracy, which is what the
        probe can memorise. A grouping (a coordinate's name, or an array of types that
        training and held-out examples share) gives each group a random label; both
        accuracies are then held out.
    control_draws : int
        Draws of the control on each split; several give their mean and `control_sd`.
    confusion : bool
        Whether to keep the held-out counts `confusion` (…, class, predicted), summed
        over splits.
    seed : int
        Seed of the splits and of the controls.
    progress : bool
        Whether to show a bar over layers and steps.
    scheduler : distributed.Client, str or None
        Where what lies in a store is read and computed: a client, the address of a
        dask scheduler, or "threads" or "synchronous" for this process. None is the
        client in scope, if there is one.

    Returns
    -------
    Dataset, dims ([step,] layer[, output])
        `accuracy, train_accuracy` (shares of examples), `balanced_accuracy` (mean of
        the classes' shares); from probes with probabilities `log_loss` and
        `v_information` (nats per held-out example), `calibration_error` and
        `calibration_floor`, what calibrated answers would show of it; `auroc` (one
        class against the rest, their mean; 0.5 by chance). For a continuous target
        `r2, train_r2, rmse`. `chance` is the held-out score of the best constant,
        `chance_log_loss` that of the training frequencies. With a control also
        `control_accuracy`, `control_train_accuracy` and `selectivity` (`control_r2`
        and so on).

    Raises
    ------
    ValueError
        If the target is missing, incomplete, of the wrong length or has a class
        with fewer than two examples; a layer holds NaN or is no matrix; an option
        does not exist.
    TypeError
        If `run` is not a recording, or `estimator` no estimator.

    Warns
    -----
    UserWarning
        If there are no `groups`, and examples repeat: in every layer, by their ids,
        or as tokens of a `sequence`.

    References
    ----------
    .. [1] G. Alain, Y. Bengio, "Understanding intermediate layers using linear
       classifier probes", 2016. https://doi.org/10.48550/arXiv.1610.01644
    .. [2] J. Hewitt, P. Liang, "Designing and interpreting probes with control
       tasks", EMNLP 2019. https://doi.org/10.18653/v1/D19-1275
    .. [3] Y. Xu et al., "A theory of usable information under computational
       constraints", ICLR 2020. https://doi.org/10.48550/arXiv.2002.10689
    .. [4] C. Nadeau, Y. Bengio, "Inference for the generalization error", Machine
       Learning 52, 2003. https://doi.org/10.1023/A:1024068626366

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
    with cluster.using(scheduler):
        plan = _Plan(
            target=target,
            estimator=estimator,
            task=task,
            standardise=expect_standardise(standardise),
            test_size=test_size,
            repeats=repeats,
            groups=groups,
            control=None if _is_false(control) else control,
            control_draws=control_draws,
            confusion=confusion,
            seed=seed,
            progress=progress,
        )
        return over_networks(run, lambda one: _probe(one, plan))


def probe_input(
    run: xr.Dataset | xr.DataTree,
    target: str | ArrayLike = "label",
    *,
    inputs: ArrayLike | xr.DataArray | None = None,
    **options: Any,
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
    **options
        As for `probe_layers`: `estimator`, `test_size`, `seed` and so on; the same
        give the same splits.

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
    return probe_layers(kept, target, **options).isel(layer=0, drop=True)


def _is_false(control: Any) -> bool:
    return isinstance(control, (bool, np.bool_)) and not control


class _Task:
    """Values to learn by a probe, and where they are learnt and tested."""

    def __init__(
        self, target: Target, values: np.ndarray, sides: Split, probe: Any
    ) -> None:
        self.classes, self.probe = target.classes, probe
        self.train, self.test = sides
        self.seen, self.held = values[self.train], values[self.test]
        # Several labels are several tasks of two classes each.
        self.parts = [
            _Task(Target("", column, target.classes), column, sides, clone(probe))
            for column in (values.T if target.classes is not None else ())
            if values.ndim == 2
        ]

    def score(self, x: np.ndarray, *, confusion: bool = False) -> dict[str, Any]:
        """Fit the probe, and return its scores on both sides."""
        if self.parts:
            return _joined([part.score(x, confusion=confusion) for part in self.parts])
        if self.classes is None:
            return self._regression(x)
        predicted, result = self._fit(x)
        k = len(self.classes)
        result["balanced_accuracy"] = scores.balanced_accuracy(predicted, self.held)
        x_test = x[self.test]
        if hasattr(self.probe, "predict_proba"):
            probabilities = self._columns(self.probe.predict_proba(x_test), 0.0)
            loss = scores.log_loss(probabilities, self.held)
            result["log_loss"] = loss
            result["v_information"] = self.constant_loss() - loss
            result["calibration_error"] = scores.calibration_error(
                probabilities, self.held
            )
            result["calibration_floor"] = scores.calibration_floor(probabilities)
            evidence = probabilities[:, 1] if k == 2 else probabilities
            result["auroc"] = scores.auroc(evidence, self.held)
        elif hasattr(self.probe, "decision_function"):
            evidence = self.probe.decision_function(x_test)
            if evidence.ndim == 2:
                evidence = self._columns(evidence, -np.inf)
            result["auroc"] = scores.auroc(evidence, self.held)
        if confusion:
            pairs = np.bincount(self.held * k + predicted, minlength=k * k)
            result["confusion"] = pairs.reshape(k, k).astype(np.float64)
        return result

    def accuracies(self, x: np.ndarray) -> dict[str, Any]:
        """Fit the probe, and return the scores that a control is asked for."""
        if self.parts:
            return _joined([part.accuracies(x) for part in self.parts])
        return self._regression(x) if self.classes is None else self._fit(x)[1]

    def _regression(self, x: np.ndarray) -> dict[str, Any]:
        self.probe.fit(x[self.train], self.seen)
        predicted, known = (
            np.asarray(self.probe.predict(x[side]), dtype=np.float64)
            for side in (self.test, self.train)
        )
        error = root_mean_squared_error(self.held, predicted, multioutput="raw_values")
        return {
            "r2": scores.r2(predicted, self.held),
            "train_r2": scores.r2(known, self.seen),
            "rmse": error if self.held.ndim == 2 else float(error[0]),
        }

    def _fit(self, x: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        assert self.classes is not None
        with few_examples_each():
            self.probe.fit(x[self.train], self.classes[self.seen])
        predicted, known = (
            np.searchsorted(self.classes, self.probe.predict(x[side]))
            for side in (self.test, self.train)
        )
        return predicted, {
            "accuracy": float((predicted == self.held).mean()),
            "train_accuracy": float((known == self.seen).mean()),
        }

    def _columns(self, given: np.ndarray, missing: float) -> np.ndarray:
        """Return a column a class; a control can miss some in training."""
        assert self.classes is not None
        columns = np.full((len(given), len(self.classes)), missing)
        columns[:, np.searchsorted(self.classes, self.probe.classes_)] = given
        return columns

    def constant_loss(self) -> float:
        """Return the held-out log loss of the training frequencies."""
        assert self.classes is not None
        shares = np.bincount(self.seen, minlength=len(self.classes)) / len(self.seen)
        constant = np.broadcast_to(shares, (len(self.held), len(shares)))
        return scores.log_loss(constant, self.held)

    def constant(self) -> dict[str, Any]:
        """Return the held-out scores of the best answers that need no layer."""
        if self.parts:
            return _joined([part.constant() for part in self.parts])
        if self.classes is None:
            mean = np.broadcast_to(self.seen.mean(axis=0), self.held.shape)
            return {"chance": scores.r2(mean, self.held)}
        most = np.bincount(self.seen).argmax()
        return {
            "chance": float((self.held == most).mean()),
            "chance_log_loss": self.constant_loss(),
        }


def _joined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _over_splits(rows: list[dict[str, Any]], ratio: float) -> dict[str, Any]:
    """Return means over splits and their standard errors (Nadeau & Bengio 2003).

    Splits share examples, so that their spread alone understates the error: the
    variance is counted 1/J + n_test/n_train times in place of 1/J.
    """
    if len(rows) == 1:
        return rows[0]
    summary: dict[str, Any] = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        if name == "confusion":
            summary[name] = values.sum(axis=0)
            continue
        summary[name] = values.mean(axis=0)
        if name == "control_sd":
            continue
        variance = values.var(axis=0, ddof=1)
        summary[f"{name}_se"] = np.sqrt((1 / len(rows) + ratio) * variance)
    return summary


@dataclass(frozen=True)
class _Plan:
    """What is asked for, of each recording alike."""

    target: str | ArrayLike
    estimator: str | BaseEstimator | None
    task: TaskKind | None
    standardise: Standardise
    test_size: float
    repeats: int
    groups: str | ArrayLike | None
    control: bool | str | ArrayLike | None
    control_draws: int
    confusion: bool
    seed: int
    progress: bool


def _layer_alone(name: str, run: xr.Dataset, plan: _Plan) -> xr.Dataset:
    """Return the scores of one layer, as a worker reads and computes them."""
    return _probe(run[[name]].assign_attrs(layers=[name]), plan)


def _probe(run: xr.Dataset, plan: _Plan) -> xr.Dataset:
    places = moments(run)
    names = list(dict.fromkeys(layer for _, (layer, _) in places))
    if is_stored(run, names) and (client := cluster.active()) is not None:
        quiet = replace(plan, progress=False)
        parts = cluster.spread(client, _layer_alone, names, run[names], quiet)
        joined: xr.Dataset = xr.concat(
            parts,
            "layer",
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="override",
            combine_attrs="override",
        )
        return joined
    seed = seed_number(plan.seed)
    goal = resolve(
        run,
        plan.target,
        plan.task,
        regresses=regresses(plan.estimator),
        doubts=plan.estimator == "ridge",
    )
    kin = group_codes(run, plan.groups)
    codes = None if kin is None else kin[1]
    sides = splits(goal, plan.test_size, seed, repeats=plan.repeats, groups=codes)
    # Our own probe begins where it ended for the moment before.
    probe = make(plan.estimator, continuous=goal.continuous)
    options: dict[str, Any] = {
        "target": goal.name,
        **describe(probe),
        "standardise": plan.standardise,
        "test_size": plan.test_size,
        "repeats": len(sides),
        "seed": seed,
        "n_train": len(sides[0][0]),
        "n_test": len(sides[0][1]),
    }
    if kin is not None:
        options["groups"] = kin[0]
    if goal.classes is not None:
        options["classes"] = [str(c) for c in goal.classes.tolist()]
    if isinstance(probe, LinearProbe):
        probe.set_params(warm_start=True)
    controls: list[list[np.ndarray]] = [[] for _ in sides]
    draws = whole(plan.control_draws, "control_draws", 1)
    if plan.control is not None:
        for number in range(len(sides) * draws):
            place = number // draws
            options["control"], values = control_values(
                run, goal, plan.control, sides[place], codes, seed, number
            )
            controls[place].append(values)

    def begin() -> tuple[list[_Task], list[list[_Task]]]:
        """Return a layer's probes and their controls, fitted to nothing yet."""
        own = [_Task(goal, goal.values, one, clone(probe)) for one in sides]
        return own, [
            [_Task(goal, values, one, clone(probe)) for values in drawn]
            for one, drawn in zip(sides, controls, strict=True)
        ]

    tasks, rivals = begin()
    layer = places[0][1][0]
    ratio = len(sides[0][1]) / len(sides[0][0])
    cells: dict[tuple[int, ...], dict[str, Any]] = {}
    for where, moment in progress_bar(places, desc="probes", progress=plan.progress):
        if moment[0] != layer:
            # Afresh, so that no layer's numbers hang on which were probed before it.
            layer = moment[0]
            tasks, rivals = begin()
        x = features(run, moment)
        rows = []
        for task, against in zip(tasks, rivals, strict=True):
            z = standardised(x, task.train, plan.standardise)
            row = task.score(z, confusion=plan.confusion)
            if against:
                played = [rival.accuracies(z) for rival in against]
                row |= _selectivity(row, played, options["control"])
            rows.append(row)
        cells[where] = _over_splits(rows, ratio)
    return _labelled(run, goal, cells, tasks).assign_attrs(provenance(**options))


def _labelled(
    run: xr.Dataset,
    goal: Target,
    cells: dict[tuple[int, ...], dict[str, Any]],
    tasks: list[_Task],
) -> xr.Dataset:
    """Return the scores with their dims, names and units, and the constants' scores."""
    lead = () if goal.outputs is None else ("output",)
    names = next(iter(cells.values()))
    extra = dict.fromkeys(names, lead) | {"confusion": (*lead, "class", "predicted")}
    result: xr.Dataset = frame(run, cells, extra)
    for name, level in _joined([task.constant() for task in tasks]).items():
        result[name] = lead, level.mean(axis=0)
    coords: dict[str, Any] = {} if goal.outputs is None else {"output": goal.outputs}
    if goal.classes is not None and "confusion" in result:
        coords |= {"class": goal.classes, "predicted": goal.classes}
    for key, variable in result.data_vars.items():
        long_name, units = MEANING[str(key).removesuffix("_se")]
        if str(key).endswith("_se"):
            long_name += ", corrected standard error"
        variable.attrs |= {"long_name": long_name, "units": units}
    return result.assign_coords(coords)


def _selectivity(
    own: dict[str, Any], controls: list[dict[str, Any]], name: str
) -> dict[str, Any]:
    """Return the controls' mean scores, and what the probe reads beyond them."""
    score = "accuracy" if "accuracy" in own else "r2"
    held, seen = (
        np.array([row[key] for row in controls]) for key in (score, f"train_{score}")
    )
    rival = seen if name == "shuffled" else held
    measures = {
        f"control_{score}": held.mean(axis=0),
        f"control_train_{score}": seen.mean(axis=0),
        "selectivity": own[score] - rival.mean(axis=0),
    }
    if len(controls) > 1:
        measures["control_sd"] = rival.std(axis=0, ddof=1)
    return measures
