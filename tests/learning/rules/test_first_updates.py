"""The first updates of the paper's own rules, against loops over single examples.

Every other rule has such a test in the file of its name.
"""

from typing import Any

import numpy as np
import pytest
import torch

Array = np.ndarray
LAYERS = (2, 1, 0)


def test_backpropagation(first_update: Any, slow_error: Any) -> None:
    made = first_update("bp")
    expected = []
    for x, y in made.examples():
        h = made.slow.forward(x)
        error, layers = slow_error(h[3], y), []
        for i in LAYERS:
            own, error = made.slow.back(i, h[i], error)
            layers.insert(0, own)
        expected.append(layers)
    made.step(*expected)


def test_feedback_alignment(first_update: Any, slow_error: Any) -> None:
    made = first_update("fa")
    slow, feedback = made.slow, made.rule.feedback
    # By the path of the weight whose place each takes on the way down.
    ways = [b.double().numpy() for b in feedback.values()]
    by_shape = {way.shape: way for way in ways}
    expected = []
    for x, y in made.examples():
        h = slow.forward(x)
        error, layers = slow_error(h[3], y), []
        for i in LAYERS:
            layers.insert(0, slow.back(i, h[i], error)[0])
            if i:
                way = by_shape[slow.weight[i].shape]
                error = slow.gate(i, h[i], error) @ way
        expected.append(layers)
    made.step(*expected)


def test_direct_feedback_alignment(first_update: Any, slow_error: Any) -> None:
    made = first_update("dfa")
    slow = made.slow
    ways = [b.double().numpy() for b in made.rule.feedback.values()]
    expected = []
    for x, y in made.examples():
        h = slow.forward(x)
        error = slow_error(h[3], y)
        errors = [error @ ways[0], error @ ways[1], error]
        expected.append([slow.back(i, h[i], errors[i])[0] for i in range(3)])
    made.step(*expected)


def test_kickback(first_update: Any, slow_error: Any) -> None:
    made = first_update("kickback")
    slow, expected = made.slow, []
    for x, y in made.examples():
        h = slow.forward(x)
        error = slow_error(h[3], y)
        # Unit k of the next layer stands for the error of class k mod 3.
        assigned = np.array([error[k % 3] for k in range(len(h[2]))])
        errors = [slow.back(1, h[1], assigned)[1], slow.back(2, h[2], error)[1], error]
        expected.append([slow.back(i, h[i], errors[i])[0] for i in range(3)])
    made.step(*expected)


def test_noise(first_update: Any, slow_error: Any) -> None:
    made = first_update("noise", sigma=0.5)
    slow, expected = made.slow, []
    twin = torch.Generator()
    twin.set_state(made.rule.generator.get_state())
    # From the output down, as errors are put.
    drawn = [torch.randn(7, units, generator=twin) for units in (4, 5)][::-1]
    for k, (x, y) in enumerate(made.examples()):
        h = slow.forward(x)
        errors = [0.5 * z[k].double().numpy() for z in drawn] + [slow_error(h[3], y)]
        expected.append([slow.back(i, h[i], errors[i])[0] for i in range(3)])
    made.step(*expected)


@pytest.mark.parametrize("name", ["sg", "dni"])
def test_synthetic_gradients(first_update: Any, slow_error: Any, name: str) -> None:
    made = first_update(name, at="every", sg_lr=0.1)
    slow, predictors = made.slow, list(made.rule.predictors.values())
    generator = torch.Generator().manual_seed(3)
    for predictor in predictors:
        predictor.weight.data.normal_(generator=generator)
    ways = [p.weight.detach().double().numpy().copy() for p in predictors]
    expected, moved = [], [np.zeros_like(way) for way in ways]
    for x, y in made.examples():
        h = slow.forward(x)
        label = np.eye(3)[y] if name == "sg" else []
        seen = [np.concatenate([h[i + 1], [1.0], label]) for i in range(2)]
        errors = [seen[i] @ ways[i] for i in range(2)] + [slow_error(h[3], y)]
        backs = [slow.back(i, h[i], errors[i]) for i in range(3)]
        expected.append([own for own, _ in backs])
        for i in range(2):  # towards what the block above has sent back
            moved[i] += 2 / 7 * np.outer(seen[i], errors[i] - backs[i + 1][1])
    made.step(*expected)
    for predictor, way, change in zip(predictors, ways, moved, strict=True):
        found = predictor.weight.detach().numpy()
        np.testing.assert_allclose(found, way - 0.1 * change, rtol=0, atol=2e-6)
