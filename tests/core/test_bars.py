"""Progress bars in terminals, notebooks and files."""

import io

import pytest
from tqdm.auto import tqdm

from repsim.core.bars import progress_bar


class _Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class _Notebook(_Stream):
    __module__ = "ipykernel.iostream"


def _loop(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    bar = progress_bar(range(5), progress=True, desc="parts", mininterval=0)
    for k in bar:
        bar.set_postfix_str(f"now {k}")
        bar.refresh()
    return stream.getvalue()


def test_a_file_gets_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = _loop(_Stream(terminal=False), monkeypatch)
    assert said.count("parts") == 1 and said.count("\n") == 1
    assert "5/5" in said and "now 4" in said


@pytest.mark.parametrize("stream", [_Stream(True), _Notebook(False)])
def test_it_moves_where_it_is_seen(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _loop(stream, monkeypatch)
    assert all(f"{k}/5" in said for k in range(6))


def test_a_file_is_told_where_a_loop_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Stream(terminal=False)
    monkeypatch.setattr("sys.stderr", stream)
    with (
        pytest.raises(KeyError),
        progress_bar(total=9, progress=True) as bar,
    ):
        bar.update(3)
        tqdm.write("a word meanwhile", file=stream)
        raise KeyError
    assert stream.getvalue().startswith("a word meanwhile\n")
    assert "3/9" in stream.getvalue()


def test_nothing_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Stream(terminal=True)
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress_bar(range(3), progress=False)) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_a_widget_ends_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets")
    from tqdm.notebook import tqdm as notebook

    shown: list[str] = []

    class Handle:
        def update(self, container: object) -> None:
            shown.append(repr(container))

    def display(container: object, display_id: bool) -> Handle:
        shown.append(repr(container))
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("repsim.core.bars.tqdm", notebook)
    for _ in progress_bar(range(4), progress=True, desc="parts"):
        pass
    assert "0/4" in shown[0] and "4/4" in shown[-1] and len(shown) == 2
    assert list(progress_bar(range(3), progress=False)) == [0, 1, 2]
    assert len(shown) == 2
