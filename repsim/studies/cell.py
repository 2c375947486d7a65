"""One cell of a study: one condition, one seed, from data to a stored recording."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
import zarr

from repsim import learning
from repsim.capture.recorder import Recorder
from repsim.capture.rows import Reduce
from repsim.core.devices import device_named
from repsim.core.seeding import derived_seed
from repsim.core.threads import one_thread
from repsim.datasets.results import storable
from repsim.datasets.store import remove_recording
from repsim.datasets.store.elsewhere import for_zarr, reaching
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Diverged
from repsim.networks.feedforward import BatchNorm
from repsim.studies.completeness import TRAINING
from repsim.studies.conditions import Condition
from repsim.studies.materials import (
    build_network,
    classes_of,
    is_regression,
    load,
    loss_of,
    metric_of,
    tensors,
)
from repsim.studies.plugins import import_modules
from repsim.studies.spec import Spec
from repsim.training.loop import Callback, train

MEASURED = "measured"

Finish = Callable[[Rule, xr.Dataset, xr.Dataset, xr.Dataset], xr.Dataset]
"""Rule, recording, training and test data -> what else is measured on a network."""


Prepared = Callable[[Rule], Sequence[Callback]]
"""Rule before its first step -> further callbacks of its training."""


def build(
    spec: Spec,
    condition: Condition,
    init_seed: int,
    run_seed: int,
    lr: float,
    shape: tuple[int, ...],
    classes: int,
    batch_norm: BatchNorm = True,
) -> Any:
    """Return the rule of one cell with its freshly initialised network."""
    network = build_network(spec, shape, classes, init_seed, batch_norm)
    network = network.to(device_named(spec.device))
    options = {"lr": lr, "seed": run_seed, **dict(condition.options)}
    loss, _ = loss_of(spec, load(spec)[0])
    if loss != "cross_entropy":  # every rule's own default
        options.setdefault("loss", loss)
    try:
        return learning.make(condition.rule, network, **options)
    except TypeError as error:
        msg = (
            f"Expected options that rule {condition.rule!r} takes, but got "
            f"{condition.text!r}: {error}"
        )
        raise ValueError(msg) from error


def recorded(test: xr.Dataset, examples: int) -> xr.Dataset:
    """Return the examples to record, sorted by label, classes as equal as can be."""
    return test.isel(example=positions(test, examples))


def positions(test: xr.Dataset, examples: int) -> np.ndarray:
    """Return where in the test data the examples lie that are recorded, in order.

    Of numbers to predict, those evenly spaced in the order of the first one.
    """
    label = test["label"].values
    if label.dtype.kind == "f":
        order = np.argsort(label.reshape(len(label), -1)[:, 0], kind="stable")
        count = min(examples, len(order))
        return np.asarray(order[np.arange(count) * len(order) // count])
    rank = np.empty(label.size, dtype=int)
    for value in np.unique(label):
        of_class = np.flatnonzero(label == value)
        rank[of_class] = np.arange(of_class.size)
    first = np.lexsort((label, rank))[:examples]
    return np.asarray(first[np.lexsort((first, label[first]))])


@one_thread()
def train_cell(
    spec: Spec,
    condition: Condition,
    seed: int,
    lr: float,
    store: Path,
    tell: Path | None = None,
    *,
    batch_norm: BatchNorm = True,
    evaluate: Sequence[int] | None = None,
    prepared: Prepared | None = None,
    finish: Finish | None = None,
) -> tuple[str, int]:
    """Train one network, record it, and leave both records in the study's store.

    `evaluate` are the steps of a training record without error diagnostics (None: one
    with them, at the steps recorded); `prepared` sets up the rule; `finish` measures
    the trained network further, as a group of its own beside the recording.
    """
    import_modules(spec.plugins)
    began = time.perf_counter()
    data, test = load(spec)
    x, y = tensors(spec, data)
    init_seed, run_seed = condition.init_seed(seed), condition.run_seed(seed)
    classes = classes_of(data)
    rule = build(
        spec, condition, init_seed, run_seed, lr, x.shape[1:], classes, batch_norm
    )
    kept = recorded(test, spec.examples)
    inputs, _ = tensors(spec, kept)
    label = kept["label"].values
    regression = is_regression(spec, data)
    group = f"{condition.label}/{seed}"
    remove_recording(store, group)
    with Recorder(
        rule.network,
        inputs,
        steps=spec.record,
        reduce=cast(Reduce, spec.reduce),
        labels=label if label.ndim == 1 else None,
        examples=kept["example"].values,
        store=store,
        group=group,
        attrs={
            "condition": condition.label,
            "rule": condition.rule,
            "rule_words": getattr(getattr(rule, "info", None), "method", ""),
            "rule_options": json.dumps(rule.options, sort_keys=True, default=str),
            "seed": seed,
            "init_seed": init_seed,
            "dataset": spec.dataset,
            "network": f"{spec.network} {spec.depth} x {spec.width} {spec.activation}",
            "splits": list(rule.splits),
            **({"task": "regression"} if regression else {}),
        },
    ) as recorder:
        log = train(
            rule,
            (x, y),
            steps=spec.steps,
            batch_size=spec.batch_size,
            seed=run_seed,
            test=tensors(spec, test),
            eval_every=spec.record if evaluate is None else evaluate,
            diagnostics=evaluate is None,
            metric=metric_of(spec, data),
            progress=False,
            callbacks=[
                recorder,
                *(prepared(rule) if prepared else ()),
                *([_teller(tell)] if tell else []),
            ],
        )
    if recorder.failure is not None:  # of a study the recording is the point
        raise recorder.failure
    if finish is not None:
        measured = finish(rule, recorder.dataset(), data, test)
        _keep(measured, store, f"{group}/{MEASURED}")
    log.attrs["wall_s"] = round(time.perf_counter() - began, 2)
    _keep(log, store, f"{group}/{TRAINING}")
    with reaching(store):
        record = zarr.open_group(for_zarr(store), mode="r+", path=f"{group}/{TRAINING}")
        record.attrs["complete"] = 1
    return condition.label, seed


def _keep(record: xr.Dataset, store: Path, group: str) -> None:
    with reaching(store):
        storable(record).to_zarr(
            for_zarr(store), group=group, mode="w", consolidated=False, zarr_format=3
        )


@one_thread()
def tune_cell(
    spec: Spec, condition: Condition, lr: float, number: int, tell: Path | None = None
) -> dict[str, float]:
    """Train one network with one learning rate and score it on held-out training data.

    Every fifth training example is held out; the test set is not looked at. The seeds
    follow from the study's first one, and are none of those of its networks.
    """
    import_modules(spec.plugins)
    data, _ = load(spec)
    held = np.arange(data.sizes["example"]) % 5 == 0
    fit, score = data.isel(example=~held), data.isel(example=held)
    first = spec.seeds[0]
    init_seed = derived_seed(f"tune-init {first}", condition.key, number)
    run_seed = derived_seed(f"tune-run {first}", condition.key, number)
    classes = classes_of(data)
    x, y = tensors(spec, score)
    metric = metric_of(spec, data)
    rule = build(spec, condition, init_seed, run_seed, lr, x.shape[1:], classes)
    try:
        train(
            rule,
            tensors(spec, fit),
            steps=spec.steps,
            batch_size=spec.batch_size,
            seed=run_seed,
            eval_every=[spec.steps],
            progress=False,
            callbacks=[_teller(tell)] if tell else [],
        )
    except Diverged:
        return {"loss": float("nan"), metric.name: float("nan")}
    device = next(rule.network.parameters()).device
    with torch.no_grad():
        output = rule.network.eval()(x.to(device)).cpu().double()
    y = y.double() if y.is_floating_point() else y
    return {
        "loss": float(loss_of(spec, data)[1](output, y)),
        metric.name: metric(output, y),
    }


def _teller(path: Path) -> Callable[[int, Any], None]:
    """Return a callback that writes the number of updates, a few times a second."""
    last = 0.0

    def tell(step: int, losses: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.2:
            path.write_text(str(step))
            last = now

    return tell
