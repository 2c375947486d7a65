"""One training loop for every rule."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from repsim.core.bars import progress_bar
from repsim.learning import Rule
from repsim.learning.stacked import StackedRules, can_stack
from repsim.training.asynchronous import run_apart
from repsim.training.log import TrainingLog, due_steps
from repsim.training.metrics import MetricFunction, resolve
from repsim.training.order import Data, Order, as_tensors
from repsim.training.segment_groups import (
    check_unlocked,
    shared_out,
    training_mode,
)

MONITORED, DIAGNOSED = 1000, 128
"""Training examples that are evaluated, and those on which errors are compared."""

STALENESS = "batches a worker had begun after the one whose message came; -1 for none"


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
    workers: int | None = None,
    metric: str | MetricFunction | None = None,
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
    workers : int or None
        Number of processes that the rule's segments are shared out to, each of which
        learns without waiting for the others; None is this process alone. All meet at
        evaluations and where a recorder is due, when a message has reached everyone;
        functions among the callbacks are called there. A run that ends early (a worker
        dies, a loss is NaN, Ctrl-C) leaves the rule as it was at the latest meeting.
    metric : str, callable or None
        What networks are scored by: "accuracy", "r2", "rmse", "mae", or a function
        f(output, y) -> number of all examples at once, which is better the larger it
        is unless its attribute `larger_is_better` is False. None is accuracy for
        classes and R² for targets that are numbers.

    Returns
    -------
    Dataset
        `loss` and `accuracy` (or the metric's name, and `test_<name>`) of 1,000
        training examples, a fixed choice by `seed` (all where there are fewer),
        `test_loss`, `test_accuracy` (step); `displacement`,
        `weight_norm`, `update_norm` and with `diagnostics` those of
        `repsim.learning.error_diagnostics` (step, layer). With `workers` also
        `staleness` (worker, update): how many batches a worker had begun after the one
        whose message arrived, −1 where none was to come; the coordinate `segments`
        names those it holds, of which the last one hears (all, where the error at the
        output is what comes). From it `repsim.training.replay` repeats the run bit for
        bit.

    Raises
    ------
    ValueError
        If a number is out of range, data do not fit the network, the loss stops being
        finite (the sentence names step, rule and layer), the rule is locked and
        `workers` are asked for, or one of them ends.
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
    scored = resolve(metric, y, str(rule.options.get("loss")))
    log = TrainingLog(rule, (x[watched], y[watched]), held_out, diagnosed, scored)
    if workers is not None:
        check_unlocked(rule, workers, x, y)
    staleness: np.ndarray | None = None
    began = time.perf_counter()
    with training_mode(rule), _bar(rule, start, steps, progress, scored.name) as bar:
        if start in due:
            bar.measured(log.measure(start))
        if workers is not None:

            def meets(step: int) -> bool:
                return step in due or any(
                    c.due(step) for c in callbacks if hasattr(c, "due")
                )

            def met(step: int, since: int, losses: Mapping[str, Tensor]) -> None:
                for callback, call in zip(callbacks, calls, strict=True):
                    counts = callable(getattr(callback, "step", None))
                    for _ in range(step - since if counts else 1):
                        call(step, losses)
                if step in due:
                    bar.measured(log.measure(step))
                bar.update(losses, step - since)

            staleness = run_apart(
                rule, (x, y), workers, order, (start, steps), meets, met
            )
        for step in range(start + 1, steps + 1) if workers is None else ():
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
    record = _record(log, rule, order, seed, (start, steps), began)
    if staleness is not None:
        record["staleness"] = (("worker", "update"), staleness)
        record["staleness"].attrs["description"] = STALENESS
        parts = shared_out(rule.segments, len(staleness))
        held = [", ".join(segment.name for segment in part) for part in parts]
        record = record.assign_coords(
            update=np.arange(start + 1, steps + 1), segments=("worker", held)
        )
        record.attrs["workers"] = len(staleness)
    return record


def train_together(
    rules: Sequence[Rule],
    data: Data,
    steps: int = 1000,
    *,
    batch_size: int = 128,
    seeds: Sequence[int] | None = None,
    test: Data | None = None,
    eval_every: int | Iterable[int] | None = None,
    callbacks: Sequence[Sequence[Callback]] = (),
    progress: bool = True,
    diagnostics: bool = True,
    metric: str | MetricFunction | None = None,
) -> list[xr.Dataset]:
    """Train several networks of one condition as one, and return their records.

    Each gets what `train` gives it alone, up to rounding, in less time: see
    `repsim.learning.stacked.StackedRules`. Rules that cannot be stacked are trained
    one after another.

    Parameters
    ----------
    rules : sequence of Rule
        One a seed, on networks of their own, without a step.
    data, steps, batch_size, test, eval_every, progress, diagnostics, metric
        As in `train`.
    seeds : sequence of int or None
        Seed of the order of the data for each rule; None is 0, 1, ….
    callbacks : sequence of sequence
        Those of each rule; empty for none.

    Returns
    -------
    list of Dataset
        As `train` returns them, one a rule.

    Raises
    ------
    ValueError
        As `train`, and where rules, seeds and callbacks differ in number.

    Examples
    --------
    >>> import repsim
    >>> nets = [repsim.networks.mlp(64, hidden=[16], seed=s) for s in (0, 1)]
    >>> rules = [repsim.learning.make("bp", net, lr=1e-2) for net in nets]
    >>> data = repsim.datasets.load("digits")
    >>> logs = train_together(rules, data, steps=60, progress=False)
    >>> [bool(log.accuracy[-1] > 0.8) for log in logs]
    [True, True]
    """
    seeds = list(range(len(rules))) if seeds is None else list(seeds)
    callbacks = callbacks or [[] for _ in rules]
    if not rules or len({len(rules), len(seeds), len(callbacks)}) > 1:
        msg = (
            "Expected rules, and a seed and a list of callbacks for each, but got "
            f"{len(rules)}, {len(seeds)} and {len(callbacks)}."
        )
        raise ValueError(msg)
    every = eval_every if isinstance(eval_every, int | None) else list(eval_every)
    if any(rule.steps for rule in rules) or not can_stack(rules):
        return [
            train(
                rule,
                data,
                steps,
                batch_size=batch_size,
                seed=seed,
                test=test,
                eval_every=every,
                callbacks=own,
                progress=progress,
                diagnostics=diagnostics,
                metric=metric,
            )
            for rule, seed, own in zip(rules, seeds, callbacks, strict=True)
        ]
    _check_numbers(rules[0], steps, 0)
    x, y = as_tensors(data, rules[0].network)
    held_out = None if test is None else as_tensors(test, rules[0].network, "test")
    orders = [Order(len(x), batch_size, seed) for seed in seeds]
    due = due_steps(every, 0, steps)
    calls = [[_call(callback) for callback in own] for own in callbacks]
    scored = resolve(metric, y, str(rules[0].options.get("loss")))
    logs = []
    for rule, seed in zip(rules, seeds, strict=True):
        watched = _watched(len(x), seed)
        few = watched[:DIAGNOSED]
        diagnosed = (x[few], y[few]) if diagnostics else None
        seen = (x[watched], y[watched])
        logs.append(TrainingLog(rule, seen, held_out, diagnosed, scored))
    began = time.perf_counter()
    with ExitStack() as stack:
        for rule in rules:
            stack.enter_context(training_mode(rule))
        bar = stack.enter_context(_bar(rules[0], 0, steps, progress, scored.name))
        if 0 in due:
            for log in logs:
                bar.measured(log.measure(0))
        together = StackedRules(rules)
        stack.callback(together.hand_back)
        for step in range(1, steps + 1):
            picked = torch.stack([order[step - 1] for order in orders])
            if step in due:
                for log in logs:
                    log.remember()
            losses = together.step(x[picked], y[picked])
            for own, loss in zip(calls, losses, strict=True):
                for call in own:
                    call(step, loss)
            if step in due:
                for log in logs:
                    bar.measured(log.measure(step))
            bar.update(losses[0])
    return [
        _record(log, rule, order, seed, (0, steps), began)
        for log, rule, order, seed in zip(logs, rules, orders, seeds, strict=True)
    ]


def _record(
    log: TrainingLog,
    rule: Rule,
    order: Order,
    seed: int,
    span: tuple[int, int],
    began: float,
) -> xr.Dataset:
    """Return the record with what it was made by."""
    return log.dataset(
        {
            "rule": rule.name,
            "rule_options": json.dumps(rule.options, sort_keys=True),
            "seed": seed,
            "batch_size": order.size,
            "steps": span[1],
            "start": span[0],
            "examples": order.examples,
            "monitored_examples": len(log.train[0]),
            "diagnosed_examples": 0 if log.diagnosed is None else len(log.diagnosed[0]),
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


class _Bar:
    """The progress bar: the running loss, and the latest scores."""

    def __init__(self, bar: "tqdm[Any]", score: str) -> None:
        self.bar, self.told, self.score = bar, 0.0, score
        self.latest: dict[str, str] = {}

    def update(self, losses: Mapping[str, Tensor], count: int = 1) -> None:
        """Count updates; the loss is looked at a few times a second."""
        if self.bar.disable:
            return
        self.bar.update(count)
        now = time.monotonic()
        if now - self.told > 0.2:
            self.told = now
            self.latest["loss"] = f"{float(losses['loss']):.3f}"
            self.bar.set_postfix(self.latest, refresh=False)

    def measured(self, row: Mapping[str, Any]) -> None:
        """Show an evaluation."""
        self.latest["loss"] = f"{row['loss']:.3f}"
        self.latest[self.score] = f"{row[self.score]:.3f}"
        if f"test_{self.score}" in row:
            self.latest["test"] = f"{row[f'test_{self.score}']:.3f}"
        self.bar.set_postfix(self.latest, refresh=False)


@contextmanager
def _bar(
    rule: Rule, start: int, steps: int, progress: bool, score: str
) -> Iterator[_Bar]:
    """Open the bar on stderr."""
    with progress_bar(
        total=steps,
        initial=start,
        desc=rule.name,
        unit="step",
        progress=progress,
        dynamic_ncols=True,
    ) as bar:
        yield _Bar(bar, score)
