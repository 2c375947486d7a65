"""Writes the reference: every public name of every room, from `__all__` alone."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOMS = {
    "repsim": "Recording, comparing, RSA, training and studies",
    "repsim.callbacks": "Recorders for other people's trainers",
    "repsim.datasets": "Data sets, and activations from elsewhere",
    "repsim.inference": "Is it more than examples, classes, units or seeds do?",
    "repsim.learning": "Learning rules",
    "repsim.measures": "Measures of similarity and distance",
    "repsim.networks": "Networks",
    "repsim.plot": "Plots",
    "repsim.probes": "Linear probes",
}


def public_names(room: str) -> Iterator[tuple[str, Any]]:
    """Yield the names that a room offers and that stand for something of ours."""
    module = import_module(room)
    for name in sorted(getattr(module, "__all__", None) or vars(module), key=str.lower):
        thing = getattr(module, name)
        ours = str(getattr(thing, "__module__", "")).startswith("repsim")
        if not name.startswith("_") and ours and not isinstance(thing, ModuleType):
            yield name, thing


def write_reference(folder: Path) -> None:
    """Write one page with a table a room; Sphinx makes a page of each name."""
    lines = ["Reference", "=========", "", "Every public name, by room.", ""]
    seen: set[int] = set()
    for room, words in ROOMS.items():
        entries = []
        for name, thing in public_names(room):
            callable_ = inspect.isroutine(thing) or inspect.isclass(thing)
            if callable_ and id(thing) not in seen:
                seen.add(id(thing))
                entries.append(f"   ~{room}.{name}")
        lines += [words, "-" * len(words), "", ".. autosummary::"]
        lines += ["   :toctree: names", "   :nosignatures:", "", *entries, ""]
    folder.mkdir(exist_ok=True)
    text = "\n".join(lines)
    path = folder / "reference.rst"
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
