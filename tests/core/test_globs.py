"""Tests of names chosen by patterns."""

import re

import pytest

from repsim.core.globs import chosen, glob

NAMES = ["stem", "layers.0.attn", "layers.0.mlp", "layers.1.attn", "layers.1.mlp", "a*"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*"], ["stem", "a*"]),
        (["**"], NAMES),
        (["**.attn"], ["layers.0.attn", "layers.1.attn"]),
        (["layers.[!0].*"], ["layers.1.attn", "layers.1.mlp"]),
        (["layers.?.mlp", "stem"], ["layers.0.mlp", "layers.1.mlp", "stem"]),
        (["stem", "*"], ["stem", "a*"]),
        (["!layers.**"], ["stem", "a*"]),
        (["layers.**", "!**.mlp"], ["layers.0.attn", "layers.1.attn"]),
        # A name is itself before it is a pattern.
        (["a*"], ["a*"]),
        (["stem", "stem"], ["stem", "stem"]),
    ],
)
def test_patterns_choose_names_in_order(
    patterns: list[str], expected: list[str]
) -> None:
    assert chosen(patterns, NAMES) == (expected, None)


@pytest.mark.parametrize(
    ("patterns", "odd"),
    [
        (["stem", "head*"], "head*"),
        (["**", "!head"], "!head"),
        (["stem", "!stem"], "stem !stem"),
        (["", ""], ""),
    ],
)
def test_what_matches_nothing_is_told(patterns: list[str], odd: str) -> None:
    assert chosen(patterns, NAMES) == ([], odd)


def test_what_regular_expressions_mean_is_taken_literally() -> None:
    assert glob("a.b+").fullmatch("a.b+")
    assert not glob("a.b").fullmatch("aXb")
    assert glob("[a").fullmatch("[a")
    assert isinstance(glob("[^a]"), re.Pattern)
