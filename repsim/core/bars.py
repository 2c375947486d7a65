"""Progress bars: where somebody looks they move, and a file gets their last line."""

import sys
import warnings
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm as text_bar

with warnings.catch_warnings():
    # Without ipywidgets a notebook gets the bar in letters, which needs no warning.
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm


class _LastLine(text_bar):  # type: ignore[type-arg]  # generic in its stub alone
    """A bar of which is written how it ended."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        # `close` disables the bar, then shows it for the last time.
        if self.disable:
            self.fp.write(str(self))

    def clear(self, nolock: bool = False) -> None:
        """There is nothing to wipe away for a message."""


def _widget(kind: Any) -> Any:
    """Return a notebook's bar that ends in words as well.

    A notebook that is read without a kernel shows a widget's words of the moment when
    it appeared, which is 0 %.
    """
    from IPython.display import display

    class Widget(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, display=False, **options)
            if not self.disable:
                self.shown = display(self.container, display_id=True)

        def close(self) -> None:
            ends = not self.disable
            super().close()
            if ends and self.shown is not None:
                self.shown.update(self.container)

    return Widget


def _kind() -> Any:
    """Return the bar of the place where it is written."""
    if any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__):
        return _widget(tqdm)
    stream = sys.stderr
    # A notebook's stream says that it is no terminal.
    notebook = type(stream).__module__.startswith("ipykernel")
    if notebook or (hasattr(stream, "isatty") and stream.isatty()):
        return tqdm
    return _LastLine


def progress_bar(
    over: Iterable[Any] | None = None, *, progress: bool, **options: Any
) -> "text_bar[Any]":
    """Return tqdm's bar: a widget in a notebook, letters in a terminal.

    Where standard error is a file or a pipe, a moving bar would be kilobytes of
    carriage returns: there the bar's end is one line.
    """
    made: text_bar[Any] = _kind()(over, disable=not progress, **options)
    return made
