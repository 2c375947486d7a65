"""What a command says of an option that it does not have."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from os.path import commonprefix
from typing import Any

from typer.core import TyperCommand, TyperGroup


def nearest(name: str, known: Iterable[str]) -> tuple[list[str], bool]:
    """Return the options that may have been meant, and whether by their spelling.

    Else they only begin as the name does.

    Examples
    --------
    >>> options = ["--measure", "--device", "--layers", "--layers-b", "--out"]
    >>> nearest("--layer", options)
    (['--layers', '--layers-b'], True)
    >>> nearest("--metric", options)
    (['--measure'], False)
    """
    # The dashes are no part of what was meant: they make any two words look alike.
    bare = {option.lstrip("-"): option for option in known}
    word = name.lstrip("-")
    # So do few letters in the middle: what begins otherwise must be nearer.
    spelt = [
        option
        for option in get_close_matches(word, bare)
        if option[0] == word[0] or option in get_close_matches(word, bare, cutoff=0.75)
    ]
    shared = {option: len(commonprefix([word, option])) for option in bare}
    begun = [o for o, n in shared.items() if n > 1 and n == max(shared.values())]
    return [bare[option] for option in spelt or begun], bool(spelt)


@contextmanager
def _suggesting(command: Any, context: Any) -> Iterator[None]:
    """Say which of the command's options an unknown one may mean, or all it has."""
    try:
        yield
    except Exception as error:
        # By what it carries: its class lies in click, or within typer since 0.29.
        if not (hasattr(error, "possibilities") and hasattr(error, "option_name")):
            raise
        said: Any = error
        parameters = command.get_params(context)
        known = [name for p in parameters for name in p.opts if name.startswith("--")]
        near, sure = nearest(said.option_name, known)
        listed = "" if sure else f", one of {', '.join(known)}"
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        said.message = (
            f"Expected an option of {context.command_path}{listed}, but got "
            f"{said.option_name!r}.{meant}"
        )
        said.possibilities = None
        raise


class Command(TyperCommand):
    """A command that says what an unknown option may mean."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        with _suggesting(self, ctx):
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    """The program, which says it of its own options too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        with _suggesting(self, ctx):
            return super().parse_args(ctx, args)
