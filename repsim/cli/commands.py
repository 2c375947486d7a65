"""The program: its commands in order, and how it ends."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm.auto import tqdm

import repsim
from repsim.cli import recording_commands as on
from repsim.cli import training_commands as train
from repsim.cli.options import Json, say
from repsim.cli.suggestions import Command, Group
from repsim.core.messages import Misuse
from repsim.core.provenance import versions

app = typer.Typer(
    name="repsim",
    cls=Group,
    help="Where, and when in training, two ways of learning differ inside a network.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"repsim {versions()['repsim']}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Where, and when in training, two ways of learning differ inside a network."""


def main() -> None:
    """Run the command line; a user's mistake is one sentence and no traceback.

    Exit status: 0 on success, 2 on bad usage, 1 on failure.
    """
    warnings.showwarning = _warn
    if getattr(repsim, "__version__", None) != versions()["repsim"]:
        found = repsim.__file__ or next(iter(repsim.__path__))
        msg = (
            "Error: expected repsim-toolkit, but Python finds another project's "
            f"`repsim` at {found}; `pip uninstall repsim repsim-toolkit`, "
            "then install repsim-toolkit again."
        )
        typer.echo(msg, err=True)
        sys.exit(1)
    try:
        app(prog_name=app.info.name)
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.strerror and error.filename:
            # The system's own words, which say neither what was wanted nor where.
            place, said = error.filename, error.strerror
            sentence = f"Expected to read or write {place}, but got: {said}."
        typer.echo(f"Error: {sentence}", err=True)
        # What an argument cannot be is bad usage, whatever command it was given to.
        sys.exit(2 if error.args and isinstance(error.args[0], Misuse) else 1)
    finally:
        if "--install-completion" in sys.argv:
            _complete_from_the_first_tab()


def _complete_from_the_first_tab() -> None:
    """Let zsh answer its first Tab.

    zsh takes Typer's file for the function's body when it is loaded: the first Tab
    only defines the function, and calls nothing.
    """
    script = Path.home() / ".zfunc" / f"_{app.info.name}"
    call = f"_{app.info.name}_completion"
    last = f'[[ $zsh_eval_context[-1] == loadautofunc ]] && {call} "$@"\n'
    if script.exists() and call in (text := script.read_text()) and last not in text:
        script.write_text(f"{text.rstrip()}\n{last}")


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    tqdm.write(f"Warning: {message}", file=sys.stderr)


def version(as_json: Json = False) -> None:
    """Print the version of repsim and of what it computes with.

    Example: repsim version --json
    """
    numbers = versions()
    say(numbers, as_json, [f"{name} {number}" for name, number in numbers.items()])


def doctor(as_json: Json = False) -> None:
    """Tell what a computation would find here: versions, device, threads, data.

    Example: repsim doctor
    """
    import os
    import tempfile

    import torch

    from repsim.core.devices import device_named
    from repsim.datasets import names
    from repsim.datasets.inputs.fetching import at_hand, data_root, registry

    here: dict[str, Any]
    try:
        folder = data_root()
        fetched = [name for name in registry() if not at_hand(name)]
        here = {
            "data sets at hand": [name for name in names() if name not in fetched],
            "data sets to be fetched": fetched,
            "data folder": str(folder),
        }
    except FileNotFoundError as error:
        here = {"data folder": str(error)}
    facts: dict[str, Any] = {
        **versions(),
        "device": str(device_named("auto")),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        **here,
        "this folder writable": os.access(Path.cwd(), os.W_OK),
        "temporary folder writable": os.access(tempfile.gettempdir(), os.W_OK),
    }
    lines = [
        f"{name}: {', '.join(value) if isinstance(value, list) else value}"
        for name, value in facts.items()
    ]
    say(facts, as_json, lines)


for _command in (
    train.study,
    train.report,
    train.reproduce,
    on.compare,
    on.rdm,
    on.probe,
    on.show,
    on.import_,
    on.export,
    doctor,
    version,
):
    app.command(_command.__name__.rstrip("_"), cls=Command)(_command)
