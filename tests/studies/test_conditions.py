"""Conditions: what a text means, and what is refused."""

import pytest

from repsim.core.seeding import derived_seed
from repsim.studies.conditions import parse, parse_all


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("bp", "bp"),
        ("sg:at=every", "sg_every"),
        ("sg:at=every:lr=5e-5", "sg_every_lr5e-5"),
        ("sg:init=bp", "sg_initbp"),
        ("sg:predictor=mlp:conditioned=false", "sg_predictormlp_conditionedfalse"),
    ],
)
def test_labels(text: str, label: str) -> None:
    assert parse(text).label == label


def test_values_are_numbers_lists_words_or_text() -> None:
    condition = parse("sg:at=3+7:lr=1e-3:conditioned=false:seed=4:predictor=mlp")
    assert dict(condition.options) == {
        "at": [3, 7],
        "lr": 1e-3,
        "conditioned": False,
        "seed": 4,
        "predictor": "mlp",
    }


@pytest.mark.parametrize("text", ["sg:at", "sg:=3", ":lr=1", "sg:at=", "", "a/b"])
def test_malformed_conditions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Expected a condition as rule:option=value"):
        parse(text)


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="got `lr` twice"):
        parse("bp:lr=1:lr=2")


def test_initialisations_differ_unless_shared() -> None:
    bp, sg, shared = parse_all(["bp", "sg", "sg:init=bp"])
    assert bp.init_seed(0) != sg.init_seed(0)
    assert bp.init_seed(0) != bp.init_seed(1)
    assert bp.init_seed(0) == shared.init_seed(0)
    assert bp.run_seed(0) != shared.run_seed(0)


def test_chains_of_shared_initialisations_end_at_their_source() -> None:
    bp, sg, fa = parse_all(["bp", "sg:init=bp", "fa:init=sg_initbp"])
    assert bp.init_seed(0) == sg.init_seed(0) == fa.init_seed(0)


def test_conditions_are_checked_against_each_other() -> None:
    with pytest.raises(ValueError, match="at least one condition"):
        parse_all([])
    with pytest.raises(ValueError, match="'bp' more than once"):
        parse_all(["bp", "bp"])
    with pytest.raises(ValueError, match="`init` to name a condition"):
        parse_all(["bp", "sg:init=fa"])


def test_derived_seeds_are_stable() -> None:
    # Frozen: a study begun with one version must continue with the next.
    assert derived_seed("init", "bp", 0) == 540355589
    assert derived_seed("run", "sg_every", 3) == 1281541527
    seeds = {derived_seed("init", label, s) for label in "abc" for s in range(50)}
    assert len(seeds) == 150
