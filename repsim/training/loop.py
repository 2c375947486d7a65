"""One training loop for every rule."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from repsim.core.modes import kept_modes
from repsim.learning import Rule
from repsim.training.log import TrainingLog, due_steps
from repsim.training.order import Data, Order, as_tensors

MONITORED, DIAGNOSED = 1000, 128
"""Training examples that are evaluated, and those on which errors are compared."""


class Stepped(Protocol):
    """A callback that counts for itself, such as a Recorder."""

    def step(self) -> object:
        """Count one update."""


Callback = Stepped | Callable[[int, Mapping[str, Tensor]], object]


def train(
    rule: Rule,
    data: Data,
    steps: int = 1000,
    *,
    batch_size: int = 128,
    seed: int = 0,
    test: Data | None = None,
    eval_every: int | Iterable[int] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    start: int = 0,
    diagnostics: bool = True,
) -> xr.Dataset:
    r"""Train a rule's network and return the training record.

    The displacement of a layer is :math:`\|W - W_0\|_F / \|W_0\|_F` with :math:`W_0`
    the weights when the rule was made (kept in its state, so also of a run that was
    continued).

    Parameters
    ----------
    rule : Rule
        From `repsim.learning.make`.
    data : Dataset or pair of Tensor
        Training data as `repsim.datasets.load` gives it, or (x, y).
    steps : int
        Number of updates at the end, those before `start` included.
    batch_size : int
        Examples an update; all of them where there are fewer, and the record's
        attribute says how many.
    seed : int
        Seed of the order of the data, which depends on it and on the step alone.
    test : Dataset, pair of Tensor or None
        Test data, evaluated whole.
    eval_every : int, iterable of int or None
        Evaluate after 0, k, 2k, … updates and at the end; exactly after these
        numbers of updates; or at 20 intervals.
    callbacks : sequence
        Called after every update: `.step()` where there is one, else
        f(step, losses).
    progress : bool
        Whether to show a bar with loss and accuracy on stderr.
    start : int
        Updates already made, to continue a run: load the rule's state first. The
        record then begins behind it.
    diagnostics : bool
        Whether to compare the rule's errors with the true ones at each evaluation,
        on the first 128 of the monitored examples.

    Returns
    -------
    Dataset
        `loss` and `accuracy` of 1,000 training examples, a fixed choice by `seed` (all
        where there are fewer), `test_loss`, `test_accuracy` (step); `displacement`,
        `weight_norm`, `update_norm` and with `diagnostics` those of
        `repsim.learning.error_diagnostics` (step, layer).

    Raises
    ------
    ValueError
        If a number is out of range, data do not fit the network, or the loss stops
        being finite: the sentence names step, rule and layer.
    TypeError
        If `data` is neither a Dataset nor a pair of tensors, or a callback cannot be
        called.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(64, hidden=[16], seed=0)
    >>> rule = repsim.learning.make("bp", net, lr=1e-2)
    >>> log = train(rule, repsim.datasets.load("digits"), steps=60, progress=False)
    >>> bool(log.accuracy[-1] > 0.8)
    True
    """
    _check_numbers(rule, steps, start)
    x, y = as_tensors(data, rule.network)
    held_out = None if test is None else as_tensors(test, rule.network, "test")
    order = Order(len(x), batch_size, seed)
    due = due_steps(eval_every, start, steps)
    calls = [_call(callback) for callback in callbacks]
    watched = _watched(len(x), seed)
    few = watched[:DIAGNOSED]
    diagnosed = (x[few], y[few]) if diagnostics else None
    log = TrainingLog(rule, (x[watched], y[watched]), held_out, diagnosed)
    began = time.perf_counter()
    with _training_mode(rule), _bar(rule, start, steps, progress) as bar:
        if start in due:
            bar.measured(log.measure(start))
        for step in range(start + 1, steps + 1):
            picked = order[step - 1].to(x.device)
            inputs, labels = x[picked], y[picked]
            if step in due:
                log.remember()
            losses = rule.step(inputs, labels)
            for call in calls:
                call(step, losses)
            if step in due:
                bar.measured(log.measure(step))
            bar.update(losses)
    return log.dataset(
        {
            "rule": rule.name,
            "rule_options": json.dumps(rule.options, sort_keys=True),
            "seed": seed,
            "batch_size": order.size,
            "steps": steps,
            "start": start,
            "examples": len(x),
            "monitored_examples": len(watched),
            "diagnosed_examples": len(few) if diagnostics else 0,
            "wall_s": round(time.perf_counter() - began, 3),
        }
    )


def _check_numbers(rule: Rule, steps: int, start: int) -> None:
    """Refuse counts that make no sense, and a start that is not the rule's."""
    if steps < 1 or not 0 <= start <= steps:
        msg = (
            "Expected `steps` to be positive and `start` between 0 and `steps`, but "
            f"got steps={steps} and start={start}."
        )
        raise ValueError(msg)
    made = getattr(rule, "steps", start)
    if start and start != made:
        msg = (
            f"Expected `start` to be the {made} updates that the rule has made, but "
            f"got {start}; load the state of that step with rule.load_state_dict."
        )
        raise ValueError(msg)


def _watched(examples: int, seed: int) -> Tensor:
    """Return the positions of the training examples that are evaluated."""
    if examples <= MONITORED:
        return torch.arange(examples)
    rng = np.random.default_rng([seed, 2**32])
    return torch.from_numpy(np.sort(rng.permutation(examples)[:MONITORED]))


def _call(callback: Callback) -> Callable[[int, Mapping[str, Tensor]], object]:
    """Return f(step, losses) for either kind of callback."""
    count = getattr(callback, "step", None)
    if callable(count):
        return lambda step, losses: count()
    if callable(callback):
        return callback
    msg = (
        "Expected a callback with `.step()`, or a function f(step, losses), but got "
        f"{type(callback).__name__}."
    )
    raise TypeError(msg)


@contextmanager
def _training_mode(rule: Rule) -> Iterator[None]:
    """Train mode and flushed denormals, both put back as they were.

    Adam's moments of units that have died decay into denormal numbers, which cost
    up to 1.4 times after some hundred steps.
    """
    tiny = torch.tensor(1e-40)
    flushed = float(tiny * 1.0) == 0.0
    with kept_modes(rule.network, training=True):
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(flushed)


class _Bar:
    """The progress bar: the running loss, and the latest accuracies."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self.bar, self.told = bar, 0.0
        self.latest: dict[str, str] = {}

    def update(self, losses: Mapping[str, Tensor]) -> None:
        """Count one update; the loss is looked at a few times a second."""
        if self.bar.disable:
            return
        self.bar.update()
        now = time.monotonic()
        if now - self.told > 0.2:
            self.told = now
            self.latest["loss"] = f"{float(losses['loss']):.3f}"
            self.bar.set_postfix(self.latest, refresh=False)

    def measured(self, row: Mapping[str, Any]) -> None:
        """Show an evaluation."""
        self.latest["loss"] = f"{row['loss']:.3f}"
        self.latest["accuracy"] = f"{row['accuracy']:.3f}"
        if "test_accuracy" in row:
            self.latest["test"] = f"{row['test_accuracy']:.3f}"
        self.bar.set_postfix(self.latest, refresh=False)


@contextmanager
def _bar(rule: Rule, start: int, steps: int, progress: bool) -> Iterator[_Bar]:
    """Open the bar on stderr."""
    with tqdm(
        total=steps,
        initial=start,
        desc=rule.name,
        unit="step",
        disable=not progress,
        dynamic_ncols=True,
    ) as bar:
        yield _Bar(bar)
