"""Every example in a docstring runs; modules are imported by their dotted names."""

import doctest
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

ROOMS = ["repsim", "repsim.probes", "repsim.datasets"]


def _modules() -> list[str]:
    found: list[str] = []
    pending = list(ROOMS)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.append(name)
        module = import_module(name)
        for info in iter_modules(getattr(module, "__path__", [])):
            pending.append(f"{name}.{info.name}")
    return sorted(found)


@pytest.mark.parametrize("name", _modules())
def test_examples_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(import_module(name), optionflags=flags)
    assert failed == 0
