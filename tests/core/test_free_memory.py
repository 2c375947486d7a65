"""How much memory there is."""

from pathlib import Path

import pytest

from repsim.core import free_memory


def test_some_memory_is_free_and_not_more_than_there_is() -> None:
    assert 0 < free_memory.available_memory() < 2**50


def test_a_containers_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "max").write_text("5000\n")
    (tmp_path / "used").write_text("1000\n")
    limits = ((str(tmp_path / "max"), str(tmp_path / "used")),)
    monkeypatch.setattr(free_memory, "_LIMITS", limits)
    assert free_memory.available_memory() == 4000
    (tmp_path / "max").write_text("max\n")
    assert free_memory.available_memory() > 4000
