"""Options that do not exist: the sentence names what was meant, or what there is."""

import pytest
from typer.testing import CliRunner

from repsim.cli.commands import app
from repsim.cli.suggestions import nearest


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["compare", "a", "--metric", "cka"], "Did you mean --measure?"),
        (["rdm", "a", "--measure", "cosine"], "Did you mean --metric?"),
        (["compare", "a", "--layer", "0"], "Did you mean --layers or --layers-b?"),
        (["compare", "a", "--output", "x.png"], "Did you mean --out?"),
        (["probe", "a", "--kontrol", "x"], "Did you mean --control?"),
        (["study", "--data", "mnist"], "Did you mean --dataset?"),
        (["rdm", "a", "--verbose"], "one of --metric, --layers, --step"),
        (["rdm", "a", "-o", "x"], "--json, --help, but got '-o'."),
        (["--verson"], "Expected an option of repsim, but got '--verson'."),
    ],
)
def test_an_unknown_option_is_answered(words: list[str], sentence: str) -> None:
    found = CliRunner().invoke(app, words, prog_name="repsim")
    assert found.exit_code == 2
    said = " ".join(found.output.split())
    assert sentence in said and said.count("Expected") == 1
    assert "Possible options" not in said and "--device?" not in said


def test_a_word_that_only_sounds_alike_is_no_suggestion() -> None:
    assert nearest("--epoch", ["--depth", "--seed"]) == ([], False)
    assert nearest("--verbose", ["--device", "--version"]) == (["--version"], False)


def test_what_may_be_left_out_stands_in_one_pair_of_brackets() -> None:
    said = CliRunner().invoke(app, ["compare", "--help"], prog_name="repsim").output
    assert "[B]" in said and "[[B]]" not in said
