"""Writes the reference: every public name of every room, from `__all__` alone."""

import ast
import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOMS = {
    "repsim": "Recording, comparing, RSA, training and studies",
    "repsim.accessors": "What `.repsim` of a recording, result or study offers",
    "repsim.analyses": "Analyses of a study, one section of its report each",
    "repsim.callbacks": "Recorders for other people's trainers",
    "repsim.claims": "The paper's claims as experiments",
    "repsim.datasets": "Data sets, and activations from elsewhere",
    "repsim.inference": "Is it more than examples, classes, units or seeds do?",
    "repsim.learning": "Learning rules",
    "repsim.learning.schedules": "How segments take turns in a step",
    "repsim.measures": "Measures of similarity and distance",
    "repsim.networks": "Networks",
    "repsim.plot": "Plots",
    "repsim.probes": "Linear probes",
    "repsim.studies": "Studies of recordings, and their reports",
    "repsim.training": "Training several networks at once, and again",
}


def public_names(room: str) -> Iterator[tuple[str, Any]]:
    """Yield the names that a room offers, but not the rooms within it."""
    module = import_module(room)
    for name in sorted(module.__all__, key=str.lower):
        thing = getattr(module, name)
        if not isinstance(thing, ModuleType):
            yield name, thing


def said_of(name: str, thing: Any) -> str:
    """Return the text beneath the assignment of a name that is data, or a type."""
    for key, module in list(sys.modules.items()):
        if not key.startswith("repsim.") or vars(module).get(name) is not thing:
            continue
        lines = ast.parse(inspect.getsource(module)).body
        for line, below in zip(lines, lines[1:], strict=False):
            targets = getattr(line, "targets", [getattr(line, "target", None)])
            if name not in [getattr(target, "id", None) for target in targets]:
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                return inspect.cleandoc(str(below.value.value))
    return ""


def write_reference(folder: Path) -> None:
    """Write one page with a table a room; Sphinx makes a page of each name.

    A name that several rooms offer has its page under the first, to which the others
    lead. What is data, or a type, is told on the page itself.
    """
    lines = ["Reference", "=========", "", "Every public name, by room.", ""]
    pages: dict[int, str] = {}
    for room, words in ROOMS.items():
        entries, elsewhere, data = [], [], []
        for name, thing in public_names(room):
            page = pages.setdefault(id(thing), f"{room}.{name}")
            if not (inspect.isclass(thing) or inspect.isroutine(thing)):
                data += [
                    f".. py:data:: {room}.{name}",
                    "",
                    f"   {said_of(name, thing)}",
                ]
                data.append("")
            elif page == f"{room}.{name}":
                entries.append(f"   ~{page}")
            else:
                elsewhere.append(f":obj:`{name} <{page}>`")
        title = f"``{room}``: {words}".replace("`.repsim`", "``.repsim``")
        lines += [title, "-" * len(title), ""]
        if entries:
            lines += [".. autosummary::", "   :toctree: names", "   :nosignatures:"]
            lines += ["", *entries, ""]
        lines += data
        if elsewhere:
            lines += [f"Also found here: {', '.join(elsewhere)}.", ""]
    folder.mkdir(exist_ok=True)
    text = "\n".join(lines)
    path = folder / "reference.rst"
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
