"""The README's code runs as written, and CI calls its test command."""

import re
from pathlib import Path
from typing import Any

import pytest

import repsim

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="runs beside README.md"
)


def _blocks(kind: str) -> list[str]:
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for language, block in found if language == kind]


def test_the_code_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = _blocks("python")
    try:
        for block in blocks:
            exec(block, names)
    finally:
        repsim.measures.unregister("overlap")
    assert len(blocks) == 2
    assert (tmp_path / "heat.png").stat().st_size > 10_000
    assert names["cells"].dims == ("step", "layer_a", "layer_b")


def test_exactly_two_commands_set_up_and_ci_runs_the_second() -> None:
    commands = [block.strip() for block in _blocks("")]
    assert commands == ["pip install -e . && repsim study", "pip install tox && tox"]
    assert commands[1] in (ROOT / ".ci" / "run").read_text()
