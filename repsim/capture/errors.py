"""Error signals at the layers, per sample, from a private pass with gradients."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from repsim.capture.batches import Batch, Forward, device_of, moved
from repsim.capture.hooks import Hooks
from repsim.capture.selection import Choice, Found

Loss = Callable[[Any, Any], Tensor]
Signals = Callable[[Batch], dict[str, Tensor]]


def of_loss(
    network: nn.Module,
    choices: Mapping[str, Choice],
    loss: Loss,
    forward: Forward | None,
) -> Signals:
    r"""Return a function batch -> gradient of the loss at each layer's output.

    .. math:: e_i = \partial L(f(x_i), y_i) / \partial h(x_i)

    The loss is called for one example at a time, so that its reduction over the
    batch does not matter.
    """

    def signals(batch: Batch) -> dict[str, Tensor]:
        labels = needed_labels(batch)
        edges: dict[str, GradientEdge] = {}

        def emit(name: str, tensor: Found) -> None:
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                # The edge stays the layer's own when the next layer works in place.
                edges[name] = get_gradient_edge(tensor)

        with torch.inference_mode(False), torch.enable_grad(), _all_gradients(network):
            hooks = Hooks(choices, emit)
            hooks.private = True
            with hooks:
                output = batch.run(network, forward)
            total = _summed(loss, output, moved(labels, device_of(network)), batch)
            if not edges or not total.requires_grad:
                return {}  # the layers are named when the recording is closed
            grads = torch.autograd.grad(total, list(edges.values()), allow_unused=True)
        return {
            f"{name}@error": gradient
            for name, gradient in zip(edges, grads, strict=True)
            if gradient is not None
        }

    return signals


def of_rule(rule: Any, choices: Mapping[str, Choice]) -> Signals:
    """Return a function batch -> the errors that a rule uses, and the true ones."""

    def signals(batch: Batch) -> dict[str, Tensor]:
        labels = needed_labels(batch)
        device = device_of(rule.network)
        with torch.inference_mode(False), torch.enable_grad():
            pairs = rule.errors(moved(batch.args[0], device), moved(labels, device))
        out: dict[str, Tensor] = {}
        for layer, (used, true) in pairs.items():
            if layer in choices:
                out[f"{layer}@error"] = used
                out[f"{layer}@true_error"] = true
        return out

    return signals


def needed_labels(batch: Batch) -> Any:
    """Return the labels of a batch, or say how to give them."""
    if batch.labels is None:
        msg = (
            "Expected labels to compute errors with, but the inputs carry none that "
            "are numbers; give `labels`, or batches of (inputs, labels)."
        )
        raise ValueError(msg)
    return batch.labels


@contextmanager
def _all_gradients(network: nn.Module) -> Iterator[None]:
    """Let gradients reach layers below frozen weights, and freeze these again."""
    frozen = [
        p for p in network.parameters() if not p.requires_grad and p.is_floating_point()
    ]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _summed(loss: Loss, output: Any, labels: Any, batch: Batch) -> Tensor:
    size = batch.size or len(labels)
    parts = [
        loss(_example(output, i, size), _example(labels, i, size)).sum()
        for i in range(size)
    ]
    return torch.stack(parts).sum()


def _example(value: Any, index: int, size: int) -> Any:
    """Return one example of an output, as a batch of one."""
    if isinstance(value, Tensor):
        rows = value.ndim > 0 and len(value) == size
        return value[index : index + 1] if rows else value
    if isinstance(value, Mapping):
        items = {k: _example(v, index, size) for k, v in value.items()}
        return type(value)(**items) if type(value) is not dict else items
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_example(v, index, size) for v in value))
    if isinstance(value, tuple | list):
        return type(value)(_example(v, index, size) for v in value)
    if is_dataclass(value) and not isinstance(value, type):
        one = copy.copy(value)
        for name, item in vars(value).items():
            object.__setattr__(one, name, _example(item, index, size))
        return one
    return value
