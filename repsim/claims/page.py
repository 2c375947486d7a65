"""The page of a reproduction: one file with every claim, its numbers and picture."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from repsim.claims.trained import write

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; color: #1b1b1b; }
table { border-collapse: collapse; font-size: 0.9rem; }
td, th { padding: 0.2rem 0.7rem; text-align: left; border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
section { border-top: 2px solid #ddd; margin-top: 2rem; }
img { max-width: 100%; }
.verdict { padding: 0.1rem 0.6rem; border-radius: 0.8rem; color: white;
           white-space: nowrap; }
.holds { background: #1a7f37; } .fails { background: #b3261e; }
.reported { background: #57606a; } .small { color: #57606a; font-size: 0.9rem; }
"""

_CLASS = {"holds": "holds", "does not hold": "fails", "reported": "reported"}


def write_page(
    path: Path,
    results: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    figures: Path,
) -> None:
    """Write the page; it holds its pictures and opens offline."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in about["notes"])
    versions = (
        f"repsim {about['repsim_version']}, torch {about['torch_version']}, "
        f"Python {about['python']}, commit {about['commit'] or 'unknown'}, "
        f"{about['created']}"
    )
    body = [
        "<h1>The paper's claims, measured</h1>",
        "<p>Czarnecki et al., <i>Understanding Synthetic Gradients and Decoupled "
        'Neural Interfaces</i>, 2017, <a href="https://arxiv.org/abs/1703.00522">'
        "arXiv:1703.00522</a>. Every verdict is computed from the numbers beside "
        "it; a claim without a threshold is reported.</p>",
        f'<ul>{notes}</ul><p class="small">{escape(versions)}</p>',
        _overview(results),
        *(_section(result, figures) for result in results),
    ]
    write(
        path,
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>repsim: claims</title><style>{STYLE}</style></head>\n"
        f"<body>{''.join(body)}</body></html>\n",
    )


def _badge(verdict: str) -> str:
    return f'<span class="verdict {_CLASS[verdict]}">{escape(verdict)}</span>'


def _overview(results: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr><td><a href="#{escape(r["id"])}">{escape(r["id"])}</a></td>'
        f"<td>{escape(r['statement'])}</td><td>{_badge(r['verdict'])}</td></tr>"
        for r in results
    )
    return f"<table><tr><th>Id</th><th>Claim</th><th>Verdict</th></tr>{rows}</table>"


def _section(result: Mapping[str, Any], figures: Path) -> str:
    picture = base64.b64encode((figures / f"{result['id']}.png").read_bytes()).decode()
    note = f"<p>{escape(result['note'])}</p>" if result["note"] else ""
    return (
        f'<section id="{escape(result["id"])}">'
        f"<h2>{escape(result['id'])} {_badge(result['verdict'])}</h2>"
        f"<p><b>{escape(result['statement'])}</b></p>"
        f'<p class="small">Source: {escape(result["source"])}.</p>'
        f"<p>{escape(result['experiment'])}</p>"
        f"<p>Demanded: {escape(result['threshold'])}.</p>"
        f'<img alt="{escape(result["id"])}" src="data:image/png;base64,{picture}">'
        f"{note}{_numbers(result['measured'])}{_tables(result['tables'])}</section>\n"
    )


def _numbers(measured: Mapping[str, Mapping[str, Any]]) -> str:
    head = "<tr><th>Measured</th><th>mean</th><th>sd</th><th>low</th><th>high</th>"
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(
            f'<td class="number">{_text(summary[key])}</td>'
            for key in ("mean", "sd", "low", "high", "n")
        )
        + "</tr>"
        for name, summary in measured.items()
    )
    return f"<table>{head}<th>n</th></tr>{rows}</table>"


def _tables(tables: Mapping[str, Any]) -> str:
    """Return tables whose rows are mappings; the others stay in claims.json."""
    made = []
    for name, table in tables.items():
        rows = list(table.items()) if isinstance(table, Mapping) else []
        if not rows or not all(isinstance(row, Mapping) for _, row in rows):
            continue
        columns = list(dict.fromkeys(key for _, row in rows for key in row))
        head = "".join(f"<th>{escape(str(c))}</th>" for c in columns)
        lines = "".join(
            f"<tr><td>{escape(str(key))}</td>"
            + "".join(f"<td>{_text(row.get(c))}</td>" for c in columns)
            + "</tr>"
            for key, row in rows
        )
        made.append(
            f"<details><summary>{escape(name)}</summary>"
            f"<table><tr><th></th>{head}</tr>{lines}</table></details>"
        )
    return "".join(made)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_text(v) for v in value)
    return escape(str(value))
