"""Groups stay on one side, classes in proportion, and repeats are said."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from repsim.probes import probe_layers
from repsim.probes.splits import duplicates, splits
from repsim.probes.targets import Target


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(24, 60), st.sampled_from([0.25, 0.5]))
def test_no_group_is_on_both_sides(seed: int, m: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    kin = np.concatenate([np.arange(m), rng.integers(m, size=5 * m)])
    goal = Target("t", rng.permutation(np.arange(6 * m) % 3), np.arange(3))
    both = splits(goal, share, seed, repeats=3, groups=kin)
    for train, test in both:
        assert not np.intersect1d(kin[train], kin[test]).size
        assert np.array_equal(np.sort(np.r_[train, test]), np.arange(6 * m))
        held = np.bincount(goal.values[test], minlength=3) / (2 * m)
        assert (abs(held - share) < 0.25).all()
    assert len({tuple(test) for _, test in both}) == 3
    again = splits(goal, share, seed, repeats=3, groups=kin)
    for one, other in zip(both, again, strict=True):
        np.testing.assert_array_equal(one[1], other[1])


def stimuli() -> tuple[xr.Dataset, np.ndarray]:
    """Return 40 stimuli shown 8 times each, and a coin's answer to each stimulus."""
    rng = np.random.default_rng(0)
    stimulus = np.repeat(np.arange(40), 8)
    x = rng.normal(size=(40, 60))[stimulus]
    run = xr.Dataset(
        {"h": (("example", "h_unit"), x)},
        coords={"stimulus": ("example", stimulus)},
    )
    return run, rng.permutation(np.arange(40) % 2)[stimulus]


def test_what_repeats_tell_a_probe_is_said_and_taken_away() -> None:
    run, coin = stimuli()
    with pytest.warns(UserWarning, match="320 of 320 examples equal another one in"):
        fooled = probe_layers(run, coin, control=True)
    assert fooled["accuracy"] > 0.9
    found = probe_layers(run, coin, groups="stimulus", repeats=20, control=True)
    assert abs(found["accuracy"] - 0.5) < 0.15
    assert found.attrs["groups"] == "stimulus"
    # The control memorises coins of stimuli as well as the probe does.
    assert found["control_train_accuracy"] > 0.95
    by_array = probe_layers(run, coin, groups=run["stimulus"].values, repeats=20)
    np.testing.assert_array_equal(by_array["accuracy"], found["accuracy"])


def test_tokens_of_a_sequence_stay_together() -> None:
    rng = np.random.default_rng(0)
    sequence, position = np.divmod(np.arange(600), 20)
    topic = rng.integers(2, size=30)[sequence]
    own = rng.normal(size=(30, 50))[sequence]
    run = xr.Dataset(
        {"h": (("example", "h_unit"), own + 0.5 * rng.normal(size=(600, 50)))},
        coords={
            "sequence": ("example", sequence),
            "position": ("example", position),
            "label": ("example", topic),
        },
    )
    with pytest.warns(UserWarning, match="600 examples have 30 values of 'sequence'"):
        fooled = probe_layers(run)
    found = probe_layers(run, groups="sequence", repeats=10)
    assert fooled["accuracy"] > 0.9 and abs(found["accuracy"] - 0.5) < 0.2
    where = probe_layers(run, "position", groups="sequence", task="regression")
    assert where["r2"] < 0.1


def test_what_counts_as_a_duplicate() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), rng.integers(2, size=(50, 3)).astype("f4")
    x[7], y[7] = x[3], y[3]
    x[10], y[10] = x[3], 1 - y[3]  # equal in one layer only
    x[20:24], y[20:24] = 0, 1  # dead, so that all later layers agree
    run = xr.Dataset({"a": (("example", "au"), x), "b": (("example", "bu"), y)})
    assert duplicates(run) == 2
    both = xr.concat([run * 0, run], "step").transpose("step", "example", ...)
    assert duplicates(both) == 2
    assert duplicates(run[["b"]]) > 40
    run = run.assign_coords(example=np.arange(50) // 2)
    with pytest.warns(UserWarning, match="50 examples have 25 values of 'example'"):
        probe_layers(run, np.arange(50) % 2)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.zeros(320), "`groups` 'array' to have at least 2 groups, but got 1"),
        (np.arange(5), "`groups` to hold one value for each of the 320 examples"),
        ("stimulu", "Did you mean 'stimulus'"),
    ],
)
def test_groups_that_cannot_be(groups: object, message: str) -> None:
    run, coin = stimuli()
    with pytest.raises(ValueError, match=message):
        probe_layers(run, coin, groups=groups)  # type: ignore[arg-type]


def test_groups_that_are_the_classes_leave_none_to_learn_from() -> None:
    run, coin = stimuli()
    with pytest.raises(ValueError, match="Expected a training example of every class"):
        probe_layers(run, coin, groups=coin)
