"""Segments of plain layers, differentiated by hand: the same numbers, no graph.

For layers as small as these, building autograd's graph costs as much as the products.
Where every block is a chain of Linear, BatchNorm1d and an activation, and nothing
hangs on them (hooks, parametrisations, frozen parameters), the frame uses these
segments; otherwise those of `frame`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

aten = torch.ops.aten


class Layer(Protocol):
    """One layer's forward pass and the two halves of its backward pass."""

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """Return the output, and what `backward` needs."""

    def backward(self, saved: Any, grad: Tensor) -> Callable[[], Tensor]:
        """Add the parameters' gradients; what is returned gives the input's."""

    def pull(self, saved: Any, grad: Tensor) -> Tensor:
        """Return the input's gradient alone."""


Chains = dict[str, list[Layer]]
"""Block → its layers."""


@dataclass
class Affine:
    """xWᵀ + b; a matrix in `feedback` takes W's place where errors go down."""

    module: nn.Linear
    path: str
    feedback: Mapping[str, Tensor]

    @property
    def down(self) -> Tensor:
        """The matrix that takes an error down."""
        return self.feedback.get(self.path, self.module.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the input."""
        weight, bias = self.module.weight, self.module.bias
        if bias is None:
            return x @ weight.t(), x
        return torch.addmm(bias, x, weight.t()), x

    def backward(self, saved: Tensor, grad: Tensor) -> Callable[[], Tensor]:
        """Add gradᵀx and the sum of grad."""
        add_grad(self.module.weight, grad.t() @ saved)
        if self.module.bias is not None:
            add_grad(self.module.bias, grad.sum(0))
        return lambda: grad @ self.down

    def pull(self, saved: Tensor, grad: Tensor) -> Tensor:
        """Return grad·W, or grad·B."""
        return grad @ self.down


@dataclass
class Normalisation:
    """Batch normalisation with the batch's statistics."""

    module: nn.BatchNorm1d

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the output; move the running statistics once."""
        m, own, kept = self.module, self.module._parameters, self.module._buffers
        counted = kept["num_batches_tracked"]
        if counted is not None:
            counted.add_(1)
        output, mean, scale = torch.native_batch_norm(
            x,
            own["weight"],
            own["bias"],
            kept["running_mean"],
            kept["running_var"],
            True,
            m.momentum or 0.0,
            m.eps,
        )
        return output, (x, mean, scale)

    def _differentiate(
        self, saved: tuple[Tensor, ...], grad: Tensor, mask: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, mean, scale = saved
        kept = self.module._buffers
        gradients: tuple[Tensor, Tensor, Tensor] = aten.native_batch_norm_backward(
            grad,
            x,
            self.module._parameters["weight"],
            kept["running_mean"],
            kept["running_var"],
            mean,
            scale,
            True,
            self.module.eps,
            mask,
        )
        return gradients

    def backward(self, saved: tuple[Tensor, ...], grad: Tensor) -> Callable[[], Tensor]:
        """Add the gradients of scale and shift."""
        to_x, to_weight, to_bias = self._differentiate(saved, grad, [True] * 3)
        add_grad(self.module.weight, to_weight)
        add_grad(self.module.bias, to_bias)
        return lambda: to_x

    def pull(self, saved: tuple[Tensor, ...], grad: Tensor) -> Tensor:
        """Return the input's gradient, through the batch's statistics."""
        return self._differentiate(saved, grad, [True, False, False])[0]


@dataclass
class Activation:
    """A pointwise function, and its derivative from its output."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, twice."""
        output = self.function(x)
        return output, output

    def backward(self, saved: Tensor, grad: Tensor) -> Callable[[], Tensor]:
        """Return the input's gradient; there are no parameters."""
        return lambda: self.derivative(grad, saved)

    def pull(self, saved: Tensor, grad: Tensor) -> Tensor:
        """Return the input's gradient."""
        return self.derivative(grad, saved)


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(torch.relu, lambda g, h: aten.threshold_backward(g, h, 0)),
    nn.Tanh: Activation(torch.tanh, aten.tanh_backward),
    nn.Sigmoid: Activation(torch.sigmoid, aten.sigmoid_backward),
}


def lean_chains(
    blocks: Mapping[str, nn.Module], feedback: Mapping[str, Tensor]
) -> Chains | None:
    """Return every block as a chain of plain layers, or None where one is not."""
    chains: Chains = {}
    for name, block in blocks.items():
        chains[name] = []
        for path, module in _flattened(name, block):
            layer = _layer(module, path, feedback)
            if layer is None:
                return None
            chains[name].append(layer)
        if not any(isinstance(layer, Affine) for layer in chains[name]):
            return None
    return chains


def _flattened(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is nn.Sequential:
        for name, child in module.named_children():
            yield from _flattened(f"{path}.{name}", child)
    elif type(module) is not nn.Identity:
        yield path, module


def _layer(
    module: nn.Module, path: str, feedback: Mapping[str, Tensor]
) -> Layer | None:
    """Return the lean form of a module, if it has one."""
    if type(module) is nn.Linear:
        return Affine(module, path, feedback)
    if type(module) is nn.BatchNorm1d:
        usual = module.affine and module.track_running_stats
        return Normalisation(module) if usual and module.momentum is not None else None
    return ACTIVATIONS.get(type(module))


def is_plain(modules: Iterable[nn.Module]) -> bool:
    """Return whether modules are in training and nothing hangs on them."""
    for module in modules:
        inside = module.__dict__
        if (
            not inside["training"]
            or inside["_forward_hooks"]
            or inside["_forward_pre_hooks"]
            or inside["_backward_hooks"]
            or inside["_backward_pre_hooks"]
            or "forward" in inside
            or "parametrizations" in inside["_modules"]
        ):
            return False
        for parameter in inside["_parameters"].values():
            if parameter is not None and not parameter.requires_grad:
                return False
    return True


def add_grad(parameter: Tensor, grad: Tensor) -> None:
    """Accumulate a gradient as autograd does."""
    if parameter.grad is None:
        parameter.grad = grad
    else:
        parameter.grad += grad


def add_product(parameter: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """Accumulate the gradient scale · leftᵀ right in one pass."""
    product = torch.addmm if parameter.ndim == 2 else torch.baddbmm
    into, keep = parameter.grad, 1
    if into is None:
        into, keep = torch.empty_like(parameter), 0
    left = left.transpose(-1, -2)
    parameter.grad = product(into, left, right, beta=keep, alpha=scale, out=into)
