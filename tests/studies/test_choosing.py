"""Heat maps to choose from: what Vega draws are the numbers it was given."""

import re
from typing import Any

import numpy as np
import vl_convert
import xarray as xr

from repsim.analyses import _study
from repsim.plot.style import UNDER
from repsim.studies.choosing import chart, vega


def shown() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cells = xr.DataArray(
        rng.uniform(size=(2, 3, 2, 4)),
        dims=("pair", "step", "layer_a", "layer_b"),
        coords={"layer_a": ["a", "b"], "layer_b": ["p", "q", "r's", 's "t"']},
    )
    cells[1, 2, 0, 1], cells[1, 2, 1, 3] = np.nan, -0.25
    views = [
        _study.view("CKA", cells, 0.0, 1.0),
        _study.view("minus seeds", cells - cells[0], -1.0, 1.0),
    ]
    choices = {"pair": ["bp – bp", "bp – sg"], "step": [0, 7, 400]}
    return _study.explorer(choices, cells, views)


def drawn(spec: dict[str, Any], **chosen: Any) -> dict[str, str]:
    """Return what each cell says and its colour, as Vega draws it."""
    for parameter in spec["params"]:
        if parameter["name"] in chosen:
            parameter["value"] = chosen[parameter["name"]]
    svg = vl_convert.vegalite_to_svg(spec)
    cell = re.compile(r'<path aria-label="([^"]*)" role="graphics-symbol"[^>]*>')
    found = {}
    for match in cell.finditer(svg):
        if "rect mark" in match[0]:
            colour = re.search(r'fill="([^"]+)"', match[0])
            assert colour is not None
            found[match[1].replace("&quot;", '"').replace("&apos;", "'")] = colour[1]
    return found


def test_the_last_step_of_the_second_pair_is_drawn_first() -> None:
    data = shown()
    values = np.array(data["views"][0]["values"][1][2], dtype=float) / 1000
    found = drawn(chart(data))
    expected = []
    for i, row in enumerate(data["rows"]):
        for j, column in enumerate(data["columns"]):
            value = f"{values[i, j]:.3f}".replace("-", "−")
            expected.append(f"{row} × {column}: {value}".replace("nan", "no value"))
    assert list(found) == expected
    assert found["a × q: no value"] == "#d9d9d9"
    assert found['b × s "t": −0.250'] == UNDER


def test_few_layers_make_large_cells() -> None:
    spec = chart(shown())
    assert spec["width"] == 4 * 60
    assert spec["height"] == 2 * 60


def test_a_view_a_pair_and_a_step_are_chosen() -> None:
    data = shown()
    own = drawn(chart(data), pair="bp – bp", step=1)
    values = np.array(data["views"][0]["values"][0][1], dtype=float) / 1000
    said = [float(text.rpartition(": ")[2]) for text in own]
    np.testing.assert_allclose(said, values.ravel(), atol=1e-9)
    gap = drawn(chart(data), show="minus seeds", pair="bp – bp", step=1)
    assert {text.rpartition(": ")[2] for text in gap} == {"0.000"}
    # A difference of nothing is the scale's middle, which is nearly white.
    red, green, blue = map(int, re.findall(r"\d+", next(iter(gap.values()))))
    assert min(red, green, blue) > 235


def test_one_view_and_no_choice_is_a_chart_too() -> None:
    cells = xr.DataArray(
        [[0.5]],
        dims=("layer_a", "layer_b"),
        coords={"layer_a": ["a"], "layer_b": ["b"]},
    )
    data = _study.explorer({}, cells, [_study.view("CKA", cells, 0.0, 1.0)])
    assert list(drawn(chart(data))) == ["a × b: 0.500"]


def test_the_script_needs_no_network_and_ends_no_tag() -> None:
    assert "vegaEmbed" in vega()
    assert "</script" not in vega().lower()
