"""The table in the documentation is the registry's."""

from pathlib import Path

import pytest

from repsim import measures

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"


@pytest.mark.skipif(not PAGE.exists(), reason="runs beside docs/")
def test_the_page_holds_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8").splitlines()
    built_in = [
        line
        for line in measures.table().splitlines()
        if line.split("|")[1].strip(" `") in (*_own(), "measure", "---")
    ]
    missing = [line for line in built_in if line not in page]
    assert missing == [], "run the command beside the table"


def _own() -> list[str]:
    """The names that come with the package, not those that other tests add."""
    return [
        name
        for name in measures.names()
        if measures.get(name).function.__module__.startswith("repsim.")
    ]
