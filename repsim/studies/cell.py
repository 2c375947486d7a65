"""One cell of a study: one condition, one seed, from data to a stored recording."""

import json
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr

from repsim import datasets, learning, networks
from repsim.capture.recorder import Recorder
from repsim.core.devices import device_named
from repsim.core.threads import one_thread
from repsim.datasets.results import storable
from repsim.datasets.store import is_complete as store_complete
from repsim.datasets.store import remove_recording
from repsim.learning.rule import Rule
from repsim.networks.feedforward import BatchNorm
from repsim.studies.conditions import Condition, derived_seed
from repsim.studies.plugins import import_modules
from repsim.studies.spec import Spec
from repsim.training.loop import train

TRAINING, MEASURED = "training", "measured"

Finish = Callable[[Rule, xr.Dataset, xr.Dataset, xr.Dataset], xr.Dataset]
"""Rule, recording, training and test data -> what else is measured on a network."""


def build(
    spec: Spec,
    condition: Condition,
    init_seed: int,
    run_seed: int,
    lr: float,
    features: int,
    classes: int,
    batch_norm: BatchNorm = True,
) -> Any:
    """Return the rule of one cell with its freshly initialised network."""
    network = networks.mlp(
        features,
        hidden=[spec.width] * spec.depth,
        classes=classes,
        activation=spec.activation,
        batch_norm=batch_norm,
        seed=init_seed,
    ).to(device_named(spec.device))
    options = {"lr": lr, "seed": run_seed, **dict(condition.options)}
    try:
        return learning.make(condition.rule, network, **options)
    except TypeError as error:
        msg = (
            f"Expected options that rule {condition.rule!r} takes, but got "
            f"{condition.text!r}: {error}"
        )
        raise ValueError(msg) from error


def load(spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
    """Return training and test data, read once a process."""
    return _loaded(spec.dataset, spec.root)


@cache
def _loaded(dataset: str, root: str | None) -> tuple[xr.Dataset, xr.Dataset]:
    return (
        datasets.load(dataset, split="train", root=root),
        datasets.load(dataset, split="test", root=root),
    )


def recorded(test: xr.Dataset, examples: int) -> xr.Dataset:
    """Return the examples to record, sorted by label, classes as equal as can be."""
    label = test["label"].values
    rank = np.empty(label.size, dtype=int)
    for value in np.unique(label):
        of_class = np.flatnonzero(label == value)
        rank[of_class] = np.arange(of_class.size)
    first = np.lexsort((label, rank))[:examples]
    return test.isel(example=first[np.lexsort((first, label[first]))])


def flat(data: xr.Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs (example, feature) and labels as tensors."""
    return datasets.to_tensors(data, "flat")


def is_complete(store: Path, condition: str, seed: int) -> bool:
    """Return whether a cell's recording and training record are both whole."""
    group = f"{condition}/{seed}"
    return store_complete(store, group) and store_complete(store, f"{group}/{TRAINING}")


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
    finish: Finish | None = None,
) -> tuple[str, int]:
    """Train one network, record it, and leave both records in the study's store.

    `evaluate` are the steps of a training record without error diagnostics (None: one
    with them, at the steps recorded); `finish` measures the trained network further, as
    a group of its own beside the recording.
    """
    import_modules(spec.plugins)
    began = time.perf_counter()
    data, test = load(spec)
    x, y = flat(data)
    init_seed, run_seed = condition.init_seed(seed), condition.run_seed(seed)
    classes = len(data.attrs["classes"])
    rule = build(
        spec, condition, init_seed, run_seed, lr, x.shape[1], classes, batch_norm
    )
    kept = recorded(test, spec.examples)
    inputs, labels = flat(kept)
    group = f"{condition.label}/{seed}"
    remove_recording(store, group)
    with Recorder(
        rule.network,
        inputs,
        steps=spec.record,
        labels=labels.numpy(),
        examples=kept["example"].values,
        store=store,
        group=group,
        attrs={
            "condition": condition.label,
            "rule": condition.rule,
            "rule_options": json.dumps(rule.options, sort_keys=True, default=str),
            "seed": seed,
            "init_seed": init_seed,
            "dataset": spec.dataset,
            "network": f"mlp {spec.depth} x {spec.width} {spec.activation}",
            "splits": list(rule.splits),
        },
    ) as recorder:
        log = train(
            rule,
            data,
            steps=spec.steps,
            batch_size=spec.batch_size,
            seed=run_seed,
            test=test,
            eval_every=spec.record if evaluate is None else evaluate,
            diagnostics=evaluate is None,
            progress=False,
            callbacks=[recorder, *([_teller(tell)] if tell else [])],
        )
    if finish is not None:
        measured = finish(rule, recorder.dataset(), data, test)
        _keep(measured, store, f"{group}/{MEASURED}")
    log.attrs["wall_s"] = round(time.perf_counter() - began, 2)
    _keep(log, store, f"{group}/{TRAINING}")
    zarr.open_group(store, mode="r+", path=f"{group}/{TRAINING}").attrs["complete"] = 1
    return condition.label, seed


def _keep(record: xr.Dataset, store: Path, group: str) -> None:
    storable(record).to_zarr(
        store, group=group, mode="w", consolidated=False, zarr_format=3
    )


@one_thread()
def tune_cell(
    spec: Spec, condition: Condition, lr: float, tell: Path | None = None
) -> dict[str, float]:
    """Train one network with one learning rate and score it on held-out training data.

    Every fifth training example is held out; the test set is not looked at.
    """
    import_modules(spec.plugins)
    data, _ = load(spec)
    held = np.arange(data.sizes["example"]) % 5 == 0
    fit, score = data.isel(example=~held), data.isel(example=held)
    init_seed = derived_seed("tune-init", condition.label, 0)
    run_seed = derived_seed("tune-run", condition.label, 0)
    classes = len(data.attrs["classes"])
    x, y = flat(score)
    rule = build(spec, condition, init_seed, run_seed, lr, x.shape[1], classes)
    nothing = float("nan")
    try:
        train(
            rule,
            fit,
            steps=spec.steps,
            batch_size=spec.batch_size,
            seed=run_seed,
            eval_every=[spec.steps],
            progress=False,
            callbacks=[_teller(tell)] if tell else [],
        )
    except ValueError as error:
        if "nan" not in str(error).lower() and "finite" not in str(error).lower():
            raise
        return {"lr": lr, "loss": nothing, "accuracy": nothing}
    device = next(rule.network.parameters()).device
    with torch.no_grad():
        output = rule.network.eval()(x.to(device)).cpu().double()
    return {
        "lr": lr,
        "loss": float(torch.nn.functional.cross_entropy(output, y)),
        "accuracy": float((output.argmax(1) == y).double().mean()),
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
