"""Arrays, hidden states and responses from elsewhere become recordings."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
import xarray as xr

import repsim
from repsim.datasets import from_hidden_states, from_responses


def test_values_names_and_dims(rng: np.random.Generator) -> None:
    fc, maps = rng.normal(size=(6, 3)), rng.normal(size=(6, 2, 4, 5))
    tokens = torch.randn(6, 7, 3, dtype=torch.bfloat16)
    mask = rng.random((6, 7)) > 0.3
    run = repsim.from_arrays(
        {"fc": fc, "conv.1": maps, "attn": tokens},
        labels=[0, 0, 1, 1, 2, 2], examples=[9, 8, 7, 6, 5, 4], mask=mask,
        rule="bp", seed=3,
    )  # fmt: skip
    assert repsim.layers(run) == ["fc", "conv.1", "attn"]
    assert run["conv.1"].dims == (
        "example", "conv.1_channel", "conv.1_y", "conv.1_x",
    )  # fmt: skip
    assert run["attn"].dims == ("example", "attn_token", "attn_unit")
    np.testing.assert_array_equal(run["fc"].values, fc)
    np.testing.assert_array_equal(run["attn"].values, tokens.float().numpy())
    np.testing.assert_array_equal(run["mask"].values, mask)
    assert run["example"].values.tolist() == [9, 8, 7, 6, 5, 4]
    assert run["label"].values.tolist() == [0, 0, 1, 1, 2, 2]
    assert (run.attrs["rule"], run.attrs["seed"]) == ("bp", 3)


def test_axes_that_are_said(rng: np.random.Generator) -> None:
    x = rng.normal(size=(5, 8, 3))
    run = repsim.from_arrays({"a": x}, axes="token example unit")
    assert run["a"].dims == ("example", "a_token", "a_unit")
    np.testing.assert_array_equal(run["a"].values, x.transpose(1, 0, 2))
    nhwc = rng.normal(size=(4, 6, 6, 2))
    run = repsim.from_arrays({"s": nhwc}, axes={"s": "example y x channel"})
    assert run["s"].dims == ("example", "s_y", "s_x", "s_channel")


@pytest.mark.parametrize(
    "values",
    [
        np.eye(4, dtype=np.float16),
        np.eye(4).astype(">f8"),
        np.eye(4, dtype=bool),
        np.eye(4, dtype=np.int32),
        scipy.sparse.csr_array(np.eye(4)),
        torch.eye(4, requires_grad=True),
        np.eye(4).tolist(),
    ],
)
def test_kinds_of_arrays(values: Any) -> None:
    run = repsim.from_arrays({"a": values})
    np.testing.assert_array_equal(run["a"].values.astype(float), np.eye(4))
    assert run["a"].dtype.isnative


def test_goes_through_store_and_measures(
    tmp_path: Any, rng: np.random.Generator
) -> None:
    run = repsim.from_arrays({"a": rng.normal(size=(20, 4))}, rule="bp")
    repsim.save_recording(run, tmp_path / "run.zarr")
    again = repsim.open_recording(tmp_path / "run.zarr")
    assert repsim.compare(again, run).item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ([np.eye(3)], {}, TypeError, "Expected `arrays` to be a mapping of layer name"),
        ({}, {}, TypeError, "but got dict without entries"),
        ({"a": np.ones(3)}, {}, ValueError, r"but got shape \(3,\); name them with"),
        ({"a": np.eye(3)}, {"axes": "example"}, ValueError, "an axis name for each of"),
        (
            {"a": np.eye(3), "b": np.eye(4)},
            {},
            ValueError,
            "'a' 3, 'b' 4; where",
        ),
        ({"a": np.array([["x"]])}, {}, ValueError, "to hold real numbers, but got <U1"),
        ({"a/b": np.eye(3)}, {}, ValueError, "no slashes"),
        ({"a": np.eye(3)}, {"examples": [1, 1, 2]}, ValueError, "but ids repeat"),
        ({"a": np.eye(3)}, {"examples": [0.5, 1, 2]}, ValueError, "3 whole-number ids"),
        ({"a": np.eye(3)}, {"labels": [1]}, ValueError, "Expected `labels` to hold a"),
    ],
)
def test_what_is_refused(
    arrays: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        repsim.from_arrays(arrays, **options)


def test_hidden_states() -> None:
    states = tuple(torch.full((2, 5, 3), float(i)) for i in range(3))
    run = from_hidden_states(states, mask=torch.ones(2, 5, dtype=torch.long))
    assert repsim.layers(run) == ["embedding", "block_1", "block_2"]
    assert float(run["block_2"].mean()) == 2.0
    assert run["mask"].dtype == bool
    with pytest.raises(ValueError, match="a name of its own for each of 3 hidden"):
        from_hidden_states(states, names=["a"])


def test_responses_with_repeats_and_subjects(rng: np.random.Generator) -> None:
    data = rng.normal(size=(2, 4, 10, 6))  # subject, repeat, condition, channel
    study = from_responses(
        data, axes="subject repeat condition channel", name="V1",
        conditions=np.arange(10) + 100, subjects=["ann", "bo"],
    )  # fmt: skip
    assert isinstance(study, xr.DataTree)
    ann = study["V1/ann"].to_dataset()
    np.testing.assert_allclose(ann["V1"].values, data[0].mean(0))
    assert repsim.layers(ann) == ["V1"]
    assert ann["example"].values.tolist() == list(range(100, 110))
    folds = ann["V1@repeats"].transpose("V1_repeat", "example", ...)
    np.testing.assert_array_equal(folds.values, data[0])
    assert repsim.crossnobis(folds.values).shape == (45,)
    one = from_responses(data[0, 0].T, axes="channel condition")
    assert isinstance(one, xr.Dataset)
    np.testing.assert_array_equal(one["response"].values, data[0, 0])


def test_responses_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="Expected `axes` to name each axis"):
        from_responses(np.eye(3), axes="condition unit")
    with pytest.raises(ValueError, match="Expected 3 names in `subjects`, but got 1"):
        from_responses(
            np.ones((3, 4, 5)), axes="subject condition channel", subjects=["a"]
        )
