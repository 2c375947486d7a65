"""Several networks of one condition as one: their layers' small costs are paid once.

Activations lie as (example, network, unit), so that normalisation, activation functions
and the optimiser see one wide layer, while each network's products stay its own. The
networks' parameters are views of the stack, so that each can be looked at at any time.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repsim.learning.closed_form import ACTIVATIONS, Affine, Normalisation, is_plain
from repsim.learning.losses import one_hot
from repsim.learning.optimisers import make_optimizer
from repsim.learning.passes import parts
from repsim.learning.rule import Rule
from repsim.learning.rules.backpropagation import Backpropagation
from repsim.learning.rules.synthetic import (
    SyntheticGradient,
    UnconditionedSyntheticGradient,
)
from repsim.learning.whole_step import loss_and_error

STACKED = (Backpropagation, SyntheticGradient, UnconditionedSyntheticGradient)
"""Rules that can be stacked."""


def can_stack(rules: Sequence[Rule]) -> bool:
    """Return whether `StackedRules` takes these rules.

    Parameters
    ----------
    rules : sequence of Rule
        Rules on networks of their own.

    Returns
    -------
    bool
        True for `bp`, `sg` and `dni` (linear predictors behind blocks of one width,
        bootstrapped) of the same options but the seed, on networks of linear layers,
        batch normalisation and relu, tanh or sigmoid, of the same shapes, on the CPU.

    Examples
    --------
    >>> import repsim
    >>> nets = [repsim.networks.mlp(4, hidden=[3], classes=2, seed=s) for s in (0, 1)]
    >>> can_stack([repsim.learning.make("sg", net) for net in nets])
    True
    """
    first = rules[0]
    if type(first) not in STACKED or first.schedule is not None:
        return False
    if isinstance(first, SyntheticGradient) and not (
        first.stack is not None and first.trace == 0 and first.prop == 0
    ):
        return False
    same = {**first.options, "seed": None}
    shapes = [tuple(p.shape) for p in first.network.parameters()]
    return all(
        type(rule) is type(first)
        and rule.chains is not None
        and is_plain(rule.modules)
        and {**rule.options, "seed": None} == same
        and rule.factory is first.factory
        and rule.steps == first.steps
        and [tuple(p.shape) for p in rule.network.parameters()] == shapes
        and all(p.device.type == "cpu" for p in rule.network.parameters())
        for rule in rules
    )


class StackedRules:
    """Rules of one condition, one a seed, that make their steps together.

    What comes out is what separate steps give, up to rounding.

    Parameters
    ----------
    rules : sequence of Rule
        As `can_stack` wants them; they have taken no step yet.

    Raises
    ------
    ValueError
        If they cannot be stacked.

    Examples
    --------
    >>> import repsim
    >>> nets = [repsim.networks.mlp(4, hidden=[3], classes=2, seed=s) for s in (0, 1)]
    >>> stack = StackedRules([repsim.learning.make("bp", net) for net in nets])
    >>> x, y = torch.rand(2, 8, 4), torch.arange(16).reshape(2, 8) % 2
    >>> [sorted(losses) for losses in stack.step(x, y)]
    [['loss'], ['loss']]
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = list(rules)
        first = self.rules[0]
        if not can_stack(self.rules) or first.steps:
            msg = (
                "Expected rules `bp`, `sg` or `dni` of one condition without a step, "
                "on plain networks of one shape, but these differ or cannot be "
                "stacked; train them one by one."
            )
            raise ValueError(msg)
        self.k = len(self.rules)
        self._layers: dict[str, list[Any]] = {name: [] for name in first.blocks}
        trained: list[nn.Parameter] = []
        for name, stacked in self._layers.items():
            chains = [(rule.chains or {})[name] for rule in self.rules]
            for layers in zip(*chains, strict=True):
                stacked.append(_stacked(layers, trained))
        self._parts = parts(first)
        self._optimizers = {"network": make_optimizer(trained, first.lr, first.factory)}
        self._predictors: nn.Parameter | None = None
        if isinstance(first, SyntheticGradient):
            stacks = [rule.stack for rule in self.rules]  # type: ignore[attr-defined]
            self._predictors = _joined([stack.weight for stack in stacks])
            self._optimizers["predictors"] = make_optimizer(
                [self._predictors], first.sg_lr, first.factory
            )

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor) -> list[dict[str, Tensor]]:
        """Make one update of every network.

        Parameters
        ----------
        x : Tensor, shape (networks, n, features)
            Each network's own batch.
        y : Tensor, shape (networks, n, …)
            Labels.

        Returns
        -------
        list of dict
            Each network's losses, as `Rule.step` gives them.

        Raises
        ------
        ValueError
            If shapes, labels or numbers are wrong.
        Diverged
            If a loss is not finite.
        """
        labels = [rule.check(a, b) for rule, a, b in zip(self.rules, x, y, strict=True)]
        h = x.transpose(0, 1).contiguous()
        n = len(h)
        saved: list[list[tuple[Any, Any]]] = []
        ends: list[Tensor] = []
        for names in self._parts:
            saved.append([])
            for layer in (layer for name in names for layer in self._layers[name]):
                h, kept = layer.forward(h)
                saved[-1].append((layer, kept))
            ends.append(h)
        made = [
            loss_and_error(rule, h[:, i], label)
            for i, (rule, label) in enumerate(zip(self.rules, labels, strict=True))
        ]
        losses = [{"loss": loss} for loss, _ in made]
        error = torch.stack([e for _, e in made], 1)
        for optimizer in self._optimizers.values():
            optimizer.zero_grad()
        seen, predicted = self._predict(ends, labels)
        residual = torch.empty_like(predicted)
        for place in range(len(self._parts) - 1, -1, -1):
            sent = _back(saved[place], error / n, send=place > 0)
            if place:
                error = predicted[:, place - 1].transpose(0, 1)
                sent = sent.mul_(n).transpose(0, 1)
                torch.sub(predicted[:, place - 1], sent, out=residual[:, place - 1])
        if self._predictors is not None:
            flat = residual.flatten(0, 1)
            grad = torch.bmm(seen.transpose(1, 2), flat).mul_(2 / n)
            self._predictors.grad = grad.view_as(self._predictors)
            distances = residual.square().sum((1, 2, 3)) / n
            for terms, distance in zip(losses, distances, strict=True):
                terms["sg_loss"] = distance
        for rule, terms, a in zip(self.rules, losses, x, strict=True):
            rule.check_finite(a, terms)
        for optimizer in self._optimizers.values():
            optimizer.step()
        for rule in self.rules:
            rule.steps += 1
        return losses

    def _predict(
        self, ends: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return what predictors see, and what they say (network, cut, n, units)."""
        if self._predictors is None:
            nothing = ends[0].new_empty(self.k, 0, 0, 0)
            return nothing, nothing
        k, cuts, rows, units = self._predictors.shape
        n = len(ends[0])
        seen = self._predictors.new_ones(k, cuts, n, rows)
        for i, h in enumerate(ends[:-1]):
            seen[:, i, :, :units] = h.transpose(0, 1)
        if rows > units + 1:
            classes = rows - units - 1
            for i, label in enumerate(labels):
                seen[i, :, :, units + 1 :] = one_hot(label, classes)
        flat = seen.flatten(0, 1)
        predicted = torch.bmm(flat, self._predictors.detach().flatten(0, 1))
        return flat, predicted.view(k, cuts, n, units)

    def hand_back(self) -> None:
        """End the stack: each rule gets its own numbers, its optimisers' included."""
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                for place, parameter in enumerate(group["params"]):
                    for i, rule in enumerate(self.rules):
                        self._hand(name, rule, optimizer, place, parameter, i)
        for rule in self.rules:
            beside = [
                p
                for o in rule.optimizers.values()
                for g in o.param_groups
                for p in g["params"]
            ]
            for tensor in (*beside, *rule.network.buffers()):
                tensor.data = tensor.data.clone()

    def _hand(
        self,
        name: str,
        rule: Rule,
        optimizer: torch.optim.Optimizer,
        place: int,
        parameter: Tensor,
        i: int,
    ) -> None:
        own = rule.optimizers[name].param_groups[0]["params"][place]
        for key, value in optimizer.state.get(parameter, {}).items():
            stacked = isinstance(value, Tensor) and value.shape == parameter.shape
            kept = value[i].reshape(own.shape) if stacked else value
            kept = kept.clone() if isinstance(kept, Tensor) else kept
            rule.optimizers[name].state[own][key] = kept


def _joined(tensors: Sequence[Tensor]) -> nn.Parameter:
    """Return tensors as one, of which they become views."""
    joined = nn.Parameter(torch.stack([t.detach() for t in tensors]))
    for tensor, part in zip(tensors, joined.data, strict=True):
        tensor.data = part
    return joined


def _stacked(layers: Sequence[Any], trained: list[nn.Parameter]) -> Any:
    """Return one layer for several, and note its parameters in the networks' order."""
    modules: list[Any] = [getattr(layer, "module", None) for layer in layers]
    if isinstance(layers[0], Affine):
        weight = _joined([m.weight for m in modules])
        trained.append(weight)
        bias = None
        if modules[0].bias is not None:
            bias = _joined([m.bias for m in modules])
            trained.append(bias)
        return _StackedAffine(weight, bias)
    if isinstance(layers[0], Normalisation):
        return _StackedNormalisation(modules, trained)
    assert layers[0] in ACTIVATIONS.values()
    return layers[0]


class _StackedAffine:
    """One product a network, into one activation."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output (n, networks, outputs), and the input."""
        output = x.new_empty(len(x), *self.weight.shape[:2])
        for i, weight in enumerate(self.weight.data):
            if self.bias is None:
                torch.mm(x[:, i], weight.t(), out=output[:, i])
            else:
                torch.addmm(self.bias.data[i], x[:, i], weight.t(), out=output[:, i])
        return output, x

    def backward(self, saved: Tensor, grad: Tensor, send: bool) -> Tensor:
        """Set the gradients; return the input's where it is wanted."""
        to_weight = torch.empty_like(self.weight)
        down = torch.empty_like(saved) if send else saved
        for i, weight in enumerate(self.weight.data):
            torch.mm(grad[:, i].t(), saved[:, i], out=to_weight[i])
            if send:
                torch.mm(grad[:, i], weight, out=down[:, i])
        self.weight.grad = to_weight
        if self.bias is not None:
            self.bias.grad = grad.sum(0)
        return down


class _StackedNormalisation:
    """Batch normalisation of all networks' units as those of one wide layer."""

    def __init__(
        self, modules: Sequence[nn.BatchNorm1d], trained: list[nn.Parameter]
    ) -> None:
        self.modules = modules
        self.weight = _joined([m.weight for m in modules])
        self.bias = _joined([m.bias for m in modules])
        trained += [self.weight, self.bias]
        self.mean, self.variance = (
            _joined([m.get_buffer(name) for m in modules]).data
            for name in ("running_mean", "running_var")
        )
        wide = nn.BatchNorm1d(self.weight.numel(), modules[0].eps, modules[0].momentum)
        wide.weight.data, wide.bias.data = (
            self.weight.data.view(-1),
            self.bias.data.view(-1),
        )
        wide.running_mean, wide.running_var = self.mean.view(-1), self.variance.view(-1)
        self._wide = Normalisation(wide)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """Return the output; move the running statistics once."""
        for module in self.modules:
            if module.num_batches_tracked is not None:
                module.num_batches_tracked.add_(1)
        output, saved = self._wide.forward(x.flatten(1))
        return output.view_as(x), saved

    def backward(self, saved: Any, grad: Tensor, send: bool) -> Tensor:
        """Set the gradients of scale and shift; return the input's."""
        wide: Any = self._wide.module
        wide.weight.grad = wide.bias.grad = None
        down = self._wide.backward(saved, grad.flatten(1))()
        self.weight.grad = wide.weight.grad.view_as(self.weight)
        self.bias.grad = wide.bias.grad.view_as(self.bias)
        return down.view_as(grad)


def _back(saved: Sequence[tuple[Any, Any]], grad: Tensor, *, send: bool) -> Tensor:
    """Differentiate one segment of all networks; return what it sends back."""
    for place in range(len(saved) - 1, -1, -1):
        layer, kept = saved[place]
        if isinstance(layer, _StackedAffine | _StackedNormalisation):
            grad = layer.backward(kept, grad.contiguous(), send=send or place > 0)
        else:
            grad = layer.backward(kept, grad)()
    return grad
