"""What a network is scored by, as records and results carry it."""

import math

from repsim.core.scoring import ACCURACY, Score, score_of


def test_a_score_goes_through_attributes() -> None:
    rmse = Score("rmse", "RMSE", larger_is_better=False)
    assert score_of(rmse.attrs) == rmse and rmse.test == "test_rmse"
    assert score_of({"rule": "bp"}) == ACCURACY
    assert all(isinstance(v, str | int) for v in rmse.attrs.values())


def test_which_way_is_better() -> None:
    rmse = Score("rmse", "RMSE", larger_is_better=False)
    assert (rmse.best([3, 1, 2]), rmse.worst([3, 1, 2])) == (1, 3)
    assert (ACCURACY.best([3, 1, 2]), ACCURACY.worst([3, 1, 2])) == (3, 1)
    assert rmse.direction == "lower is better"
    # Differences of shares are read as they are, those of other scores by their size.
    assert ACCURACY.unit([0.1, 0.2]) == 1.0
    assert math.isclose(rmse.unit([50, 70]), 60)
