"""The package list is complete and the arrows between rooms point one way."""

import ast
import inspect
import tomllib
from collections.abc import Iterator
from importlib import import_module
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
    {"callbacks", "analyses", "live_models", "accessors"},
    {"studies"},
    {"claims"},
    {"cli"},
    {"__main__"},
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
        for file in (ROOT / top).rglob("*.*"):  # templates are packaged, too
            if file.suffix != ".pyc":
                found.add(prefix + ".".join(file.parent.relative_to(ROOT).parts))
    assert found == listed


def _sources() -> list[Path]:
    tops = ("repsim", "probes", "datasets")
    return [p for top in tops for p in sorted((ROOT / top).rglob("*.py"))]


beside_the_sources = pytest.mark.skipif(
    not (ROOT / "repsim").exists(), reason="runs beside the sources"
)


@beside_the_sources
def test_at_most_six_files_lie_loose() -> None:
    assert len([p for p in (ROOT / "repsim").iterdir() if p.suffix == ".py"]) <= 6


@beside_the_sources
def test_no_file_name_is_used_twice() -> None:
    names = [p.name for p in _sources() if not p.name.startswith("__")]
    assert sorted({n for n in names if names.count(n) > 1}) == []


@beside_the_sources
def test_no_module_has_the_name_of_a_public_function() -> None:
    """Importing `repsim.x.name` would put the module where the function was."""
    wrong = []
    for path in _sources():
        parts = [p for p in path.relative_to(ROOT).with_suffix("").parts]
        package = import_module(".".join(["repsim", *parts[parts[0] == "repsim" : -1]]))
        if inspect.isfunction(getattr(package, parts[-1], None)):
            wrong.append("/".join(parts))
    assert wrong == []


@beside_the_sources
def test_every_file_has_its_test() -> None:
    """Mirrored in tests/, or named in tests/covered_by.toml with what covers it."""
    listed = tomllib.loads((ROOT / "tests/covered_by.toml").read_text())
    missing = []
    for path in _sources():
        parts = path.relative_to(ROOT).parts
        inner = parts[1:] if parts[0] == "repsim" else parts
        mirror = ROOT.joinpath("tests", *inner[:-1], f"test_{inner[-1]}")
        name = "/".join(parts)
        if path.name.startswith("__") or mirror.exists():
            assert name not in listed, f"{name} has a test of its own; delete the line"
        elif not (ROOT / "tests" / listed.get(name, "none")).is_file():
            missing.append(name)
    assert missing == []
