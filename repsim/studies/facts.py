"""What a tree of recordings says of itself, read from its documents alone."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repsim.core.files import DOCUMENT, NOT_FINITE


@dataclass(frozen=True)
class Cell:
    """One recording of a tree."""

    condition: str
    seed: str
    attrs: dict[str, Any]
    mark: str

    def option(self, name: str) -> Any:
        """Return an option of the rule, None where it is not known."""
        options = self.attrs.get("rule_options", "{}")
        return json.loads(options).get(name) if isinstance(options, str) else None


@dataclass(frozen=True)
class Facts:
    """The recordings of a tree in its order; nothing of their arrays is read.

    `left_out` names those that no measure can compare, and why.
    """

    store: Path
    cells: list[Cell]
    reduce: str | None = None
    left_out: tuple[str, ...] = ()

    @property
    def conditions(self) -> list[str]:
        """Labels of the conditions, in order."""
        return list(dict.fromkeys(cell.condition for cell in self.cells))

    def of(self, condition: str) -> list[Cell]:
        """Return the networks of one condition."""
        return [cell for cell in self.cells if cell.condition == condition]

    def all_have(self, name: str) -> list[Any]:
        """Return the different values of an attribute, in order."""
        values = [str(c.attrs[name]) for c in self.cells if c.attrs.get(name)]
        return list(dict.fromkeys(values))

    @property
    def mark(self) -> str:
        """A digest of which recordings there are, and of when they were made."""
        root = attributes(self.store)
        lines = [f"{c.condition}/{c.seed}/{c.mark}" for c in self.cells]
        lines.append(str(root.get("measured_rdm_sha256")))
        lines += [f"reduce {self.reduce}"] if self.reduce else []
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def study_facts(store: Path, reduce: str | None = None) -> Facts:
    """Return what a tree ``/<condition>/<seed>`` says of itself.

    `reduce` is what shall become of its maps and tokens.
    """
    root = attributes(store)
    order = [str(name) for name in root.get("conditions", ())]
    cells, left_out = [], []
    for document in store.glob(f"*/*/{DOCUMENT}"):
        folder = document.parent
        content = json.loads(_text(document))
        inner = sorted(folder.glob(f"*/{DOCUMENT}"))
        if content.get("node_type") != "group" or not inner:
            continue
        if since := not_finite(inner):
            left_out.append(f"{folder.parent.name}/{folder.name} ({since})")
            continue
        attrs = content.get("attributes", {})
        # A tree that another program wrote says not when: its file does.
        made = attrs.get("created") or _changed(document)
        mark = f"{made} {attrs.get('complete')}"
        cells.append(Cell(folder.parent.name, folder.name, attrs, mark))

    def place(cell: Cell) -> tuple[int, str, int, str]:
        known = order.index(cell.condition) if cell.condition in order else len(order)
        number = int(cell.seed) if cell.seed.isdigit() else -1
        return known, cell.condition, number, cell.seed

    return Facts(store, sorted(cells, key=place), reduce, tuple(sorted(left_out)))


def not_finite(documents: Iterable[Path]) -> str:
    """Return in which layer NaN or infinite values were recorded first, and when."""
    since = {}
    for document in documents:
        if NOT_FINITE in _text(document):
            name = document.parent.name
            since[name] = int(attributes(document.parent).get(NOT_FINITE, 0))
    first = min(since, key=lambda name: since[name], default=None)
    return "" if first is None else f"{first} since step {since[first]}"


def attributes(folder: Path) -> dict[str, Any]:
    """Return what a zarr group says of itself; nothing where there is none."""
    try:
        return dict(json.loads(_text(folder / DOCUMENT))["attributes"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # or one cut short
        return {}
    except OSError:
        if isinstance(folder, Path):
            return {}
        raise  # nobody answers there: whether there is one is not known


def _text(path: Path) -> str:
    """Return what a file holds, or an object elsewhere."""
    if isinstance(path, Path):
        return path.read_text()
    from repsim.datasets.store.elsewhere import fetch, reaching

    with reaching(path):
        return fetch(path).decode()


def _changed(path: Path) -> object:
    """Return what changes when a file is written anew."""
    if isinstance(path, Path):
        return path.stat().st_mtime_ns
    from repsim.datasets.store.elsewhere import stamp

    return stamp(path)
