"""What a reproduction found as pages: HTML for itself, Markdown for the documentation.

    python -m repsim.claims docs/paper.md digits/claims.json mnist/claims.json

puts one table of all runs between the markers of a page, leaving the prose around them
alone, and beside it every claim's numbers, `claims/<data set>.md`, a page a run. No
number is written by hand.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from repsim.claims.base import registered
from repsim.core.files import write_whole
from repsim.studies.pages import page as html

Result = Mapping[str, Any]
_PHONE = 900
"""Pixels of a picture, at 130 an inch, whose letters a phone shows; more are swiped."""
_CLASS = {"holds": "holds", "does not hold": "fails", "reported": "reported"}


def write_page(
    path: Path, results: Sequence[Result], about: Mapping[str, Any], figures: Path
) -> None:
    """Write the HTML page; it holds its pictures and opens offline."""
    shown = []
    for r in results:
        file = figures / f"{r['id']}.png"
        with Image.open(file) as drawn:
            shown.append({**r, "path": file, "wide": drawn.width > _PHONE})
    text = html(
        "claims.html",
        package="repsim.claims",
        results=shown,
        about=about,
        kind=_CLASS,
        rows=rows,
    )
    write_whole(path, text)


def write_markdown(page: Path, claims: Sequence[Path]) -> list[Path]:
    """Put runs into a Markdown page, and each into a page of its own beside it.

    Parameters
    ----------
    page : Path
        A page; markers that it lacks are added at its end, and one that does not exist
        is made.
    claims : sequence of Path
        claims.json of reproductions, about.json beside each.

    Returns
    -------
    list of Path
        The pages written.

    Raises
    ------
    FileNotFoundError
        If there is no claims.json.
    """
    runs = [_run(path) for path in claims]
    ids = list(dict.fromkeys(r["id"] for run in runs for r in run["results"]))
    table = [
        {
            "id": name,
            "cells": [
                (run, result)
                for run in runs
                for result in run["results"]
                if result["id"] == name
            ],
        }
        for name in [*(n for n in registered() if n in ids)]
    ]
    text = page.read_text("utf-8") if page.is_file() else ""
    content = _markdown("table.md", runs=runs, table=table)
    write_whole(page, replaced(text, "verdicts", content))
    written = [page]
    for run in runs:
        beside = page.parent / "claims" / f"{run['name']}.md"
        beside.parent.mkdir(exist_ok=True)
        write_whole(beside, _markdown("claims.md", run=run, rows=rows))
        written.append(beside)
    return written


def _run(path: Path) -> dict[str, Any]:
    about = json.loads((path.parent / "about.json").read_text("utf-8"))
    results = json.loads(path.read_text("utf-8"))
    settings = about["settings"]
    command = f"repsim reproduce --dataset {settings['dataset']}"
    command += " --quick" if settings["quick"] else ""
    command += f" --seeds {settings['seeds']}"
    for name, value in settings["size"]:
        shown = json.dumps(value, separators=(",", ":"))
        command += f" --size {name}={shown}"
    command += f" --seed {settings['seed']}" if settings["seed"] else ""
    if {r["id"] for r in results} != set(registered()):
        command += " --claims " + ",".join(r["id"] for r in results)
    name = settings["dataset"] + ("_quick" if settings["quick"] else "")
    for field, value in settings["size"]:  # Otherwise two sizes would share a page.
        values = value if isinstance(value, list) else [value]
        name += f"_{field}_{'_'.join(f'{v:g}' for v in values)}"
    return {"name": name, "about": about, "results": results, "command": command}


def replaced(text: str, name: str, content: str) -> str:
    """Return a page with a content between the markers of a name, else as it was.

    Where the markers are missing, they are added at the end.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n".lstrip()
    before, rest = text.split(begin, 1)
    return f"{before}{begin}\n{content.strip()}\n{end}{rest.split(end, 1)[1]}"


def _markdown(template: str, **content: Any) -> str:
    environment = Environment(  # noqa: S701 (Markdown, not HTML)
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=PackageLoader("repsim.claims"),
    )
    environment.filters |= {"text": text_of, "effect": effect, "cell": _cell}
    return environment.get_template(template).render(**content)


def rows(table: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return a table's rows where all are mappings; others stay in claims.json."""
    pairs = list(table.items()) if isinstance(table, Mapping) else []
    return pairs if all(isinstance(row, Mapping) for _, row in pairs) else []


def effect(result: Result) -> str:
    """Return the first quantity of a result, with its interval or range."""
    if not result["measured"]:
        return str(result["note"])
    name, summary = next(iter(result["measured"].items()))
    return f"{name}: {number(summary)}"


def number(summary: Mapping[str, Any]) -> str:
    """Return a summary as text: the mean, and the interval, or the range of values."""
    if summary["mean"] is None:
        return "not finite"
    text = text_of(summary["mean"])
    if summary["low"] != summary["high"] and summary["low"] is not None:
        text += f" [{text_of(summary['low'])}, {text_of(summary['high'])}]"
    return text


def text_of(value: Any) -> str:
    """Return a number, a truth or a list as a reader wants it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return ", ".join(text_of(v) for v in value)
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m repsim.claims",
        description="Write reproductions' numbers into Markdown pages.",
    )
    parser.add_argument("page", type=Path, help="the page, such as docs/paper.md")
    parser.add_argument("claims", type=Path, nargs="+", help="claims.json of runs")
    given = parser.parse_args(arguments)
    for path in write_markdown(given.page, given.claims):
        print(path)
