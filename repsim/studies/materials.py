"""What a study trains on what: networks and data by name, by import or as they are."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from math import prod
from typing import Any

import joblib
import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from repsim import datasets, networks
from repsim.datasets.inputs.loading import own_loader, own_names
from repsim.learning.losses import LossFunction
from repsim.learning.losses import resolve as resolve_loss
from repsim.networks.feedforward import BatchNorm
from repsim.studies.plugins import import_modules
from repsim.studies.spec import Spec
from repsim.training.metrics import Metric
from repsim.training.metrics import resolve as resolve_metric

Pair = tuple[xr.Dataset, xr.Dataset]
_READ: dict[tuple[str, str | None, str | None], Pair] = {}


def imported(text: str, what: str) -> Any:
    """Return the object that ``module:function`` names, also of the working folder."""
    module, _, name = text.partition(":")
    try:
        import_modules([module])
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = f"Expected `{what}` as module:function, but got {text!r}: {error}"
        raise ValueError(msg) from error


def network_factory(spec: Spec) -> Callable[..., nn.Module]:
    """Return f(shape, classes, *, depth, width, activation, seed) -> Module."""
    given = spec.objects.get("network")
    if given is not None:
        return given  # type: ignore[no-any-return]
    if ":" in spec.network:
        return imported(spec.network, "network")  # type: ignore[no-any-return]
    return networks.get(spec.network)


def load(spec: Spec) -> Pair:
    """Return training and test data, read once a process."""
    given = spec.objects.get("dataset")
    if isinstance(given, tuple):
        return given
    if given is None and ":" in spec.dataset:
        given = imported(spec.dataset, "dataset")
    return _loaded(given or partial(datasets.load, spec.dataset), spec)


def _loaded(loader: Callable[..., xr.Dataset], spec: Spec) -> Pair:
    key = (spec.dataset, spec.root, spec.data)
    if key not in _READ:
        forget()  # one study's data at a time
        _READ[key] = loader("train", spec.root), loader("test", spec.root)
    return _READ[key]


def forget() -> None:
    """Forget what was read: a name may stand for other data than before."""
    _READ.clear()


def marked(spec: Spec) -> Spec:
    """Return the study with a hash of its data, where a user's code makes them.

    The same name stands for other data once the code is mended, and what was trained
    on the old ones is not what is asked for.
    """
    import_modules(spec.plugins)
    ships = spec.dataset in datasets.names() and spec.dataset not in own_names()
    if ships and "dataset" not in spec.objects:
        return spec
    forget()
    pair = load(spec)
    check_data(pair)
    held = [
        {str(name): (v.dims, v.values) for name, v in data.variables.items()}
        for data in pair
    ]
    spec = replace(spec, data=joblib.hash(held))
    _READ[spec.dataset, spec.root, spec.data] = pair
    return spec


def carried(spec: Spec) -> Spec:
    """Return the study with what only this process has registered.

    Workers are other processes: they know what ships and what plugins register, but
    not what a notebook did.
    """
    objects = dict(spec.objects)
    if "network" not in objects and spec.network in networks.names():
        factory = networks.get(spec.network)
        if not factory.__module__.startswith("repsim."):
            objects["network"] = factory
    if "dataset" not in objects and spec.dataset in own_names():
        objects["dataset"] = own_loader(spec.dataset)
    return replace(spec, objects=objects)


def check_data(pair: Pair) -> None:
    """Refuse data that no study can use."""
    for data, split in zip(pair, ("train", "test"), strict=True):
        if not isinstance(data, xr.Dataset) or "label" not in data:
            held = sorted(map(str, data)) if isinstance(data, xr.Dataset) else None
            got = type(data).__name__ if held is None else held
            msg = (
                f"Expected the {split} data to be a Dataset with `image` or `features` "
                f"and `label`, but got {got}."
            )
            raise ValueError(msg)
        label = data["label"].values
        if label.dtype.kind == "f" and not np.isfinite(label).all():
            msg = (
                f"Expected the numbers to predict of the {split} data to be finite, "
                "but got NaN or inf; leave those examples out."
            )
            raise ValueError(msg)


def layout_of(spec: Spec, data: xr.Dataset) -> str:
    """Return how inputs lie: pixels in a row for `mlp`, images as such elsewhere."""
    return "image" if "image" in data and spec.network != "mlp" else "flat"


def tensors(spec: Spec, data: xr.Dataset) -> tuple[Tensor, Tensor]:
    """Return inputs as the study's network wants them, and labels.

    Numbers to predict are standardised by the training data's mean and deviation: a
    network begins near 0, and one grid of rates must fit targets of any unit.
    """
    x, y = datasets.to_tensors(data, layout_of(spec, data))
    if (units := units_of(spec)) is not None:
        shift, scale = units
        y = (y - shift) / scale
    return x, y


def units_of(spec: Spec) -> tuple[Tensor, Tensor] | None:
    """Return mean and deviation of the numbers to predict; None for classes."""
    data = load(spec)[0]
    if not is_regression(spec, data):
        return None
    label = data["label"].values.astype(np.float64).reshape(data.sizes["example"], -1)
    scale = np.where(label.std(0) > 0, label.std(0), 1.0)
    shift = torch.from_numpy(label.mean(0).astype(np.float32))
    return shift, torch.from_numpy(scale.astype(np.float32))


def is_regression(spec: Spec, data: xr.Dataset) -> bool:
    """Return whether the labels are numbers to predict, no classes.

    Floating-point labels under cross-entropy are probabilities of classes.
    """
    return bool(data["label"].dtype.kind == "f") and spec.loss != "cross_entropy"


def loss_of(spec: Spec, data: xr.Dataset) -> tuple[str | LossFunction, LossFunction]:
    """Return the loss as a rule takes it, and as a mean over examples."""
    given = spec.objects.get("loss")
    if given is None and spec.loss is None:
        given = "mse" if is_regression(spec, data) else "cross_entropy"
    if given is None and spec.loss is not None:
        given = imported(spec.loss, "loss") if ":" in spec.loss else spec.loss
    assert given is not None
    return given, resolve_loss(given)[1]


def metric_of(spec: Spec, data: xr.Dataset) -> Metric:
    """Return what networks are scored by: asked for, told by the data, or usual."""
    given = spec.objects.get("metric") or spec.metric or data.attrs.get("metric")
    if isinstance(given, str) and ":" in given:
        given = imported(given, "metric")
    some = torch.zeros(1, 1)
    if data["label"].dtype.kind != "f":
        some = some.long()
    loss = "mse" if is_regression(spec, data) else "cross_entropy"
    metric = resolve_metric(given, some, loss)
    units = units_of(spec)
    return metric if units is None else metric.in_units(*units)


def classes_of(data: xr.Dataset) -> int:
    """Return the number of classes, counted where the data do not say it.

    Of numbers to predict it is how many there are of each example.
    """
    label = data["label"]
    if label.dtype.kind == "f":
        return int(np.prod(label.shape[1:]))
    listed = data.attrs.get("classes")
    return len(listed) if listed is not None else int(label.max()) + 1


def build_network(
    spec: Spec,
    shape: tuple[int, ...],
    classes: int,
    seed: int,
    batch_norm: BatchNorm = True,
) -> nn.Module:
    """Return a freshly initialised network of the study.

    Where batch normalisation goes is a question to `mlp` alone.
    """
    if spec.network == "mlp":
        widths = [spec.width] * spec.depth
        return networks.mlp(
            prod(shape), widths, classes, spec.activation, batch_norm, seed=seed
        )
    factory = network_factory(spec)
    options = {"depth": spec.depth, "width": spec.width, "activation": spec.activation}
    try:
        network = factory(shape, classes, **options, seed=seed)
    except TypeError as error:
        msg = (
            "Expected `network` to be a function f(shape, classes, *, depth, width, "
            f"activation, seed), but {spec.network!r} refuses that: {error}"
        )
        raise ValueError(msg) from error
    if not isinstance(network, nn.Module) or not list(network.named_children()):
        msg = (
            "Expected `network` to return a Module of named blocks, but "
            f"{spec.network!r} gave {type(network).__name__}."
        )
        raise ValueError(msg)
    return network
