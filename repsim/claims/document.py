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

from repsim.claims import registered
from repsim.claims.trained import write

COMMAND = "python -m repsim.claims.document claims.json this-page"

Result = Mapping[str, Any]


def document(claims: Path, page: Path) -> None:
    """Put the results of claims.json into a page, between its markers."""
    results = json.loads(claims.read_text("utf-8"))
    about = json.loads((claims.parent / "about.json").read_text("utf-8"))
    text = page.read_text("utf-8") if page.is_file() else ""
    text = replaced(text, "verdicts", _verdicts(results))
    details = [_origin(about, results), *(_section(result) for result in results)]
    write(page, replaced(text, "claims", "\n".join(details)))


def replaced(text: str, name: str, content: str) -> str:
    """Return a page with a content between the markers of a name."""
    begin, end = f"<!-- {name}: begin ({COMMAND}) -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n".lstrip()
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}\n{content}{end}{after}"


def _origin(about: Mapping[str, Any], results: Sequence[Result]) -> str:
    settings = about["settings"]
    scale = settings["scale"]
    command = f"repsim reproduce --dataset {settings['dataset']}"
    command += " --quick" if settings["quick"] else ""
    command += f" --seeds {settings['seeds']} --seed {settings['seed']}"
    ids = [result["id"] for result in results]
    if set(ids) != set(registered()):
        command += f" --claims {','.join(ids)}"
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
    """Return the verdicts at a glance; an id leads to its numbers below."""
    rows = ["| id | verdict | claim |", "| --- | --- | --- |"]
    for r in results:
        shown = r["verdict"] if r["verdict"] != "does not hold" else "**does not hold**"
        link = f"[{r['id']}](#{_anchor(r)})"
        rows.append(f"| {link} | {shown} | {_cell(r['statement'])} |")
    return "\n".join(rows) + "\n"


def _anchor(result: Result) -> str:
    """Return the anchor that Markdown viewers give to a claim's heading."""
    return f"{result['id']}-{result['verdict']}".lower().replace(" ", "-")


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
        "| measured | demanded | mean | sd | low | high | n |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    bounds = {
        gate["quantity"]: f"{'mean ' * (gate['of'] == 'mean')}{gate['relation']} "
        f"{gate['bound']:g}"
        for gate in result["gates"]
    }
    for name, summary in result["measured"].items():
        values = " | ".join(
            _text(summary[k]) for k in ("mean", "sd", "low", "high", "n")
        )
        lines.append(f"| {_cell(name)} | {bounds.get(name, '')} | {values} |")
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
