"""Direct random target projection: the label goes to every layer."""

from typing import Any

import numpy as np


def test_the_first_update_is_the_slow_references(
    first_update: Any, slow_error: Any
) -> None:
    made = first_update("drtp")
    slow = made.slow
    feedback = [b.double().numpy() for b in made.rule.feedback.values()]
    expected = []
    for x, y in made.examples():
        h = slow.forward(x)
        errors = [-feedback[0][y], -feedback[1][y], slow_error(h[3], y)]
        expected.append([slow.back(i, h[i], errors[i])[0] for i in range(3)])
    made.step(*expected)
    assert np.shape(feedback[0]) == (3, 5)
