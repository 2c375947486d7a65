"""StreamingCKA: the number of all examples at once, for every way of cutting them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import repsim
from repsim.measures.kernels import moments, streamed

N = 61


def layers(seed: int, n: int = N, offset: float = 1e4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).normal(size=(n, 8))
    return {
        "wide": rng.normal(size=(n, 8)) + shared + offset,
        "thin": 1e-3 * (rng.normal(size=(n, 2)) + shared[:, :2]),
        "many": rng.normal(size=(n, 90)) * 1e3 + offset,
    }


def dataset(values: dict[str, np.ndarray]) -> xr.Dataset:
    return xr.Dataset(
        {name: (("example", f"{name}_unit"), x) for name, x in values.items()}
    )


def part(values: dict[str, Any], rows: Any) -> dict[str, Any]:
    return {name: x[rows] for name, x in values.items()}


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, N), max_size=12).map(sorted),
    two=st.booleans(),
    debiased=st.booleans(),
    merged=st.booleans(),
)
def test_any_batches_give_the_number_of_all_examples(
    cuts: list[int], two: bool, debiased: bool, merged: bool
) -> None:
    a, b = layers(0), layers(1)
    expected = repsim.compare(
        dataset(a), dataset(b) if two else None, precision="float64", debiased=debiased
    )
    parts = [repsim.StreamingCKA(debiased=debiased) for _ in range(2)]
    for i, rows in enumerate(np.split(np.arange(N), cuts)):
        chosen = parts[i % 2 if merged else 0]
        chosen.update(part(a, rows), part(b, rows) if two else None)
        if chosen.examples > 3:
            chosen.compute()
    got = parts[0].merge(parts[1]).compute()
    np.testing.assert_allclose(got, expected, atol=1e-8, rtol=0)
    assert got.layer_a.values.tolist() == expected.layer_a.values.tolist()


def test_batches_of_one_and_a_last_batch_of_one() -> None:
    a = layers(0)
    expected = repsim.compare(dataset(a), precision="float64")
    for cuts in (range(1, N), [N - 1], [1]):
        streaming = repsim.StreamingCKA()
        for rows in np.split(np.arange(N), list(cuts)):
            streaming.update(part(a, rows))
        np.testing.assert_allclose(streaming.compute(), expected, atol=1e-10, rtol=0)


def test_a_first_batch_unlike_the_rest() -> None:
    a = layers(0, offset=0.0)
    a["wide"][0] += 30
    streaming = repsim.StreamingCKA()
    for rows in np.split(np.arange(N), [1, 30]):
        streaming.update(part(a, rows))
    expected = repsim.compare(dataset(a), precision="float64")
    np.testing.assert_allclose(streaming.compute(), expected, atol=1e-8, rtol=0)


def test_layers_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = layers(0), layers(1)
    monkeypatch.setattr(moments, "WIDE", 10)
    for other in (None, b):
        streaming = repsim.StreamingCKA()
        for rows in (slice(20), slice(20, None)):
            streaming.update(part(a, rows), None if other is None else part(b, rows))
        expected = repsim.compare(
            dataset(a), None if other is None else dataset(b), precision="float64"
        )
        np.testing.assert_allclose(streaming.compute(), expected, atol=1e-9, rtol=0)


def test_any_mapping_will_do() -> None:
    a = layers(0)
    expected = repsim.compare(dataset(a), precision="float64").values
    tensors = {n: torch.from_numpy(x).requires_grad_() for n, x in a.items()}
    for batch in (a, tensors, dataset(a), dict(dataset(a).data_vars)):
        streaming = repsim.StreamingCKA()
        streaming.update(batch)
        np.testing.assert_allclose(streaming.compute(), expected, atol=1e-10)
    step = dataset(a).expand_dims(step=[5])
    streaming.update(step.isel(step=0))
    assert streaming.examples == 2 * N


def test_what_tap_has_seen_while_a_network_trains() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU())
    streaming, kept = repsim.StreamingCKA(), []
    with repsim.tap(model, "*") as seen:
        for _ in range(5):
            x = torch.randn(9, 4)
            model(x)
            streaming.update(seen)
            kept.append({n: v.detach().clone() for n, v in seen.items()})
    whole = {n: torch.cat([k[n] for k in kept]).numpy() for n in kept[0]}
    expected = repsim.compare(dataset(whole), precision="float64")
    np.testing.assert_allclose(streaming.compute(), expected, atol=1e-10)


def test_the_result_says_what_it_is() -> None:
    streaming = repsim.StreamingCKA(debiased=False)
    streaming.update(layers(0), layers(1))
    got = streaming.compute()
    assert got.dims == ("layer_a", "layer_b")
    assert got.name == got.attrs["measure"] == "cka"
    assert got.attrs["examples"] == N
    assert '"debiased": false' in got.attrs["options"]


def test_constant_layers_are_nan_with_one_warning() -> None:
    a = layers(0)
    a["thin"][:] = 0.1
    streaming = repsim.StreamingCKA()
    for rows in np.split(np.arange(N), [1, 7]):
        streaming.update(part(a, rows))
    with pytest.warns(UserWarning, match="constant over the examples: 'thin'") as w:
        got = streaming.compute()
    assert len(w) == 1
    assert np.isnan(got.values).tolist() == [
        [False, True, False],
        [True, True, True],
        [False, True, False],
    ]


def test_merging_with_nothing() -> None:
    empty, full = repsim.StreamingCKA(), repsim.StreamingCKA()
    full.update(layers(0))
    expected = full.compute()
    xr.testing.assert_allclose(full.merge(empty).compute(), expected)
    xr.testing.assert_allclose(empty.merge(full).compute(), expected)
    full.update(part(layers(1), slice(0)))
    assert full.examples == N


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([np.eye(4)], TypeError, "`batch_a` to be a mapping from layer to"),
        ({}, ValueError, "`batch_a` to hold at least one layer"),
        ({"a": np.ones((2, 3, 4))}, ValueError, "repsim.reduce"),
        ({"a": np.eye(4), "b": np.eye(3)}, ValueError, r"got \[3, 4\] rows"),
        ({"a": np.eye(3)}, ValueError, r"layers of \[4\] units, but got \[3\]"),
        ({"b": np.eye(4)}, ValueError, r"Expected the layers .*'a'.*'b'"),
        ({"a": np.eye(4) * np.nan}, ValueError, r"`batch_a\['a'\]` to be finite"),
        (
            xr.Dataset({"a": (("step", "example", "a_unit"), np.ones((2, 3, 4)))}),
            ValueError,
            "to be of one step, but got 2",
        ),
    ],
)
def test_what_is_refused_adds_nothing(
    batch: Any, error: type[Exception], message: str
) -> None:
    streaming = repsim.StreamingCKA()
    streaming.update({"a": np.eye(4)})
    with pytest.raises(error, match=message):
        streaming.update(batch)
    assert streaming.examples == 4


def test_other_refusals() -> None:
    streaming = repsim.StreamingCKA()
    with pytest.raises(ValueError, match="at least 4 examples, but got 0"):
        streaming.compute()
    streaming.update({"a": np.eye(3)})
    with pytest.raises(ValueError, match="at least 4 examples, but got 3"):
        streaming.compute()
    with pytest.raises(TypeError, match="`other` to be a StreamingCKA"):
        streaming.merge({})  # type: ignore[arg-type]
    other = repsim.StreamingCKA()
    other.update({"b": np.eye(3)})
    with pytest.raises(ValueError, match="Expected the layers"):
        streaming.merge(other)
    with pytest.raises(ValueError, match="Expected the layers"):
        streaming.update({"a": np.eye(3)}, {"a": np.eye(3)})


# more units than fit


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("debiased", [False, True])
def test_wide_stored_layers_are_compared_a_run_of_rows_at_a_time(
    two: bool, debiased: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8))
    run = xr.Dataset(
        {
            name: (
                ("example", f"{name}_unit"),
                scale * np.tanh(x @ rng.normal(size=(8, units))) + scale * offset,
            )
            for name, units, scale, offset in (
                ("a", 3000, 1.0, 0.0),
                ("b", 2000, 1e30, 100.0),
                ("c", 500, 1e-30, 0.0),
            )
        }
    )
    run["c"][:20] *= 1e-30  # the first blocks are far smaller than the last
    run["d"] = run["c"].rename(c_unit="d_unit") * 0 + 3
    repsim.save_recording(run, tmp_path / "s.zarr")
    stored = repsim.open_recording(tmp_path / "s.zarr")
    sides = (stored, stored) if two else (stored, None)
    given = {"precision": "float64", "debiased": debiased}
    with pytest.warns(UserWarning, match="constant over the examples: layer 'd'"):
        cells = repsim.compare(*sides, memory=2**20, **given)
        expected = repsim.compare(run, **given)
    assert cells.attrs["space"] == "sample"
    assert cells.attrs["streamed"] == 1
    assert cells.attrs["memory"] == 2**20
    assert cells.attrs["reads"] == cells.attrs["passes"] + 2 > 4
    held = sum(v.nbytes for v in run.data_vars.values()) * (2 if two else 1)
    assert cells.attrs["bytes"] == held * cells.attrs["reads"]
    np.testing.assert_allclose(cells, expected, atol=1e-10)


def test_less_memory_is_more_reading_and_the_same_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = xr.Dataset(
        {
            f"l{i}": (("example", f"l{i}_unit"), rng.normal(size=(3000, 200)))
            for i in range(4)
        }
    )
    repsim.save_recording(run, tmp_path / "s.zarr")
    stored = repsim.open_recording(tmp_path / "s.zarr")
    expected = repsim.compare(run)
    seen = []
    for memory in (2**20, 2**24):
        cells = repsim.compare(stored, memory=memory)
        assert cells.attrs["space"] == "feature"
        seen.append(cells.attrs["reads"])
        np.testing.assert_allclose(cells, expected, atol=1e-10)
    assert seen[0] > seen[1] == 1
    with pytest.raises(ValueError, match="`memory` to be .*1048576"):
        repsim.compare(stored, memory=10)


def test_the_budget_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, taken in ((2**20, 2**28), (2**34, 2**31), (2**34 + 2**33, 2**31)):
        monkeypatch.setattr(streamed, "available_memory", lambda free=free: free)
        assert streamed.budget() == taken
    with streamed.within(5):
        assert streamed.budget() == 5
