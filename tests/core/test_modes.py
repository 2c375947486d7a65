"""Every module gets its own flag back, also after an exception."""

import pytest
from torch import nn

from repsim.core.modes import kept_modes


@pytest.mark.parametrize("asked", [True, False, None])
def test_flags_come_back(asked: bool | None) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    model[1].training = False
    before = [m.training for m in model.modules()]
    inside = before if asked is None else [asked] * 4
    with pytest.raises(KeyError), kept_modes(model, training=asked):
        assert [m.training for m in model.modules()] == inside
        model[0].train(not model[0].training)
        raise KeyError
    assert [m.training for m in model.modules()] == before


def test_a_users_eval_is_not_called() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> "Merging":
            raise AssertionError("merges its adapters")

    with kept_modes(Merging(2, 2), training=False):
        pass
