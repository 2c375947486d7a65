"""The public names: what others call, with the parameters they call it with."""

import inspect
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from typing import Any

import pytest

import repsim

# name: (positional parameters, keyword parameters with defaults)
NAMES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "tap": (["model"], {}),
    "record": (
        ["model", "batches"],
        {
            "layers": "*", "labels": None, "examples": None, "store": None,
            "group": None, "reduce": None, "forward": None, "step": None,
        },
    ),
    "Recorder": (
        ["model", "inputs"],
        {
            "layers": "*", "labels": None, "examples": None, "every": 100,
            "steps": None, "last": False, "store": None, "group": None,
            "resume": False, "start": None, "reduce": None, "forward": None,
            "batch_size": 256, "errors": None, "attrs": None,
        },
    ),
    "open_recording": (["path"], {"chunks": None}),
    "open_study": (["path"], {"chunks": None}),
    "save_recording": (["run", "path"], {}),
    "layers": (["run"], {}),
    "cka": (["x", "y"], {"kernel": "linear", "debiased": True, "bandwidth": 1.0}),
    "hsic": (["x", "y"], {"kernel": "linear", "debiased": True, "bandwidth": 1.0}),
    "cca": (["x", "y"], {}),
    "svcca": (["x", "y"], {"variance": 0.99}),
    "pwcca": (["x", "y"], {}),
    "procrustes_distance": (["x", "y"], {}),
    "mutual_knn": (["x", "y"], {"k": 10, "metric": "cosine"}),
    "rdm": (["x"], {"metric": "correlation"}),
    "compare_rdms": (["a", "b"], {"method": "spearman"}),
    "rsa": (["x", "y"], {"metric": "correlation", "method": "spearman"}),
    "crossnobis": (["folds"], {"noise": None}),
    "compare": (
        ["a", "b", "measure"],
        {
            "b": None, "measure": "cka", "layers": None, "layers_b": None,
            "precision": None, "device": "auto", "progress": False,
        },
    ),
    "rdms": (["run"], {"metric": "correlation", "layers": None, "precision": None}),
    "squareform": (["rdms"], {}),
    "StreamingCKA": (["debiased"], {"debiased": True}),
    "train": (
        ["rule", "data"],
        {
            "steps": 1000, "batch_size": 128, "seed": 0, "test": None,
            "eval_every": None, "progress": True,
        },
    ),
    "probes.probe_layers": (
        ["run", "target"],
        {
            "target": "label", "estimator": None, "test_size": 0.25,
            "control": None, "seed": 0,
        },
    ),
    "probes.codelength_layers": (
        ["run", "target"],
        {"target": "label", "estimator": None, "seed": 0},
    ),
    "networks.mlp": ([], {"activation": "relu", "batch_norm": True}),
    "learning.make": (["name", "network"], {}),
    "datasets.load": (["name"], {"split": "train", "root": None, "limit": None}),
    "run_study": (["conditions", "dataset", "seeds", "out"], {}),
    "inference.confidence": (
        ["a", "b", "measure"], {"measure": "cka", "level": 0.95, "seed": 0},
    ),
    "inference.seed_test": (
        ["study", "rule_a", "rule_b", "measure"], {"measure": "cka", "step": None},
    ),
    "measures.register": (
        ["name", "function"],
        {"symmetric": True, "bounds": None, "invariances": ()},
    ),
    "plot.heatmap": (["matrix"], {"ax": None}),
    "plot.layer_curve": ([], {"ax": None}),
    "plot.mds": ([], {"ax": None}),
    "plot.dynamics": ([], {"ax": None}),
}  # fmt: skip


def _find(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = reduce(getattr, name.split("."), repsim)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_defaults(name: str) -> None:
    positional, defaults = NAMES[name]
    parameters = inspect.signature(_find(name)).parameters
    in_order = [
        p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert in_order[: len(positional)] == positional
    assert {key: parameters[key].default for key in defaults} == defaults


@pytest.mark.parametrize(
    "name",
    [
        "reduce", "callbacks.LightningRecorder", "callbacks.TransformersRecorder",
        "measures.names", "measures.get", "probes.LinearProbe", "learning.names",
        "learning.register", "datasets.names", "datasets.to_tensors", "plot.rdm_grid",
        "inference.permutation_test", "StreamingCKA.update", "StreamingCKA.merge",
        "StreamingCKA.compute", "Recorder.dataset", "Recorder.snapshot",
        "Recorder.step",
    ],
)  # fmt: skip
def test_it_exists(name: str) -> None:
    assert callable(_find(name))


ROOMS = {
    "analyses", "callbacks", "claims", "datasets", "inference", "learning", "measures",
    "networks", "plot", "probes", "studies", "training",
}  # fmt: skip


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_offers_its_interface_alone(room: str) -> None:
    """Completion in a notebook shows what is meant, no modules and no imports."""
    module = import_module(f"repsim.{room}")
    offered = dir(module)
    assert offered == sorted(module.__all__)
    inner = [n for n in offered if inspect.ismodule(getattr(module, n))]
    assert inner == (["schedules"] if room == "learning" else [])
    for thing in (getattr(module, n) for n in offered):
        if inspect.isroutine(thing) or inspect.isclass(thing):
            assert thing.__module__.startswith("repsim")


def test_the_package_offers_rooms_and_names() -> None:
    offered = dir(repsim)
    assert offered == sorted(repsim.__all__)
    inner = {n for n in offered if inspect.ismodule(getattr(repsim, n))}
    assert inner <= ROOMS
    assert {"Recorder", "compare", "run_study"} <= set(offered)


def test_the_registered_names() -> None:
    assert {
        "hsic", "cka", "cca", "svcca", "pwcca", "procrustes_distance", "mutual_knn",
        "rsa",
    } <= set(repsim.measures.names())  # fmt: skip
    assert {
        "bp", "sg", "dni", "fa", "dfa", "kickback", "noise", "local", "signsym",
        "kolen_pollack", "drtp", "dtp", "pepita", "forward_forward",
        "predictive_coding", "equilibrium", "none",
    } <= set(repsim.learning.names())  # fmt: skip
    measure = repsim.measures.get("cka")
    assert measure.larger_is_more_similar
    assert measure.symmetric
    assert measure.bounds == (-1, 1)
    assert measure.invariances
