"""Heat maps to choose from on a page: an analysis' numbers as a Vega-Lite chart."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import Any

from matplotlib.colors import to_hex

from repsim.plot.style import MISSING, UNDER


def chart(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Vega-Lite specification of what `analyses._study.explorer` returns.

    Its inputs are the page's own form elements, its cells speak for themselves: each
    has its names and value as text, which is also what it shows when pointed at.
    """
    rows, columns, views = shown["rows"], shown["columns"], shown["views"]
    choices = {choice["name"]: choice["options"] for choice in shown["choices"]}
    side = max(4, min(60, 420 / max(len(rows), len(columns))))
    chosen = [f"datum.{name} == {_at(name)}" for name in choices]
    chosen += ["datum.show == show"] * (len(views) > 1)
    bounds = {view["name"]: [view["low"], view["high"]] for view in views}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": f"heat map of {len(rows)} by {len(columns)} {shown['what']}s",
        "width": side * len(columns),
        "height": side * len(rows),
        "background": "transparent",
        "config": {"view": {"stroke": None}},
        "params": [
            *_inputs(choices, [view["name"] for view in views]),
            {"name": "steps", "value": choices.get("step", [])},
            {"name": "rows", "value": rows},
            {"name": "columns", "value": columns},
            {"name": "bounds", "value": bounds},
            {"name": "low", "expr": "bounds[show][0]"},
            {"name": "high", "expr": "bounds[show][1]"},
            {"name": "at", "value": -1},
        ],
        "data": {"values": _matrices(views, choices)},
        "transform": [
            {"filter": " && ".join(chosen) or "true"},
            {"calculate": "sequence(length(datum.cells))", "as": "cell"},
            {"flatten": ["cells", "cell"], "as": ["value", "cell"]},
            {
                "calculate": "isValid(datum.value) ? datum.value / 1000 : null",
                "as": "value",
            },
            {
                "calculate": "rows[floor(datum.cell / length(columns))]",
                "as": "row",
            },
            {"calculate": "columns[datum.cell % length(columns)]", "as": "column"},
            {
                "calculate": "datum.row + ' × ' + datum.column + ': ' + "
                "(isValid(datum.value) ? format(datum.value, '.3f') : 'no value')",
                "as": "said",
            },
        ],
        "mark": {"type": "rect", "invalid": None},
        "encoding": {
            "x": _axis("column", columns, -60),
            "y": _axis("row", rows[::-1], 0),
            "color": {
                "condition": [
                    {"test": "!isValid(datum.value)", "value": to_hex(MISSING)},
                    {"test": "low == 0 && datum.value < 0", "value": UNDER},
                ],
                "field": "value",
                "type": "quantitative",
                "legend": {"format": ".2f", "title": None, "tickCount": 3},
                "scale": {
                    "domain": [{"expr": "low"}, {"expr": "high"}],
                    "scheme": {"expr": "low < 0 ? 'redblue' : 'viridis'"},
                    "reverse": {"expr": "low < 0"},
                    "clamp": True,
                },
            },
            "strokeWidth": {
                "condition": {"test": "datum.cell == at", "value": 3},
                "value": 0,
            },
            "stroke": {"value": "#ff8c00"},
            "tooltip": {"field": "said"},
            "description": {"field": "said"},
        },
    }


def _at(name: str) -> str:
    """Return the expression of what is chosen."""
    return "steps[step]" if name == "step" else name


def _inputs(choices: Mapping[str, Any], views: list[str]) -> list[dict[str, Any]]:
    """Return a form element a choice: a slider for the step, lists for the rest."""
    show: dict[str, Any] = {"name": "show", "value": views[0]}
    if len(views) > 1:
        show["bind"] = {"input": "select", "options": views, "name": "show "}
    made = [show]
    for name, options in choices.items():
        last = len(options) - 1
        bind: dict[str, Any] = {"name": f"{name} "}
        if name == "step":
            bind |= {"input": "range", "min": 0, "max": last, "step": 1}
            made.append({"name": name, "value": last, "bind": bind})
        else:
            bind |= {"input": "select", "options": options}
            made.append({"name": name, "value": options[min(1, last)], "bind": bind})
    return made


def _matrices(
    views: list[dict[str, Any]], choices: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return one record a heat map: what it is of, and its cells row by row."""
    records = []
    for view in views:
        for places in product(*(range(len(options)) for options in choices.values())):
            cells = view["values"]
            for place in places:
                cells = cells[place]
            of = {
                name: options[place]
                for (name, options), place in zip(choices.items(), places, strict=True)
            }
            flat = [value for row in cells for value in row]
            records.append({"show": view["name"], **of, "cells": flat})
    return records


def _axis(field: str, names: list[str], angle: int) -> dict[str, Any]:
    axis = {"title": None, "labelAngle": angle, "labelOverlap": True, "ticks": False}
    return {"field": field, "type": "ordinal", "sort": names, "axis": axis}


@lru_cache(maxsize=1)
def vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that needs no network."""
    import vl_convert  # 30 MB, and pages without a chart need none of it

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
