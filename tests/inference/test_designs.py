"""Which networks exchange names, and q-values."""

import numpy as np
from scipy import stats

from repsim.inference import false_discovery
from repsim.inference.designs import design


def test_q_values_leave_out_what_has_no_p() -> None:
    p = np.array([[0.01, np.nan], [0.04, 0.5]])
    q = false_discovery(p)
    assert np.isnan(q[0, 1])
    np.testing.assert_allclose(
        [q[0, 0], q[1, 0], q[1, 1]], stats.false_discovery_control([0.01, 0.04, 0.5])
    )
    assert np.isnan(false_discovery(np.array([np.nan]))).all()


def test_unknown_beginnings_are_ones_own() -> None:
    plan = design([("a", "0"), ("b", "0")], [None, None], "b")
    assert bool(plan.apart[0, 1])
    assert len(plan.blocks) == 1
