"""Pages hold what they show, escape what they are given, and share one frame."""

import base64
from pathlib import Path

import pytest

from repsim.studies.pages import as_text, page, picture


def test_a_page_stands_alone_and_escapes() -> None:
    made = page("frame.html")
    assert made.startswith("<!doctype html>")
    assert "http" not in made and "prefers-color-scheme: dark" in made


def test_a_picture_is_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_bytes(b"<svg/>")
    kind, data = picture(path).split(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(data) == b"<svg/>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (-0.12345, "−0.1235"),
        ([1, None], "1, –"),
        ("x", "x"),
    ],
)
def test_values_as_words(value: object, text: str) -> None:
    assert as_text(value) == text
