"""Write what a reproduction found into a Markdown page.

    python -m repsim.claims.document reproduce/claims.json docs/paper.md

replaces what stands between the two markers of the page and leaves the prose around
them alone, so that no number of the page is written by hand.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.claims.reproduction import number
from repsim.claims.trained import write

BEGIN = (
    "<!-- claims: begin (python -m repsim.claims.document claims.json this-page) -->"
)
END = "<!-- claims: end -->"

Result = Mapping[str, Any]


def document(claims: Path, page: Path) -> None:
    """Put the results of claims.json into a page, between its markers.

    Parameters
    ----------
    claims : Path
        claims.json of a reproduction; about.json beside it.
    page : Path
        A Markdown page; without markers they are added at its end, and a page that
        does not exist is made.

    Raises
    ------
    FileNotFoundError
        If there is no claims.json.
    """
    results = json.loads(claims.read_text("utf-8"))
    about = json.loads((claims.parent / "about.json").read_text("utf-8"))
    text = page.read_text("utf-8") if page.is_file() else ""
    if BEGIN not in text or END not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n".lstrip()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    write(page, f"{before}{BEGIN}\n{render(results, about)}{END}{after}")


def render(results: Sequence[Result], about: Mapping[str, Any]) -> str:
    """Return the generated part of the page.

    Parameters
    ----------
    results : sequence of mapping
        As in claims.json.
    about : mapping
        As in about.json.

    Returns
    -------
    str
        Markdown: where the numbers come from, the verdicts, and every claim.
    """
    parts = [_origin(about), _verdicts(results)]
    parts += [_section(result) for result in results]
    return "\n".join(parts)


def _origin(about: Mapping[str, Any]) -> str:
    settings = about["settings"]
    scale = settings["scale"]
    command = f"repsim reproduce --dataset {settings['dataset']}"
    command += " --quick" if settings["quick"] else ""
    command += f" --seeds {settings['seeds']} --seed {settings['seed']}"
    lines = [
        f"Made by `{command}` at commit `{_short(about['commit'])}` "
        f"(repsim {about['repsim_version']}, torch {about['torch_version']}, Python "
        f"{about['python']}, {about['created']}).",
        f"Shared networks: {scale['depth']} × {scale['width']} (Linear, ReLU, batch "
        f"normalisation), {scale['steps']} updates of {scale['batch_size']} examples, "
        f"Adam, rates from {', '.join(f'{v:g}' for v in scale['grid'])}.",
        *about["notes"],
    ]
    return "\n".join(lines) + "\n"


def _short(commit: str | None) -> str:
    """Return a commit's first figures, and the mark that files had changed."""
    return "unknown" if commit is None else commit[:12] + "+" * commit.endswith("+")


def _verdicts(results: Sequence[Result]) -> str:
    rows = [
        "| id | claim | measured | verdict |",
        "| --- | --- | --- | --- |",
    ]
    for r in results:
        gated = [gate["quantity"] for gate in r["gates"]] or list(r["measured"])[:2]
        shown = "; ".join(
            f"{name}: {number(r['measured'][name])}{_bound(r, name)}" for name in gated
        )
        rows.append(
            f"| {r['id']} | {r['statement']} | {_cell(shown)} | {r['verdict']} |"
        )
    return "\n".join(rows) + "\n"


def _bound(result: Result, name: str) -> str:
    gates = [g for g in result["gates"] if g["quantity"] == name]
    return "".join(f" ({g['relation']} {g['bound']:g})" for g in gates)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _section(result: Result) -> str:
    lines = [
        f"### {result['id']}: {result['verdict']}",
        "",
        result["statement"],
        "",
        f"*Source:* {result['source']}. *Experiment:* {result['experiment']} "
        f"*Demanded:* {result['threshold']}.",
        "",
        "| measured | mean | sd | low | high | n |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, summary in result["measured"].items():
        values = " | ".join(
            _text(summary[k]) for k in ("mean", "sd", "low", "high", "n")
        )
        lines.append(f"| {_cell(name)} | {values} |")
    if result["note"]:
        lines += ["", result["note"]]
    for name, table in result["tables"].items():
        lines += _table(name, table)
    return "\n".join(lines) + "\n"


def _table(name: str, table: Any) -> list[str]:
    """Return a table whose rows are mappings; others stay in claims.json."""
    rows = list(table.items()) if isinstance(table, Mapping) else []
    if not rows or not all(isinstance(row, Mapping) for _, row in rows):
        return []
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    lines = [
        "",
        f"{name[0].upper()}{name[1:]}:",
        "",
        f"| | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
    ]
    for key, row in rows:
        cells = " | ".join(_cell(_text(row.get(c))) for c in columns)
        lines.append(f"| {_cell(key)} | {cells} |")
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return ", ".join(_text(v) for v in value)
    return str(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m repsim.claims.document",
        description="Write a reproduction's numbers into a Markdown page.",
    )
    parser.add_argument("claims", type=Path, help="claims.json of a reproduction")
    parser.add_argument("page", type=Path, help="the page, such as docs/paper.md")
    given = parser.parse_args(arguments)
    document(given.claims, given.page)


if __name__ == "__main__":
    main()
