"""What is measured while a network trains: the training record."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from repsim.core.modes import kept_modes
from repsim.core.provenance import repsim_version
from repsim.learning import Rule, error_diagnostics
from repsim.learning.blocks import weights
from repsim.learning.diagnostics import NAMES
from repsim.training.metrics import Metric, whole_output

Row = dict[str, float | list[float]]


def due_steps(eval_every: int | Iterable[int] | None, start: int, end: int) -> set[int]:
    """Return the numbers of updates after which a run is evaluated."""
    if eval_every is None:
        eval_every = max((end + 19) // 20, 1)
    if isinstance(eval_every, int):
        if eval_every < 1:
            msg = f"Expected `eval_every` to be positive, but got {eval_every}."
            raise ValueError(msg)
        due = {*range(0, end + 1, eval_every), end}
    else:
        due = {int(step) for step in eval_every}
        outside = sorted(step for step in due if not 0 <= step <= end)
        if outside:
            msg = f"Expected steps of `eval_every` between 0 and {end}, but got "
            raise ValueError(msg + f"{outside[0]}.")
    return {step for step in due if step > start or step == start == 0}


class TrainingLog:
    """Measures a rule's network at the steps asked for, and gives the record."""

    def __init__(
        self,
        rule: Rule,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor] | None,
        diagnosed: tuple[Tensor, Tensor] | None,
        metric: Metric,
    ) -> None:
        self.rule, self.train, self.test = rule, train, test
        self.diagnosed, self.metric = diagnosed, metric
        self._before: dict[str, list[Tensor]] | None = None
        self.blocks: Mapping[str, nn.Module] = rule.blocks
        self.steps: list[int] = []
        self.rows: list[Row] = []

    def measure(self, step: int) -> Row:
        """Measure now, and keep it as the row of `step`."""
        loss, score = evaluate(self.rule, *self.train, self.metric)
        row: Row = {"loss": loss, self.metric.name: score}
        if self.test is not None:
            found = evaluate(self.rule, *self.test, self.metric)
            row["test_loss"], row[self.metric.test] = found
        row |= weight_change(self.blocks, self.rule.initial)
        row["update_norm"] = self._update_norm()
        if self.diagnosed is not None:
            diagnostics = error_diagnostics(self.rule, *self.diagnosed)
            row |= {name: list(values.values()) for name, values in diagnostics.items()}
        self.steps.append(step)
        self.rows.append(row)
        return row

    def remember(self) -> None:
        """Keep the weights as they are, for the norm of the update that follows."""
        self._before = _copies(self.blocks)

    def _update_norm(self) -> list[float]:
        """Return the norm of the latest update of every block's weights."""
        if self._before is None:
            return [float("nan")] * len(self.blocks)
        before, self._before = self._before, None
        now = _copies(self.blocks)
        return [
            _norm([a - b for a, b in zip(now[name], before[name], strict=True)])
            for name in self.blocks
        ]

    def dataset(self, attrs: Mapping[str, Any]) -> xr.Dataset:
        """Return the record as a Dataset over `step` (and `layer`)."""
        variables = {}
        for name in self.rows[0] if self.rows else ():
            values = np.array([row[name] for row in self.rows], dtype=np.float64)
            dims = ("step", "layer")[: values.ndim]
            variables[name] = (dims, values)
        coords = {
            "step": np.array(self.steps, dtype=np.int64),
            "layer": np.array(list(self.blocks), dtype=str),
        }
        log = xr.Dataset(variables, coords, attrs=dict(attrs))
        what = SCORED.get(self.metric.name, f"{self.metric.words} of {{}}")
        told = {
            self.metric.name: what.format("the monitored training examples"),
            self.metric.test: what.format("the test set"),
        }
        for name, text in (DESCRIPTIONS | told).items():
            if name in log:
                log[name].attrs["description"] = text
        return log.assign_attrs(
            repsim_version=repsim_version(),
            torch_version=str(torch.__version__),
            **self.metric.attrs,
        )


DESCRIPTIONS = {
    "loss": "mean loss of the monitored training examples, in eval mode",
    "test_loss": "mean loss of the test set, in eval mode",
    "displacement": "Frobenius norm of W - W0 over that of W0, W0 from before training",
    "weight_norm": "Frobenius norm of the weights (no biases, no scales)",
    "update_norm": "Frobenius norm of the latest update of the weights",
    **NAMES,
}

SCORED = {
    "accuracy": "share of {} classified correctly",
    "r2": "share of the variance of {} that is explained",
}


def evaluate(
    rule: Rule, x: Tensor, y: Tensor, metric: Metric, batch_size: int = 1024
) -> tuple[float, float]:
    """Return mean loss and score in eval mode, leaving no trace."""
    with torch.no_grad(), kept_modes(rule.network, training=False):
        output = whole_output(rule.network, x, batch_size)
        total = 0.0
        for first in range(0, len(x), batch_size):
            rows = slice(first, first + batch_size)
            total += float(rule.loss(output[rows], y[rows])) * len(output[rows])
        return total / len(x), metric(output, y)


def weight_change(
    blocks: Mapping[str, nn.Module], initial: Mapping[str, list[Tensor]]
) -> Row:
    """Return displacement ‖W − W₀‖/‖W₀‖ and ‖W‖ of every block's weights."""
    displacement, size = [], []
    for name, block in blocks.items():
        now, before = [w.detach() for w in weights(block)], initial[name]
        norm = _norm(before)
        moved = _norm([a - b for a, b in zip(now, before, strict=True)])
        displacement.append(moved / norm if norm else float("nan"))
        size.append(_norm(now) if now else float("nan"))
    return {"displacement": displacement, "weight_norm": size}


def _copies(blocks: Mapping[str, nn.Module]) -> dict[str, list[Tensor]]:
    return {n: [w.detach().clone() for w in weights(b)] for n, b in blocks.items()}


def _norm(parts: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(p.double().square().sum()) for p in parts))
