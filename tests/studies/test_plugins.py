"""What a plugin's import does to the path, and says where it fails."""

import sys
from pathlib import Path

import pytest

from repsim.studies.plugins import import_modules


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])


def test_a_module_of_the_working_folder_is_found_and_finds_its_neighbours(
    tmp_path: Path,
) -> None:
    (tmp_path / "plugin_here.py").write_text(
        "def later():\n    import neighbour_here\n    return neighbour_here.value\n"
    )
    (tmp_path / "neighbour_here.py").write_text("value = 3\n")
    import_modules(["plugin_here"])
    assert sys.modules["plugin_here"].later() == 3
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)


def test_a_module_from_elsewhere_leaves_the_path_alone(tmp_path: Path) -> None:
    (tmp_path / "wave.py").write_text("raise RuntimeError('not this one')\n")
    before = list(sys.path)
    import_modules(["json.tool", "wave"])
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent_here", "'absent_here' to import, but got No module named"),
        ("broken_here", "'broken_here' to import, but got ZeroDivisionError: "),
        (".relative", "'.relative' to import, but got "),
    ],
)
def test_what_does_not_import_is_said(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "broken_here.py").write_text("1 / 0\n")
    with pytest.raises(ImportError, match=said):
        import_modules([name])
