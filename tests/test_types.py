"""Strict types and the form of docstrings, beside the other tests in time."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

import pytest

import repsim

ROOT = Path(__file__).parent.parent
# mypy does not follow the hooks of an editable installation.
EDITABLE = Path(repsim.__file__).is_relative_to(ROOT / "repsim")


@pytest.mark.skipif(
    EDITABLE or find_spec("mypy") is None, reason="run as in tox -e types"
)
def test_types_are_strict() -> None:
    for what in ([], ["--explicit-package-bases", "tests"]):
        command = [sys.executable, "-P", "-m", "mypy", *what]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(find_spec("numpydoc") is None, reason="run as in tox -e lint")
def test_what_a_user_reaches_has_numpydoc(capsys: pytest.CaptureFixture[str]) -> None:
    script = run_path(str(ROOT / "tests" / "validate_docstrings.py"))
    assert script["main"]() == 0, capsys.readouterr().out
