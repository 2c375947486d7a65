"""The site's reference: every public name of every room, each with an example."""

import doctest
import importlib.util
import inspect
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

import repsim

PATH = Path(__file__).parents[1] / "docs" / "reference.py"
pytestmark = pytest.mark.skipif(not PATH.exists(), reason="runs beside docs/")


@pytest.fixture(scope="module")
def reference() -> Any:
    spec = importlib.util.spec_from_file_location("reference", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_room_with_public_names_is_in_it(reference: Any) -> None:
    inside = [f"repsim.{m.name}" for m in iter_modules(repsim.__path__)]
    rooms = {"repsim", "repsim.datasets", "repsim.probes", *inside}
    public = {
        room for room in rooms if getattr(import_module(room), "__all__", None)
    } - {"repsim.cli"}  # commands, which the README lists
    assert public <= set(reference.ROOMS)
    assert {
        f"repsim.{name}"
        for name in repsim.__all__
        if inspect.ismodule(getattr(repsim, name))
    } <= public


def test_every_name_is_on_the_page_once(reference: Any, tmp_path: Path) -> None:
    reference.write_reference(tmp_path)
    text = (tmp_path / "reference.rst").read_text()
    for room in reference.ROOMS:
        for name, _ in reference.public_names(room):
            own = text.count(f"~{room}.{name}\n") + text.count(f":: {room}.{name}\n")
            assert own or f":obj:`{name} <" in text, f"{room}.{name}"
            assert own <= 1


def test_every_name_one_can_call_has_an_example(reference: Any) -> None:
    without = [
        f"{room}.{name}"
        for room in reference.ROOMS
        for name, thing in reference.public_names(room)
        if (inspect.isclass(thing) or inspect.isroutine(thing))
        and str(getattr(thing, "__module__", "")).startswith("repsim")
        and not doctest.DocTestParser().get_examples(inspect.getdoc(thing) or "")
    ]
    assert without == []


def test_names_that_are_data_say_what_they_are(reference: Any, tmp_path: Path) -> None:
    reference.write_reference(tmp_path)
    text = (tmp_path / "reference.rst").read_text()
    told = text.split(".. py:data:: ")[1:]
    assert [one.split("\n")[0].rpartition(".")[2] for one in told] == [
        "INVARIANCES", "ACTIVATIONS", "BatchNorm", "NetworkFactory"
    ]  # fmt: skip
    assert all(one.split("\n")[2].strip().endswith(".") for one in told)
    assert ".. py:data:: repsim.networks.ACTIVATIONS\n\n   Names that" in text
