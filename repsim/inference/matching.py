"""The fair comparison: networks at the moment when they do equally well."""

import numpy as np
import xarray as xr

from repsim.core.scoring import ACCURACY, Score, score_of
from repsim.datasets.recordings import networks


def at_accuracy(study: xr.DataTree, accuracy: float | None = None) -> xr.DataTree:
    """Return a study of single moments at which all networks are equally accurate.

    Of every network the recorded step is taken whose test accuracy is nearest to the
    target, the earliest where several are equally near. Networks that were scored by
    another metric (the training records' attribute `metric`) are matched by that one.

    Parameters
    ----------
    study : DataTree
        /<condition>/<seed>, each with a `training` record that holds
        `test_accuracy`, or `test_<metric>`, at recorded steps.
    accuracy : float or None
        Target, of accuracies between 0 and 1. None takes the best that every network
        reaches: the worst of the networks' best test scores.

    Returns
    -------
    DataTree
        The same networks without a `step` dim; the attrs of each recording say
        `matched_step`, `matched_accuracy` and `target_accuracy` (`matched_<metric>`,
        `target_<metric>`). `seed_test` and `compare` take it as it is.

    Raises
    ------
    TypeError
        If `study` is not a DataTree.
    ValueError
        If a network has no steps, no training record, or no recorded step with a
        test score, networks were scored by different metrics, or `accuracy` is not
        between 0 and 1.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> at = {"step": [0, 10, 20]}
    >>> run = xr.Dataset({"h": (("step", "example", "h_unit"), np.ones((3, 4, 2)))}, at)
    >>> log = xr.Dataset({"test_accuracy": ("step", [0.1, 0.7, 0.9])}, at)
    >>> study = xr.DataTree.from_dict({"bp/0": run, "bp/0/training": log})
    >>> at_accuracy(study, 0.75)["bp/0"].attrs["matched_step"]
    10
    """
    runs = networks(study)
    score = scored_by(study)
    if accuracy is not None and score == ACCURACY and not 0 <= accuracy <= 1:
        msg = f"Expected `accuracy` between 0 and 1, but got {accuracy}."
        raise ValueError(msg)
    records = {key: _scores(study, key, run, score) for key, run in runs.items()}
    target = (
        score.worst(score.best(record.values.tolist()) for record in records.values())
        if accuracy is None
        else float(accuracy)
    )
    matched = {}
    for (condition, seed), run in runs.items():
        record = records[condition, seed]
        nearest = int(np.abs(record.values - target).argmin())
        step = int(record["step"].values[nearest])
        moment = run.sel(step=step)
        moment.attrs = run.attrs | {
            "matched_step": step,
            f"matched_{score.name}": float(record.values[nearest]),
            f"target_{score.name}": target,
        }
        matched[f"{condition}/{seed}"] = moment
    return xr.DataTree.from_dict(matched)


def scored_by(study: xr.DataTree) -> Score:
    """Return what a study's networks are scored by, accuracy where nothing says it."""
    scores = {
        "/".join(key): score_of(study["/".join(key)]["training"].attrs)
        for key in networks(study)
        if "training" in study["/".join(key)].children
    }
    different = {score.name: path for path, score in scores.items()}
    if len(different) > 1:
        listed = ", ".join(f"{name} at {path}" for name, path in different.items())
        msg = f"Expected networks scored by one metric, but got {listed}."
        raise ValueError(msg)
    return next(iter(scores.values()), ACCURACY)


def _scores(
    study: xr.DataTree, key: tuple[str, str], run: xr.Dataset, score: Score
) -> xr.DataArray:
    """Return a network's test score at its recorded steps."""
    name = "/".join(key)
    if "step" not in run.dims:
        msg = (
            f"Expected recordings with steps to choose from, but {name} is a single "
            "moment."
        )
        raise ValueError(msg)
    children = study[name].children
    log = children["training"].to_dataset() if "training" in children else xr.Dataset()
    if score.test not in log:
        msg = (
            f"Expected a training record with `{score.test}` beside {name}, but it "
            "has none; add it as the group training, or train with test=."
        )
        raise ValueError(msg)
    steps = np.intersect1d(log["step"].values, run["step"].values)
    record = log[score.test].sel(step=steps).dropna("step").load()
    if not record.size:
        msg = (
            f"Expected a test {score.words} at some recorded step of {name}, but got "
            "none at the same steps."
        )
        raise ValueError(msg)
    return record
