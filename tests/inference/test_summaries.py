"""Sentences and tables hold the numbers of the results they are of."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import repsim
from repsim import inference, probes

LAYERS = ["h1", "h2", "out"]


def recording(seed: int, steps: int = 2) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(99).normal(size=(24, 5))
    runs = [
        repsim.from_arrays(
            {
                name: common + (k + 1) / 3 * rng.normal(size=(24, 5))
                for k, name in enumerate(LAYERS)
            },
            labels=np.arange(24) % 2,
            examples=np.arange(24),
            rule="bp",
        )
        for _ in range(steps)
    ]
    return xr.concat(runs, xr.Variable("step", np.arange(steps) * 10))


@pytest.fixture(scope="module")
def study() -> xr.DataTree:
    names = ("bp/0", "bp/1", "bp/2", "sg/0", "sg/1", "sg/2")
    return xr.DataTree.from_dict({n: recording(i) for i, n in enumerate(names)})


def number(value: Any) -> str:
    return f"{float(value):.3f}".replace("-", "−")


def test_matching_layers_of_two_recordings() -> None:
    cells = repsim.compare(recording(0), recording(1))
    line = np.diagonal(cells.values[-1])
    best, worst = int(line.argmax()), int(line.argmin())
    said = repsim.summary(cells)
    assert said == (
        f"cka of 3 × 3 layers at step 10: matching layers from {number(line[best])} "
        f"({LAYERS[best]}) down to {number(line[worst])} ({LAYERS[worst]}), mean "
        f"{number(line.mean())}; at step 0 it was "
        f"{number(np.diagonal(cells.values[0]).mean())}."
    )


def test_a_recording_with_itself_tells_other_layers() -> None:
    run = recording(0, 1).isel(step=-1)
    cells = repsim.compare(run)
    others = cells.values[~np.eye(3, dtype=bool)]
    said = repsim.summary(cells)
    assert f"from {number(others.max())}" in said
    assert f"down to {number(others.min())}" in said


def test_one_of_a_kind_is_no_plural() -> None:
    said = repsim.summary(repsim.from_arrays({"fc": np.eye(4)}))
    assert "4 examples, 1 layer." in said


def test_networks_with_themselves_do_not_count(study: xr.DataTree) -> None:
    cells = repsim.compare(study)
    mean = np.mean([np.diagonal(c) for c in (
        cells.isel(step=-1, network_a=i, network_b=j).values
        for i in range(3) for j in range(3) if i != j
    )])  # fmt: skip
    said = repsim.summary(cells)
    assert f"bp – bp {number(mean)}, bp – sg " in said
    assert "sg – bp" not in said


@pytest.mark.filterwarnings("ignore:Too few networks")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda a, b, s: repsim.rdms(a), "correlation dissimilarities of 24 examples"),
        (lambda a, b, s: repsim.rdms(a).mean("layer"), "24 examples at step 10: "),
        (lambda a, b, s: repsim.effective_dimension(a), "effective_dimension at step"),
        (lambda a, b, s: probes.probe_layers(a), "Linear probes for label, held out"),
        (lambda a, b, s: probes.codelength_layers(a), "Code length of label: compress"),
        (lambda a, b, s: inference.confidence(a, b), "95% intervals over example: "),
        (
            lambda a, b, s: inference.permutation_test(
                a.isel(step=-1), b.isel(step=-1), permutations=49
            ),
            "9 of 9 pairs of layers are related",
        ),
        (lambda a, b, s: inference.seed_test(s, "bp", "sg"), "bp and sg (3 and 3 netw"),
        (
            lambda a, b, s: inference.equivalence_test(s, "bp", "sg", bound=2.0),
            "are alike within 2 at",
        ),
        (lambda a, b, s: a, "24 examples, 3 layers, 2 moments (steps 0 to 10)"),
        (lambda a, b, s: a.isel(step=[1]), "3 layers, 1 moment (step 10)."),
        (lambda a, b, s: s, "6 networks: bp (3), sg (3). The first: A recording"),
    ],
)
def test_every_kind_of_result_has_a_sentence(
    make: Callable[..., Any], says: str, study: xr.DataTree
) -> None:
    result = make(recording(0), recording(1), study)
    assert says in repsim.summary(result)
    assert result.repsim.summary() == repsim.summary(result)


def test_an_interval_is_the_result_s_own() -> None:
    found = inference.confidence(recording(0), recording(1)).isel(step=-1)
    k = np.unravel_index(found["estimate"].values.argmax(), (3, 3))
    best = found.isel(layer_a=k[0], layer_b=k[1])
    ends = ", ".join(number(best[name]) for name in ("low", "high"))
    assert f"{number(best['estimate'])} [{ends}]" in repsim.summary(found)


def test_the_best_model_is_named() -> None:
    rng = np.random.default_rng(0)
    truth, other = rng.random((2, 66))
    data = truth + 0.3 * rng.random((5, 66))
    found = inference.model_test(data, {"other": other, "truth": truth})
    said = repsim.summary(found)
    assert said.startswith("Of 2 models 'truth' explains most: spearman ")
    assert "It explains more than 1 of 1 others beyond chance." in said
    assert f"noise ceiling is {number(found.attrs['ceiling_low'])}" in said


def test_what_has_no_sentence_is_refused() -> None:
    with pytest.raises(TypeError, match="DataTree of repsim, but got list"):
        repsim.summary([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"but got a DataArray of dims \(time\)"):
        repsim.summary(xr.DataArray([1.0], dims="time"))
    with pytest.raises(ValueError, match="but got a Dataset"):
        repsim.summary(xr.Dataset({"a": ("time", [1.0])}))


def test_missing_cells_are_said() -> None:
    nothing = repsim.compare(recording(0), recording(1)) * np.nan
    assert repsim.summary(nothing).endswith("no cell has a value.")


def test_a_table_has_a_row_a_cell() -> None:
    cells = repsim.compare(recording(0), recording(1))
    rows = inference.table(cells)
    assert rows.columns.tolist() == ["step", "layer_a", "layer_b", "cka"]
    at = rows.query("step == 10 and layer_a == 'h2' and layer_b == 'out'")
    assert at["cka"].item() == cells.sel(step=10, layer_a="h2", layer_b="out").item()
    lengths = inference.table(probes.codelength_layers(recording(0)))
    assert "block_codelength" not in lengths and len(lengths) == 6
    assert inference.table(xr.DataArray([1.0], dims="x"))["x"].tolist() == [0]
