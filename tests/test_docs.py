"""Every Python block of the documentation runs as written, page by page.

What a page takes for granted (a model, a loader) stands in it as a comment that
readers do not see: `<!-- setup … -->` before, `<!-- teardown … -->` after.
"""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in (*DOCS.glob("*.md"), *DOCS.glob("howto/*.md"))
    if "```python" in path.read_text("utf-8")
)
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="runs beside docs/")


def _hidden(text: str, kind: str) -> list[str]:
    return re.findall(rf"^<!-- {kind}\n(.*?)^-->$", text, re.DOTALL | re.MULTILINE)


def _blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_the_blocks_run_as_written(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf-8")
    names: dict[str, Any] = {"__name__": page.stem}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for code in (*_hidden(text, "setup"), *_blocks(text)):
                exec(compile(code, str(page), "exec"), names)
        finally:
            for code in _hidden(text, "teardown"):
                exec(code, names)


def test_no_page_is_left_out_of_the_site() -> None:
    """A page is in a table of contents, or the site does not build (`tox -e docs`)."""
    trees = "\n".join(
        block
        for path in (*DOCS.glob("*.md"), *DOCS.glob("howto/*.md"))
        for block in re.findall(r"```\{toctree\}(.*?)```", path.read_text(), re.DOTALL)
    ).split()
    names = {entry.strip("<>") for entry in trees}
    for path in (*DOCS.glob("*.md"), *DOCS.glob("howto/*.md")):
        if path.name != "index.md":
            assert path.stem in names, path


def test_pages_lead_to_pages_that_exist() -> None:
    built = {"auto_explain", "auto_gallery", "generated"}  # made with the site
    missing = []
    for path in (ROOT / "README.md", *DOCS.rglob("*.md")):
        text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            first = Path(target).parts[0] if target[0] != "." else Path(target).parts[1]
            if first not in built and not (path.parent / target).exists():
                missing.append(f"{path.relative_to(ROOT)}: {target}")
    assert missing == []


def test_files_and_tests_that_pages_name_exist() -> None:
    """Tests are named in the line of their file, `tests/a/test_b.py`, after it."""
    missing, found = [], 0
    for path in DOCS.rglob("*.md"):
        for line in path.read_text("utf-8").splitlines():
            text = None
            for name in re.findall(r"\b(tests/[\w/]+\.py|test_\w+)\b(?!\.py)", line):
                file = ROOT / name
                if "/" in name:
                    there = file.is_file()
                    text = file.read_text("utf-8") if there else ""
                elif text is None:
                    continue
                else:
                    there = f"def {name}(" in text
                found += 1
                if not there:
                    missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []
    assert found > 40
