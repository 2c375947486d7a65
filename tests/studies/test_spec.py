"""The specification: defaults by data set, and what is refused."""

import json

import pytest

from repsim.studies.spec import make_spec, schedule, spec_from_json


def test_defaults_follow_the_data_set() -> None:
    assert (make_spec().depth, make_spec().width, make_spec().steps) == (8, 64, 400)
    mnist = make_spec(dataset="mnist")
    assert (mnist.depth, mnist.steps) == (20, 1500)
    assert make_spec(dataset="lin_2").depth == 8


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 400, 1500, 6000])
def test_the_schedule_begins_at_0_and_ends_at_the_last_step(steps: int) -> None:
    moments = schedule(steps)
    assert moments[0] == 0
    assert moments[-1] == steps
    assert moments == sorted(set(moments))
    assert len(moments) <= 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "`depth` to be at least 1, but got 0"),
        ({"width": -3}, "`width` to be at least 1, but got -3"),
        ({"seeds": 0}, "`seeds` to be at least 1, but got 0"),
        ({"seeds": [1, 1]}, r"different seeds, but got \[1, 1\]"),
        ({"seed": -1}, "`seed` to be at least 0"),
        ({"lr": 0.0}, "learning rates above 0"),
        ({"activation": "rlu"}, "Did you mean 'relu'"),
        ({"record": [0, 500]}, r"steps to record in 0…400, but got \[0, 500\]"),
        ({"conditions": ["sg:at"]}, "Expected a condition"),
    ],
)
def test_what_cannot_run_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_spec(**options)  # type: ignore[arg-type]


def test_a_specification_survives_json() -> None:
    spec = make_spec(["bp", "sg:at=3+4"], seeds=2, seed=5, lr=1e-3)
    assert spec_from_json(json.dumps({"spec": spec.as_dict()})) == spec
    assert spec.seeds == [5, 6]


@pytest.mark.parametrize("text", ["xx", "{}", '{"spec": {"a": 1}}'])
def test_another_file_of_that_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"study\.json to be what a study.*choose"):
        spec_from_json(text)
