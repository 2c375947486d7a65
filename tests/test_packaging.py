"""The package list is complete and the arrows between rooms point one way."""

import ast
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A room may import itself and the rooms to its left (design: values flow one way).
LEVELS = [
    {"core"},
    {"datasets", "learning", "measures", "networks"},
    {"capture", "training", "comparison", "geometry", "probes"},
    {"inference", "plot"},
    {"callbacks", "analyses"},
    {"studies"},
    {"claims"},
    {"cli"},
]


def _level(room: str) -> int:
    return next(i for i, level in enumerate(LEVELS) if room in level)


def _files() -> Iterator[tuple[str, Path]]:
    for name in ("repsim", "repsim.probes", "repsim.datasets"):
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            parts = [
                *name.split(".")[1:],
                *path.relative_to(folder).with_suffix("").parts,
            ]
            if parts[0] != "__init__":
                yield parts[0], path


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def test_every_room_has_a_level() -> None:
    known: set[str] = set().union(*LEVELS)
    assert {room for room, _ in _files()} <= known


def test_arrows_point_one_way() -> None:
    wrong = []
    for room, path in _files():
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] != "repsim" or len(parts) < 2:
                continue
            other = parts[1]
            if other == room or not any(other in level for level in LEVELS):
                continue
            if _level(other) >= _level(room):
                wrong.append(f"{path.name} imports {name}")
    assert wrong == []


def test_learning_knows_nothing_of_xarray() -> None:
    for room, path in _files():
        if room == "learning":
            assert not any(n.split(".")[0] == "xarray" for n in _imports(path)), path


@pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="runs beside pyproject.toml"
)
def test_every_folder_is_in_the_package_list() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
            "packages"
        ]
    )
    found = set()
    for top, prefix in (("repsim", ""), ("probes", "repsim."), ("datasets", "repsim.")):
        for init in (ROOT / top).rglob("__init__.py"):
            found.add(prefix + ".".join(init.parent.relative_to(ROOT).parts))
    assert found == listed
