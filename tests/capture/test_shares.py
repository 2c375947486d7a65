"""A share of the examples is what slicing all of them gives, in equal batches."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from repsim.capture.batches import batches_of
from repsim.capture.shares import divisible, rows_of

ROWS = 11
X = torch.arange(ROWS * 6.0).reshape(ROWS, 3, 2)
Y = torch.arange(ROWS)
WORDS = {"input_ids": X[..., 0].long(), "attention_mask": (X[..., 1] > 9).long()}
SCALE = torch.arange(13.0)[:, None]  # longer than any batch: no example's own


def _pieces(size: int) -> list[slice]:
    return [slice(i, min(i + size, ROWS)) for i in range(0, ROWS, size)]


def _forms(size: int) -> dict[str, list[Any]]:
    return {
        "tensors": [X[p] for p in _pieces(size)],
        "labelled": [(X[p], Y[p]) for p in _pieces(size)],
        "labelled by lists": [(X[p], Y[p].tolist()) for p in _pieces(size)],
        "dicts": [{k: v[p] for k, v in WORDS.items()} for p in _pieces(size)],
        "several": [((X[p], SCALE), Y[p]) for p in _pieces(size)],
    }


def _cat(parts: list[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    if isinstance(parts[0], dict):
        return {k: _cat([p[k] for p in parts]) for k in parts[0]}
    return torch.tensor([v for part in parts for v in part])


@given(
    size=st.integers(3, ROWS + 1),
    start=st.integers(0, ROWS - 1),
    length=st.integers(1, ROWS),
    form=st.sampled_from(sorted(_forms(1))),
)
def test_rows_of_batches_are_the_rows_of_all(
    size: int, start: int, length: int, form: str
) -> None:
    batches = list(batches_of(_forms(size)[form]))
    if form == "labelled by lists" and size < ROWS:
        assert not divisible(batches)  # a list might be anything
        return
    assert divisible(batches)
    rows = slice(start, min(start + length, ROWS))
    share = rows_of(batches, rows)
    most = min(size, ROWS)
    count = rows.stop - rows.start
    assert [b.size for b in share] == [
        min(most, count - i) for i in range(0, count, most)
    ]
    if "labelled" in form or form == "several":
        assert _cat([b.labels for b in share]).tolist() == Y[rows].tolist()
    if form == "dicts":
        got = _cat([b.kwargs for b in share])
        assert all(torch.equal(got[k], WORDS[k][rows]) for k in WORDS)
    else:
        assert torch.equal(_cat([b.args[0] for b in share]), X[rows])
    if form == "several":
        assert all(torch.equal(b.args[1], SCALE) for b in share)


@pytest.mark.parametrize(
    "inputs",
    [
        pack_sequence([torch.zeros(3, 2), torch.zeros(2, 2)]),
        [torch.zeros(4, 3), torch.zeros(4, 5)],
        [torch.zeros(4, 3), torch.zeros(4, 3).double()],
        [((torch.zeros(4, 3), SCALE), Y[:4]), ((torch.zeros(4, 3), SCALE + 1), Y[:4])],
    ],
    ids=["packed", "widths", "dtypes", "shared tensors"],
)
def test_what_does_not_fit_together_is_not_divided(inputs: Any) -> None:
    assert not divisible(list(batches_of(inputs)))
