"""The options that commands share, and how commands end."""

import json
import os
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument

if TYPE_CHECKING:
    Place = Path
else:

    class Place:
        """A path, or one elsewhere: of a Path typer before 0.29 makes a local one."""


def as_place(text: str) -> Place:
    """Return a path, or the place that an address such as s3://… names."""
    if "://" not in text:
        return Path(text)
    from repsim.datasets.store.places import place_of  # slow; not for --help

    try:
        return place_of(text)
    except ValueError as error:  # typer would put words of its own before the sentence
        raise typer.BadParameter(str(error)) from error


def left_out(name: str) -> str:
    """Return how usage calls an argument that may be left out; typer 0.29 marks it."""
    marks = hasattr(TyperArgument, "_usage_display_name")
    return name if marks else f"[{name}]"


Out = Annotated[Path | None, typer.Option(help="File or folder to write.")]


Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]


Layers = Annotated[
    str | None,
    typer.Option(
        help="Layers, or patterns such as hidden_*, separated by commas; default all."
    ),
]


Step = Annotated[str, typer.Option(help="A recorded step, `last`, or `all`.")]


Reduce = Annotated[
    str | None,
    typer.Option(
        "--reduce",
        help="Maps and tokens as units: flatten, mean, last, first or tokens.",
    ),
]


@contextmanager
def continues() -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    # Workers are killed then, and what frees their semaphores would warn after us.
    given = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore:resource_tracker"
    os.environ["PYTHONWARNINGS"] = f"{given},{quiet}" if given else quiet
    try:
        yield
    except KeyboardInterrupt:
        msg = "Interrupted; the same command continues where it stopped."
        raise InterruptedError(msg) from None


@contextmanager
def bad_usage(unless: Sized) -> Iterator[None]:
    """Exit with 2 for what the library refuses before it has done anything."""
    try:
        yield
    except (ValueError, ImportError) as error:
        if unless:
            raise
        raise typer.BadParameter(" ".join(str(error).split())) from error


def say(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print the numbers or the lines."""
    typer.echo(json.dumps(result, indent=1) if as_json else "\n".join(lines))
