"""Linear and deep linear networks with one linear predictor, many seeds at once.

The same arithmetic as the rules `bp` and `sg` under full batches and Adam, written
out for linear layers so that one matrix product serves all seeds; a test holds both
to the same numbers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam on one tensor of parameters, the first axis counting seeds."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.mean, self.square = torch.zeros_like(values), torch.zeros_like(values)
        self.steps = 0

    def step(self, gradient: Tensor, lr: float) -> None:
        """Make one update in place."""
        self.steps += 1
        self.mean.lerp_(gradient, 1 - BETA1)
        self.square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        corrected = (self.square / (1 - BETA2**self.steps)).sqrt_().add_(EPSILON)
        self.values.addcdiv_(self.mean, corrected, value=-lr / (1 - BETA1**self.steps))


@dataclass
class Layers:
    """Affine layers of all seeds, views into one flat tensor of parameters."""

    flat: Tensor
    weights: list[Tensor]
    biases: list[Tensor]

    @classmethod
    def shaped(cls, flat: Tensor, sizes: list[int]) -> "Layers":
        """Return views of `flat`, (seed, parameter), as (in, out) and (1, out)."""
        weights, biases, at = [], [], 0
        for a, b in zip(sizes, sizes[1:], strict=False):
            weights.append(flat[:, at : at + a * b].view(-1, a, b))
            at += a * b
            biases.append(flat[:, at : at + b].view(-1, 1, b))
            at += b
        return cls(flat, weights, biases)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the input and every layer's output."""
        outputs = [x]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            outputs.append(torch.baddbmm(bias, outputs[-1], weight))
        return outputs


def count(sizes: list[int]) -> int:
    """Return the number of parameters of affine layers of these sizes."""
    return sum((a + 1) * b for a, b in zip(sizes, sizes[1:], strict=False))


def orthogonal(sizes: list[int], seed: int) -> Tensor:
    """Return orthogonal weights and zero biases of affine layers, flat."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        weight = torch.nn.init.orthogonal_(torch.empty(a, b), generator=generator)
        parts += [weight.flatten(), torch.zeros(b)]
    return torch.cat(parts)


def output_error(output: Tensor, y: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Return the mean loss of every seed and the per-sample error e."""
    if loss == "mse":
        error = output - y
        return 0.5 * error.square().sum(2).mean(1), error
    log = output.log_softmax(2)
    return -(log * y).sum(2).mean(1), log.exp() - y


def train(
    x: Tensor,
    y: Tensor,
    start: Tensor,
    sizes: list[int],
    *,
    loss: str,
    split: int | None,
    steps: int,
    lr: float = 3e-3,
    predictor: str = "linear",
    gate: Tensor | None = None,
    decay: bool = True,
) -> Tensor:
    """Train the networks of all seeds and return their losses."""
    layers = Layers.shaped(start.clone(), sizes)
    gradient = Layers.shaped(torch.zeros_like(start), sizes)
    adam = Adam(layers.flat)
    model = None
    if split is not None:
        model = _PREDICTORS[predictor](sizes[split], y, gate)
    losses = torch.empty(steps + 1, len(x), dtype=x.dtype)
    n = x.shape[1]
    for t in range(steps + 1):
        h = layers.forward(x)
        losses[t], error = output_error(h[-1], y, loss)
        if t == steps:
            break
        rate = lr * min(1.0, 2 * (1 - t / steps)) if decay else lr
        for i in reversed(range(len(layers.weights))):
            if model is not None and i == (split or 0) - 1:
                error = model.replace(h[i + 1], error, rate)
            scaled = error / n
            torch.bmm(h[i].transpose(1, 2), scaled, out=gradient.weights[i])
            torch.sum(scaled, 1, keepdim=True, out=gradient.biases[i])
            if i:
                error = error @ layers.weights[i].transpose(1, 2)
        adam.step(gradient.flat, rate)
    return losses


class _Linear:
    """S = hA + yB + C, from zero."""

    def __init__(self, units: int, y: Tensor, gate: Tensor | None) -> None:
        ones = torch.ones(*y.shape[:2], 1, dtype=y.dtype)
        self.fixed = torch.cat([y, ones], 2)
        shape = (len(y), units + self.fixed.shape[2], units)
        self.adam = Adam(torch.zeros(shape, dtype=y.dtype))

    def replace(self, h: Tensor, target: Tensor, lr: float) -> Tensor:
        """Return the prediction, and learn the target."""
        design = torch.cat([h, self.fixed], 2)
        predicted = design @ self.adam.values
        slope = design.transpose(1, 2) @ (predicted - target)
        self.adam.step(slope * (2 / h.shape[1]), lr)
        return predicted


class _Sigmoid:
    """S = d · sigmoid(hW) + yB + C: bounded in h, as the log loss's error is."""

    def __init__(self, units: int, y: Tensor, gate: Tensor | None) -> None:
        ones = torch.ones(*y.shape[:2], 1, dtype=y.dtype)
        self.fixed = torch.cat([y, ones], 2)
        like = {"dtype": y.dtype}
        eye = torch.eye(units, **like).expand(len(y), -1, -1).clone()  # type: ignore[call-overload]
        self.gate = Adam(eye if gate is None else gate.clone())
        self.scale = Adam(torch.zeros(len(y), 1, units, dtype=y.dtype))
        shape = (len(y), self.fixed.shape[2], units)
        self.rest = Adam(torch.zeros(shape, dtype=y.dtype))

    def replace(self, h: Tensor, target: Tensor, lr: float) -> Tensor:
        """Return the prediction, and learn the target."""
        opened = torch.sigmoid(h @ self.gate.values)
        predicted = self.scale.values * opened + self.fixed @ self.rest.values
        residual = (predicted - target) * (2 / h.shape[1])
        through = residual * self.scale.values * opened * (1 - opened)
        self.rest.step(self.fixed.transpose(1, 2) @ residual, lr)
        self.scale.step((residual * opened).sum(1, keepdim=True), lr)
        self.gate.step(h.transpose(1, 2) @ through, lr)
        return predicted


_PREDICTORS: dict[str, type[_Linear] | type[_Sigmoid]] = {
    "linear": _Linear,
    "sigmoid": _Sigmoid,
}
