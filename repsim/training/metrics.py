"""Metrics of a trained network: accuracy, R², RMSE, or a function of a user's own."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from repsim.core.messages import require, unknown
from repsim.core.scoring import ACCURACY, Score

MetricFunction = Callable[[Tensor, Tensor], Any]
"""f(output, y) -> number, of all examples at once."""

TAKEN = ("loss", "displacement", "weight_norm", "update_norm", "staleness")
"""Variables of a training record that a metric may not be called."""


@dataclass(frozen=True)
class Metric(Score):
    """A score, and how it is computed."""

    function: MetricFunction | None = None

    def __call__(self, output: Tensor, y: Tensor) -> float:
        """Return the score of the outputs for some examples."""
        assert self.function is not None
        try:
            return float(self.function(output, y))
        except (
            ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError,
            ValueError,
        ) as error:  # fmt: skip
            msg = (
                f"Expected metric {self.name!r} to be a function f(output, y) -> "
                f"number, but with outputs of the shape {tuple(output.shape)} and `y` "
                f"of {tuple(y.shape)} and {y.dtype} it raised: {error}"
            )
            raise ValueError(msg) from error

    def in_units(self, shift: Tensor, scale: Tensor) -> "Metric":
        """Return the metric of standardised outputs and targets in their own units."""
        own = self.function
        assert own is not None

        def function(output: Tensor, y: Tensor) -> Any:
            return own(output * scale + shift, y * scale + shift)

        plain = {f.name: getattr(self, f.name) for f in fields(Score)}
        return Metric(**plain, function=function)


def accuracy(output: Tensor, y: Tensor) -> float:
    """Return the share of examples whose largest output is their class.

    Probabilities of classes (example, class) stand for the most probable one; of
    plain numbers there is no accuracy: NaN.
    """
    if y.is_floating_point():
        if y.ndim != 2 or y.shape[1] < 2:
            return float("nan")
        y = y.argmax(-1)
    # A quotient of whole numbers, so that it does not hang on how a mean is rounded.
    return int((output.argmax(-1) == y).sum()) / y.numel()


def r2(output: Tensor, y: Tensor) -> float:
    r"""Return :math:`1 - \sum (y - p)^2 / \sum (y - \bar y)^2`, a mean over outputs."""
    p, t = output.double(), _numbers(y).double()
    around = (t - t.mean(0)).square().sum(0)
    return float((1 - (t - p).square().sum(0) / around).mean())


def rmse(output: Tensor, y: Tensor) -> float:
    """Return the root of the mean squared error, in the target's unit."""
    return float((output.double() - _numbers(y).double()).square().mean().sqrt())


def mae(output: Tensor, y: Tensor) -> float:
    """Return the mean absolute error, in the target's unit."""
    return float((output.double() - _numbers(y).double()).abs().mean())


def _numbers(y: Tensor) -> Tensor:
    if not y.is_floating_point():
        msg = f"the targets are classes ({y.dtype}), no numbers"
        raise ValueError(msg)
    return y


METRICS = {
    "accuracy": Metric("accuracy", ACCURACY.words, share=True, function=accuracy),
    "r2": Metric("r2", "R²", share=True, function=r2),
    "rmse": Metric("rmse", "RMSE", larger_is_better=False, function=rmse),
    "mae": Metric("mae", "mean absolute error", larger_is_better=False, function=mae),
}
"""Names that `metric` takes."""


def resolve(metric: str | MetricFunction | None, y: Tensor, loss: str) -> Metric:
    """Return a metric; where none is asked for, accuracy, or R² where `y` are numbers.

    Floating-point labels under cross-entropy are probabilities of classes.
    """
    if metric is None:
        numbers = y.is_floating_point() and "cross" not in loss.lower()
        return METRICS["r2" if numbers else "accuracy"]
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ValueError(unknown("metric", metric, METRICS))
        return METRICS[metric]
    require(
        callable(metric), metric, "`metric` to be a name or a function f(output, y)"
    )
    name = str(getattr(metric, "__name__", type(metric).__name__)).lower()
    name = name if name.isidentifier() else "metric"  # of a lambda, for one
    if name in (*TAKEN, *METRICS):
        msg = (
            f"Expected a function of another name as `metric`, but got {name!r}, which "
            "a training record holds already; rename it."
        )
        raise ValueError(msg)
    better = getattr(metric, "larger_is_better", True)
    return Metric(name, name.replace("_", " "), bool(better), function=metric)


def whole_output(network: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """Return the network's outputs for all examples, taken in batches."""
    with torch.no_grad():
        return torch.cat([network(x[k : k + size]) for k in range(0, len(x), size)])
