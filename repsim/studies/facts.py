"""What a tree of recordings says of itself, read from its documents alone."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repsim.core.files import DOCUMENT


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
    """The recordings of a tree in its order; nothing of their arrays is read."""

    store: Path
    cells: list[Cell]
    reduce: str | None = None

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
    cells = []
    for document in store.glob(f"*/*/{DOCUMENT}"):
        folder = document.parent
        content = json.loads(document.read_text())
        if content.get("node_type") != "group" or not any(folder.glob(f"*/{DOCUMENT}")):
            continue
        attrs = content.get("attributes", {})
        # A tree that another program wrote says not when: its file does.
        made = attrs.get("created") or document.stat().st_mtime_ns
        mark = f"{made} {attrs.get('complete')}"
        cells.append(Cell(folder.parent.name, folder.name, attrs, mark))

    def place(cell: Cell) -> tuple[int, str, int, str]:
        known = order.index(cell.condition) if cell.condition in order else len(order)
        number = int(cell.seed) if cell.seed.isdigit() else -1
        return known, cell.condition, number, cell.seed

    return Facts(store, sorted(cells, key=place), reduce)


def attributes(folder: Path) -> dict[str, Any]:
    """Return what a zarr group says of itself; nothing where there is none."""
    try:
        document = json.loads((folder / DOCUMENT).read_text())
        return dict(document["attributes"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or one cut short
        return {}
