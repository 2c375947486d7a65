"""What a study trains on what: networks and data by name, by import or as they are."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from math import prod
from typing import Any

import torch
import xarray as xr
from torch import nn

from repsim import datasets, networks
from repsim.datasets.inputs.loading import own_loader, own_names
from repsim.networks.feedforward import BatchNorm
from repsim.studies.plugins import import_modules
from repsim.studies.spec import Spec

Pair = tuple[xr.Dataset, xr.Dataset]
_READ: dict[tuple[str, str | None], Pair] = {}


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
    key = (spec.dataset, spec.root)
    if key not in _READ:
        _READ.clear()  # one study's data at a time
        _READ[key] = loader("train", spec.root), loader("test", spec.root)
    return _READ[key]


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


def layout_of(spec: Spec, data: xr.Dataset) -> str:
    """Return how inputs lie: pixels in a row for `mlp`, images as such elsewhere."""
    return "image" if "image" in data and spec.network != "mlp" else "flat"


def tensors(spec: Spec, data: xr.Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs as the study's network wants them, and labels."""
    return datasets.to_tensors(data, layout_of(spec, data))


def classes_of(data: xr.Dataset) -> int:
    """Return the number of classes, counted where the data do not say it."""
    listed = data.attrs.get("classes")
    return len(listed) if listed is not None else int(data["label"].max()) + 1


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
