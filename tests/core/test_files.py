"""A file is seen whole or not at all."""

from pathlib import Path

import pytest

from repsim.core.files import write_whole


def test_new_and_replaced(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", "{}")
    write_whole(tmp_path / "a.json", b"[1]")
    assert (tmp_path / "a.json").read_text() == "[1]"
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


def test_what_fails_leaves_the_old_content_and_nothing_beside(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "a", 3)  # type: ignore[arg-type]
    assert (tmp_path / "a").read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["a"]
