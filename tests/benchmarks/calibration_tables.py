"""Tables and verdicts of tests/benchmarks/calibration.py."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.claims.render import replaced

Row = dict[str, Any]


def means(row: Row) -> Row:
    """Return what the table shows of a cell."""
    seen = {key: total / row["repeats"] for key, total in row["sums"].items()}
    return {**row["labels"], "repeats": row["repeats"], **seen}


def table(rows: list[Row]) -> str:
    """Return the rows of one simulation as a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(key)) for key in columns) + " |")
    return "\n".join(lines)


def by_kinds(rows: list[Row]) -> str:
    """Return coverage with a column for each kind of data."""
    cells: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        shared = {key: row[key] for key in ("measure", "n", "p", "repeats")}
        cell = cells.setdefault(tuple(shared.values()), shared)
        cell[row["kind"]] = row["covers"]
    return table(list(cells.values()))


def error(rate: float, rows: list[Row]) -> str:
    """Return how well a rate is known, in words."""
    least = min(row["repeats"] for row in rows)
    noise = 100 * (rate * (1 - rate) / least) ** 0.5
    return f"a rate of {100 * rate:.0f} % is known to a standard error of {noise:.1f} %"


def coverage(rows: list[Row]) -> str:
    """Return which intervals cover outside 93 to 97 %, in a sentence."""
    outside = [
        f"{', '.join(str(v) for v in list(row.values())[:4])}: {row['covers']:.3f}"
        for row in rows
        if not 0.93 <= row["covers"] <= 0.97
    ]
    text = (
        f"{len(rows) - len(outside)} of {len(rows)} intervals cover 93 to 97 %; "
        + error(0.95, rows)
    )
    return text + (f". Outside: {'; '.join(outside)}." if outside else ".")


def grouped_coverage(rows: list[Row]) -> str:
    """Return the same of intervals over what was drawn independently."""
    groups = [row for row in rows if row["over"] == "group"]
    dependent = {row["data"] for row in groups}
    alone = [row for row in rows if row["data"] not in dependent]
    said = {"groups": groups, "independent examples": alone}
    return "\n".join(f"Over {k}: {coverage(some)}" for k, some in said.items() if some)


def level(rows: list[Row]) -> str:
    """Return which true nulls are rejected outside 3 to 7 %, in a sentence."""
    null = [
        (f"{kind}, {r['networks']}, spreads {r['spreads']}", float(r[kind]))
        for r in rows
        for kind in ("place", "profile_test", "spread")
        if (
            len(set(r["spreads"].split(" and "))) == 1
            if kind == "spread"
            else "place" not in r["networks differ in"]
        )
    ]
    outside = [
        f"{what}: {value:.3f}" for what, value in null if not 0.03 <= value <= 0.07
    ]
    inside = len(null) - len(outside)
    text = (
        f"{inside} of {len(null)} true nulls are rejected in 3 to 7 % of studies; "
        + error(0.05, rows)
    )
    return text + (f". Outside: {'; '.join(outside)}." if outside else ".")


VERDICTS: dict[str, Callable[[list[Row]], str]] = {
    "intervals": coverage,
    "data": grouped_coverage,
    "tests": level,
}


def show(
    rows: Mapping[str, Row], order: Mapping[str, Sequence[str]], page: Path | None
) -> None:
    """Print one Markdown table per simulation, or write them into a page."""
    text = page.read_text() if page else ""
    for which, names in order.items():
        of = [means(rows[n]) for n in names if n in rows and rows[n]["repeats"]]
        if not of:
            continue
        found = by_kinds(of) if which == "intervals" else table(of)
        if which in VERDICTS:
            found += "\n\n" + VERDICTS[which](of)
        if page is None:
            print(f"\n{which}\n\n{found}")
            continue
        text = replaced(text, which, found)
    if page:
        page.write_text(text)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    # No minus before a zero.
    return f"{round(value, 3) + 0.0:.3f}" if isinstance(value, float) else str(value)
