"""A start in a blink: what is not used is not imported; whose `repsim` it is."""

import ast
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import repsim
from repsim.cli import commands

HEAVY = ("torch", "xarray", "pandas", "sklearn", "matplotlib", "scipy", "zarr")


def _loaded(code: str, *words: str, **more: str) -> str:
    """Return which heavy libraries a program has loaded when it ends."""
    ending = f"""
import atexit, sys
atexit.register(lambda: print("LOADED", [n for n in {HEAVY!r} if n in sys.modules]))
{code}
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", ending, *words],
        capture_output=True, text=True, timeout=900, check=True,
        # Which shell is asked of the parent processes, and there may be none.
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"} | more,
    )  # fmt: skip
    return done.stdout


def test_importing_loads_nothing_heavy() -> None:
    assert "LOADED []" in _loaded("import repsim; assert repsim.__version__")


def test_a_recorder_loads_what_it_needs_and_draws_no_number_of_the_user() -> None:
    # What is measured is loaded within a training, after its generators were seeded.
    code = """
import random, repsim
random.seed(0)
repsim.Recorder, print({"sklearn", "matplotlib"} & set(sys.modules))
repsim.probes, repsim.plot
drawn = random.random()
random.seed(0)
print(drawn == random.random())
"""
    assert _loaded(code).splitlines()[:2] == ["set()", "True"]


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["version"],
        ["--version"],
        ["study", "--help"],
        ["--show-completion", "bash"],
    ],
)
def test_commands_that_compute_nothing_start_without_torch(words: list[str]) -> None:
    out = _loaded("from repsim.cli import main; main()", *words)
    assert "LOADED []" in out
    assert len(out.splitlines()) > 1


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "repsim", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert repsim.__version__ in done.stdout


PROGRAM = "import sys; sys.argv[0] = 'repsim'; from repsim.cli import main; main()"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("repsim re", ["report", "reproduce"]),
        ("repsim compare --la", ["--layers", "--layers-b"]),
        ("repsim report stu", []),  # the shell offers files
    ],
)
def test_words_are_completed_without_torch(line: str, offered: list[str]) -> None:
    asked = {
        "_REPSIM_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    *words, last = _loaded(PROGRAM, **asked).splitlines()
    assert last == "LOADED []"
    assert [word for word in words if word] == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_the_script_for_bash_completes() -> None:
    script = _loaded(PROGRAM, "--show-completion", "bash").partition("LOADED")[0]
    ours = shlex.join([sys.executable, "-P", "-c", PROGRAM])
    program = f"""
env() {{ command env "${{@:1:$#-1}}" {ours}; }}
{script}
COMP_WORDS=(repsim prob) COMP_CWORD=1
_repsim_completion repsim
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "probe\n"


def test_every_name_of_the_stub_exists_and_is_offered() -> None:
    stub = ast.parse(Path(str(repsim.__file__)).with_suffix(".pyi").read_text())
    names = [
        alias.asname or alias.name
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert len(names) > 40
    for name in names:
        assert getattr(repsim, name) is not None
    assert set(names) <= set(dir(repsim))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        repsim.no_such_name  # noqa: B018


def test_the_installed_distribution_is_ours() -> None:
    assert repsim.__version__ == version("repsim-toolkit")


def test_another_repsim_in_our_folder_is_told(tmp_path: Path) -> None:
    """PyPI's `repsim` under ours: both write into site-packages/repsim."""
    source = Path(str(repsim.__file__)).read_text()
    (tmp_path / "repsim").mkdir()
    (tmp_path / "repsim" / "__init__.py").write_text(source)
    about = tmp_path / "repsim-0.1.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: repsim\nVersion: 0.1.5\n"
    )
    (about / "RECORD").write_text("repsim/__init__.py,,\nrepsim/_utils.py,,\n")
    spec = find_spec("repsim.core")
    assert spec is not None and spec.submodule_search_locations is not None
    core = next(iter(spec.submodule_search_locations))
    (tmp_path / "repsim" / "core").symlink_to(core)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import repsim"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert "PyPI's `repsim` 0.1.5, another project, is installed into the same" in (
        done.stderr
    )


def test_our_command_with_another_repsim_over_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repsim, "__version__", "0.1.5")
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    assert stopped.value.code == 1
    assert (
        "expected repsim-toolkit, but Python finds another" in capsys.readouterr().err
    )
