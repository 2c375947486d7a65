"""One check for each kind of argument, and the sentence that it gives."""

from typing import Any

import numpy as np
import pytest
import torch

from repsim.core.messages import flag, number, require, seed_number, unknown, whole


@pytest.mark.parametrize("value", [3, np.int64(3), np.array(3), torch.tensor(3)])
def test_whole_numbers_of_any_library(value: Any) -> None:
    found = whole(value, "k")
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, [3, 4]])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(TypeError, match="Expected `k` to be a whole number, but got"):
        whole(value, "k")


def test_bounds_of_whole_numbers() -> None:
    assert whole(2, "k", 2, 2) == 2
    with pytest.raises(ValueError, match="Expected `k` to be at least 1, but got 0"):
        whole(0, "k", 1)
    with pytest.raises(ValueError, match="Expected `k` between 1 and 5, but got 6"):
        whole(6, "k", 1, 5)


def test_seeds() -> None:
    assert seed_number(2**32 - 1) == 2**32 - 1
    for wrong in (-1, 2**32):
        with pytest.raises(
            ValueError, match="Expected `seed` between 0 and 4294967295"
        ):
            seed_number(wrong)


def test_numbers_flags_and_types() -> None:
    assert number(np.float32(0.5), "lr") == 0.5
    with pytest.raises(TypeError, match="Expected `lr` to be a number, but got bool"):
        number(True, "lr")
    assert flag(False, "debiased") is False
    with pytest.raises(TypeError, match="`debiased` to be True or False, but got 'no'"):
        flag("no", "debiased")
    with pytest.raises(TypeError, match="Expected a rule, but got int"):
        require(False, 3, "a rule")


def test_unknown_names_name_the_nearest() -> None:
    said = unknown("layer", "hiden_1", ["hidden_1", "output"])
    assert said == (
        "Expected `layer` to be one of hidden_1, output, but got 'hiden_1'. "
        "Did you mean 'hidden_1'?"
    )
    assert unknown("layer", "x", []) == (
        "Expected `layer` to be one of (none exist), but got 'x'."
    )


def test_of_many_names_the_nearest_are_said() -> None:
    layers = [f"blocks.{i}.attention.output.dense" for i in range(48)]
    said = str(unknown("layers", "blocks.47.atention.output.dense", layers))
    assert len(said) < 400 and "blocks.47.attention.output.dense, " in said
    assert "… (48 in all), but got" in said and said.endswith("output.dense'?")
