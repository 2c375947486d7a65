"""Batches as a training itself passes them, seen by hooks and kept until its update."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel
from torch.utils.hooks import RemovableHandle

from repsim.capture.batches import Batch, learnt_batch, moved
from repsim.capture.hooks import Hooks, recording
from repsim.capture.selection import Choice, Found, wrappers

TRAINING = "training"
"""In place of inputs: the batches that a training itself passes."""

Stack = list[tuple[str, Tensor | None]]
Reduction = Literal["mean", "sum"]


@dataclass
class LearntBatch(Batch):
    """A batch that was learnt from, with what the layers gave and which errors came."""

    outputs: list[tuple[str, Found, Stack]] = field(default_factory=list)
    errors: dict[str, Tensor] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)


class LearntBatches(Hooks):
    """Sees the passes of a training between two updates, and computes nothing itself.

    Only passes in training mode with gradients count: not those of a validation, of a
    recorder, or of a checkpoint that computes a second time. A pass begins when a
    module is called from outside the network that this pass has called already, so
    that a trainer may call the network's parts one by one.
    """

    def __init__(
        self,
        network: nn.Module,
        choices: Mapping[str, Choice],
        around: Mapping[str, nn.Module],
        *,
        axis: int,
        errors: bool,
    ) -> None:
        super().__init__(choices, self._keep, around)
        self._network, self._axis, self._errors = network, axis, errors
        self._batches: list[LearntBatch] = []
        self._on_tensors: list[RemovableHandle] = []
        self._trouble: Exception | None = None
        self.watching = self._counts = False

    def watch(self) -> None:
        """Look at all passes from now on."""
        self._batches, self._counts = [], False
        self.begin()
        if not self.watching:
            self.__enter__()
            self.watching = True

    def rest(self) -> None:
        """Look no longer; what was seen is kept until `taken`."""
        self.watching = False
        self.__exit__()
        while self._on_tensors:
            self._on_tensors.pop().remove()

    def taken(self) -> Iterator[LearntBatch]:
        """Yield what was seen, and forget it."""
        batches, self._batches = self._batches, []
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble
        if not any(batch.outputs or batch.failed for batch in batches):
            msg = (
                "Expected the network to be trained by passes in training mode between "
                "two calls of step(), but none was seen; call model.train(), and give "
                "the recorder the network that is trained, uncompiled."
            )
            raise ValueError(msg)
        yield from batches

    # A compiler that traces a hook finds nothing in it, and so leaves its code as is.

    def _mine(self) -> bool:
        compiling = torch.compiler.is_compiling()
        return not compiling and self._counts and bool(self.stack)

    def _entering(self, path: str) -> Any:
        push = super()._entering(path)

        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if torch.compiler.is_compiling():
                return
            if not self.stack:
                try:
                    self._enter_from_outside(path, args, kwargs)
                except Exception as error:
                    self._counts, self._trouble = False, error
            push(module, args, kwargs)

        return hook

    def _leaving(self, *called: Any) -> None:
        if not torch.compiler.is_compiling():
            super()._leaving(*called)

    def _enter_from_outside(self, path: str, args: Any, kwargs: Any) -> None:
        again = torch._C._current_graph_task_id() != -1  # a checkpoint's, in backward
        live = self._network.training and torch.is_grad_enabled()
        self._counts = live and not again and recording.get() is None
        if not self._counts:
            return
        if not self._batches or path in self._batches[-1].entered:
            self._calls.clear()
            batch = learnt_batch(LearntBatch, args, kwargs, self._axis)
            self._batches.append(batch)
        self._batches[-1].entered.add(path)

    def _failing(self, path: str, error: Exception) -> None:
        self._batches[-1].failed[path] = error  # said after the update, not in it

    def _keep(self, name: str, found: Found) -> None:
        batch = self._batches[-1]
        # Where a router may have sent tokens on, what it was given tells which.
        routed = any(t is not None and t.ndim > 2 for _, t in self.stack)
        stack = [(p, moved(t, None)) for p, t in self.stack] if routed else []
        batch.outputs.append((name, moved(found, None), stack))
        if self._errors and isinstance(found, Tensor) and found.requires_grad:
            keep = partial(_add_gradient, batch.errors, f"{name}@error")
            hook = found.register_hook(keep)  # type: ignore[no-untyped-call]
            self._on_tensors.append(hook)


def _add_gradient(errors: dict[str, Tensor], name: str, gradient: Tensor) -> None:
    held = errors.get(name)
    own = gradient.detach().clone()
    errors[name] = own if held is None else held + own


def as_errors(reduction: Reduction, batch: Batch) -> dict[str, Tensor]:
    """Return a batch's errors per sample: a mean's gradients times their number."""
    assert isinstance(batch, LearntBatch)
    many = batch.size if reduction == "mean" and batch.size else 1
    return {name: gradient * many for name, gradient in batch.errors.items()}


def check_watchable(model: Any, network: nn.Module) -> None:
    """Refuse a training whose passes hooks cannot see, or would change."""
    if not isinstance(model, nn.Module):
        msg = (
            'Expected a network for inputs="training", but got the learning rule '
            f"{type(model).__name__}, whose closed forms a hook would turn off; give "
            "fixed examples with errors=True."
        )
        raise ValueError(msg)
    compiled = any("_orig_mod" in m._modules for m in (*wrappers(model), network))
    compiled = compiled or any(
        getattr(m, "_compiled_call_impl", None) is not None for m in network.modules()
    )
    several = [m for m in wrappers(model) if isinstance(m, DataParallel)]
    if compiled or any(len(m.device_ids) > 1 for m in several):
        kind = "compiled" if compiled else "DataParallel over several devices"
        msg = (
            'Expected a network that Python runs in one thread for inputs="training", '
            f"but got a {kind} one, whose passes no hook sees; give fixed examples."
        )
        raise ValueError(msg)
