"""One trained network with everything the claims measure on it, kept as numbers."""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.linear_model import RidgeClassifier

from repsim import learning
from repsim.capture.single import record
from repsim.core.files import write_whole
from repsim.core.provenance import repsim_version
from repsim.core.seeding import derived_seed
from repsim.core.threads import one_thread
from repsim.datasets import load, to_tensors
from repsim.geometry.profiles import class_margin, rdm_distance
from repsim.geometry.stacks import rdms
from repsim.learning.rule import Rule
from repsim.networks import mlp
from repsim.probes import LinearProbe
from repsim.training.loop import train

EXAMPLES = 400
"""Test examples, sorted by label, on which geometry is measured (as in the paper)."""

PROBED = (1500, 1000)
"""At most so many training examples to fit a probe, and test examples to score it."""


@dataclass(frozen=True)
class Cell:
    """What one network is trained as."""

    label: str
    rule: str
    options: str
    lr: float
    seed: int
    init: str
    dataset: str
    depth: int
    width: int
    activation: str
    steps: int
    batch_size: int
    look: bool = True

    @property
    def key(self) -> str:
        """A name for the file that holds the numbers."""
        text = json.dumps([asdict(self), repsim_version()], sort_keys=True)
        return f"{self.label}-{self.seed}-{sha256(text.encode()).hexdigest()[:12]}"


def measure(cell: Cell, root: str | None, folder: Path) -> dict[str, Any]:
    """Return the numbers of a cell, trained now unless they are already kept."""
    path = folder / f"{cell.key}.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found
    with one_thread():
        result, activations = _train(cell, root)
    if activations is not None:
        np.savez(folder / f"{cell.key}.npz", allow_pickle=False, **activations)
    write(path, json.dumps(result))
    return result


def write(path: Path, text: str) -> None:
    """Write a file, and its folder, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def recording(cell: Cell, folder: Path) -> xr.Dataset:
    """Return the activations of a measured cell as a recording of one moment."""
    with np.load(folder / f"{cell.key}.npz") as kept:
        arrays = dict(kept)
    coords = {"example": arrays.pop("example")}
    coords["label"] = ("example", arrays.pop("label"))
    return xr.Dataset(
        {name: (("example", f"{name}_unit"), value) for name, value in arrays.items()},
        coords=coords,
        attrs={"layers": list(arrays), "condition": cell.label, "seed": cell.seed},
    )


@lru_cache(maxsize=4)
def data(dataset: str, split: str, root: str | None) -> xr.Dataset:
    """Return a data set, read once a process."""
    return load(dataset, split, root=root)


def sorted_examples(test: xr.Dataset, count: int = EXAMPLES) -> xr.Dataset:
    """Return as many test examples of every class as fit in `count`, by label."""
    label = test["label"].values
    classes = np.unique(label)
    each = min(count // len(classes), int(np.bincount(label)[classes].min()))
    chosen = np.concatenate([np.flatnonzero(label == c)[:each] for c in classes])
    return test.isel(example=chosen)


def build(cell: Cell, features: int, classes: int) -> Rule:
    """Return the rule on a fresh network of the cell's initial weights."""
    net = mlp(
        features,
        [cell.width] * cell.depth,
        classes,
        activation=cell.activation,
        batch_norm="after",
        seed=derived_seed("init", cell.init, cell.seed),
    )
    options = json.loads(cell.options)
    seed = derived_seed("run", cell.label, cell.seed)
    return learning.make(cell.rule, net, lr=cell.lr, seed=seed, **options)


def _train(
    cell: Cell, root: str | None
) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    source, test = (data(cell.dataset, split, root) for split in ("train", "test"))
    x, y = to_tensors(source.isel(example=slice(1)), "flat")
    rule = build(cell, x.shape[1], len(source.attrs["classes"]))
    result: dict[str, Any] = {"cell": asdict(cell)}
    if cell.steps:
        try:
            log = train(
                rule,
                source,
                steps=cell.steps,
                batch_size=cell.batch_size,
                seed=derived_seed("run", cell.label, cell.seed),
                test=test.isel(example=slice(2000)),
                eval_every=max(cell.steps // 20, 1),
                progress=False,
            )
        except ValueError as error:
            if "finite" not in str(error):
                raise
            return result | {"diverged": str(error)}, None
        result |= _curve(log)
    if not cell.look:
        return result, None
    return _look(rule, source, test, result)


def _curve(log: xr.Dataset) -> dict[str, Any]:
    kept = ("step", "loss", "accuracy", "test_accuracy")
    curve: dict[str, Any] = {name: log[name].values.tolist() for name in kept}
    last = log.isel(step=-1)
    hidden = [name for name in last["layer"].values if str(name) != "output"]
    for name in ("displacement", "weight_norm"):
        curve[name] = last[name].sel(layer=hidden).values.tolist()
    return curve


def _look(
    rule: Rule, source: xr.Dataset, test: xr.Dataset, result: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    chosen = sorted_examples(test)
    x, y = to_tensors(chosen, "flat")
    run = _record(rule, chosen)
    layers = list(rule.hidden)
    stack = rdms(run, layers=layers)
    result["margin"] = class_margin(stack).values.tolist()
    result["distance"] = rdm_distance(stack).values.tolist()
    apart = rdm_distance(stack, metric="correlation")
    result["distance_correlation"] = apart.values.tolist()
    result["cosine"] = _cosines(rule, x, y)
    result |= _probes(rule, source, test)
    result["splits"] = [layers.index(name) + 1 for name in rule.splits]
    activations = {name: run[name].values.astype(np.float32) for name in layers}
    activations |= {"example": run["example"].values, "label": run["label"].values}
    return result, activations


def _record(rule: Rule, chosen: xr.Dataset) -> xr.Dataset:
    x, y = to_tensors(chosen, "flat")
    return record(
        rule.network,
        x,
        layers=list(rule.hidden),
        labels=y.numpy(),
        examples=chosen["example"].values,
    )


def _cosines(rule: Rule, x: torch.Tensor, y: torch.Tensor) -> list[float]:
    """Return the pooled cosine of used and true error at every hidden layer."""
    found = []
    for name, (used, true) in rule.errors(x, y).items():
        if name in rule.hidden:
            size = used.norm() * true.norm()
            found.append(float((used * true).sum() / size) if size > 0 else 0.0)
    return found


def _probes(rule: Rule, source: xr.Dataset, test: xr.Dataset) -> dict[str, list[float]]:
    """Return accuracies of linear probes, logistic and regression, by hidden layer."""
    fit = _record(rule, source.isel(example=slice(PROBED[0])))
    score = _record(rule, test.isel(example=slice(PROBED[1])))
    found: dict[str, list[float]] = {"probe": [], "probe_train": [], "regression": []}
    for name in rule.hidden:
        known = fit[name].values, fit["label"].values
        unseen = score[name].values, score["label"].values
        logistic = LinearProbe().fit(*known)
        found["probe"].append(float(logistic.score(*unseen)))
        found["probe_train"].append(float(logistic.score(*known)))
        regression = RidgeClassifier().fit(known[0].astype(np.float64), known[1])
        found["regression"].append(float(regression.score(*unseen)))
    return found
