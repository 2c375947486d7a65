"""Metrics against scikit-learn, in their own units, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor

import repsim
from repsim.training.metrics import METRICS, resolve

REFERENCES = {
    "r2": r2_score, "rmse": root_mean_squared_error, "mae": mean_absolute_error,
}  # fmt: skip


@pytest.mark.parametrize("name", REFERENCES)
def test_numbers_against_scikit_learn(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.randn(40, 1, generator=rng)
    p = y + torch.randn(40, 1, generator=rng)
    expected = REFERENCES[name](y.numpy(), p.numpy())
    assert METRICS[name](p, y) == pytest.approx(expected, rel=1e-6)
    shift, scale = torch.tensor([100.0]), torch.tensor([20.0])
    own = REFERENCES[name]((y * 20 + 100).numpy(), (p * 20 + 100).numpy())
    assert METRICS[name].in_units(shift, scale)(p, y) == pytest.approx(own, rel=1e-5)


def test_r2_of_several_outputs_is_their_mean() -> None:
    rng = torch.Generator().manual_seed(0)
    y, p = torch.randn(40, 3, generator=rng), torch.randn(40, 3, generator=rng)
    expected = r2_score(y.numpy(), p.numpy())
    assert METRICS["r2"](p, y) == pytest.approx(expected, rel=1e-5)


def test_accuracy_of_classes_and_of_their_probabilities() -> None:
    output = torch.eye(3)[[0, 1, 2, 2]]
    y = torch.tensor([0, 1, 2, 0])
    assert METRICS["accuracy"](output, y) == 0.75
    assert METRICS["accuracy"](output, torch.eye(3)[y] * 0.5 + 0.1) == 0.75
    assert np.isnan(METRICS["accuracy"](output, torch.rand(4, 1)))


def test_what_is_taken_where_nothing_is_asked_for() -> None:
    numbers, classes = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    assert resolve(None, numbers, "mse").name == "r2"
    assert resolve(None, classes, "mse").name == "accuracy"
    assert resolve(None, numbers, "cross_entropy").name == "accuracy"


def worst(output: Tensor, y: Tensor) -> Tensor:
    """Return the largest error."""
    return (output - y).abs().max()


def _log(metric: Any, **options: Any) -> Any:
    net = repsim.networks.mlp(10, [8], 1, seed=0)
    rule = repsim.learning.make("bp", net, loss="mse", lr=1e-2)
    data = repsim.datasets.load("diabetes")
    x, y = repsim.datasets.to_tensors(data)
    assert y.shape == (332, 1) and y.dtype == torch.float32
    return repsim.train(
        rule, (x, (y - 150) / 75), 20, metric=metric, progress=False, **options
    )


def test_a_metric_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worst, "larger_is_better", False, raising=False)
    log = _log(worst)
    assert log.attrs["metric"] == "worst" and "accuracy" not in log
    assert log.attrs["metric_larger_is_better"] == 0
    assert float(log["worst"][-1]) < float(log["worst"][0])
    assert log["worst"].attrs["description"].startswith("worst of the monitored")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("rsme", "Did you mean 'rmse'"),
        (lambda output, y: output.nope, "metric 'metric' to be a function f"),
    ],
)
def test_metrics_that_cannot_be(metric: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _log(metric)


def test_a_metric_may_not_hide_what_a_record_holds() -> None:
    def loss(output: Tensor, y: Tensor) -> float:
        return 0.0

    with pytest.raises(ValueError, match="a function of another name as `metric`"):
        _log(loss)
    with pytest.raises(TypeError, match="`metric` to be a name or a function"):
        _log(3)
    with pytest.raises(ValueError, match="the targets are classes"):
        METRICS["rmse"](torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))
