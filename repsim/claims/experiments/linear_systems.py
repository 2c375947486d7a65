"""The system under test: networks, plain descent, and what a step is by definition.

The theory's experiments let the rule under test make its own `step`, and compare what
it did with the definition below, written with autograd from the two losses alone.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from repsim import learning
from repsim.claims.base import Gate
from repsim.learning.losses import one_hot
from repsim.learning.rule import Rule
from repsim.networks import mlp
from repsim.training.segment_groups import training_mode

if TYPE_CHECKING:
    from repsim.claims.lab import Lab

F64 = torch.float64
RATE = 0.1
SYNTHETIC = "S "

STRAYS = "step − the system's definition"
DEFINED = Gate(STRAYS, "<", 1e-10, "equal by definition; float64")
"""What every claim about the system demands first: that the rule makes its steps."""


class Descent(torch.optim.SGD):
    """Plain descent, in which the update is the gradient times a known rate."""


def descent(parameters: Any, lr: float = RATE) -> Descent:
    """Return plain gradient descent; the factory that rules take."""
    return Descent(parameters, lr=lr)


def set_rates(rule: Rule, **rates: float) -> None:
    """Give the optimisers `network` and `predictors` other learning rates."""
    for name, rate in rates.items():
        for group in rule.optimizers[name].param_groups:
            group["lr"] = rate


def descend(
    rule: Rule, x: Tensor, y: Tensor, steps: int, lr: float, decay: bool = True
) -> list[float]:
    """Return full-batch losses, the rate falling to zero over the second half."""
    losses = []
    # Of a fit that has nothing left to learn most numbers are denormal: five times the
    # time, unless they are flushed.
    with training_mode(rule):
        for t in range(steps):
            rate = lr * min(1.0, 2 * (1 - t / steps)) if decay else lr
            set_rates(rule, **dict.fromkeys(rule.optimizers, rate))
            losses.append(rule.step(x, y)["loss"])
    return torch.stack(losses).tolist()


def affine(sizes: Sequence[int], seed: int, *, at_output: bool = False) -> nn.Module:
    """Return affine layers in float64; `at_output` lets a predictor stand behind all.

    A predictor stands behind a hidden block, so the last affine layer becomes one and
    an identity the output.
    """
    *hidden, outputs = sizes[1:]
    net = mlp(
        sizes[0], hidden, outputs, activation="identity", batch_norm=False, seed=seed
    )
    if at_output:
        layers = list(net.children())
        named = {f"hidden_{i}": layer for i, layer in enumerate(layers, 1)}
        named[f"hidden_{len(layers)}"] = nn.Sequential(layers[-1])
        net = nn.Sequential(OrderedDict(**named, output=nn.Identity()))
    return net.double()


def flat(tensors: Any) -> Tensor:
    """Return tensors as one detached vector."""
    return torch.cat([t.detach().flatten() for t in tensors])


def put_back(net: nn.Module, vector: Tensor) -> None:
    """Copy what `flat` took of a network's parameters back into them."""
    parts = torch.split(vector, [p.numel() for p in net.parameters()])
    with torch.no_grad():
        for p, part in zip(net.parameters(), parts, strict=True):
            p.copy_(part.view_as(p))


def design(h: Tensor, y: Tensor | None) -> Tensor:
    """Return [h, 1, y], the rows that a linear predictor sees."""
    return torch.cat([h, h.new_ones(len(h), 1), *([] if y is None else [y])], 1)


def fitted(h: Tensor, y: Tensor | None, delta: Tensor) -> Tensor:
    """Return the least-squares predictor [h, 1, y] → delta, (d + 1 + k, d)."""
    predictor: Tensor = torch.linalg.lstsq(design(h, y), delta, driver="gelsd").solution
    return predictor


def stable_rate(h: Tensor, y: Tensor) -> float:
    """Return the predictor's rate at which its steepest direction is done in a step."""
    rows = design(h, y)
    return len(h) / 2 / float(torch.linalg.eigvalsh(rows.T @ rows)[-1])


def write_predictor(rule: Rule, phi: Tensor) -> None:
    """Give the linear predictor at the only split these numbers."""
    with torch.no_grad():
        read_predictor(rule).copy_(phi)


def read_predictor(rule: Rule) -> Tensor:
    """Return the numbers of the linear predictor at the only split."""
    weight: Tensor = predictors(rule)[rule.splits[0]].weight.data
    return weight


def predictors(rule: Rule) -> dict[str, Any]:
    """Return a rule's predictors by block."""
    modules: dict[str, Any] = getattr(rule, "predictors")  # noqa: B009
    return modules


def strays(name: str, net: nn.Module, x: Tensor, y: Tensor, **options: Any) -> float:
    """Return how far one step of the rule under test is from the definition.

    On a copy of the network, from predictors put at random: at zero, or where they are
    exact, a wrong rule may do the right thing.
    """
    rule = learning.make(
        name, copy.deepcopy(net), lr=1.0, sg_lr=1.0, optimizer=descent, **options
    )
    generator = torch.Generator().manual_seed(0)
    for predictor in predictors(rule).values():
        for p in predictor.parameters():
            p.data.add_(0.3 * torch.randn(p.shape, generator=generator).to(p))
    return max(deviations(rule, x, y, 1.0).values())


def deviations(rule: Rule, x: Tensor, y: Tensor, rate: float) -> dict[str, float]:
    """Return the largest difference between a step by plain descent and the definition.

    By part: "upper" (behind the last split), "lower" and "predictor".
    """
    expected = by_definition(rule, x, y)
    before = {name: p.detach().clone() for name, p in parameters(rule).items()}
    rule.step(x, y)
    blocks = list(rule.blocks)
    upper = set(blocks[blocks.index(rule.splits[-1]) + 1 :])
    largest = {"upper": 0.0, "lower": 0.0, "predictor": 0.0}
    for name, after in parameters(rule).items():
        block = name.split(".")[0]
        part = "upper" if block in upper else "lower"
        part = "predictor" if name.startswith(SYNTHETIC) else part
        apart = (before[name] - after.detach()) / rate - expected[name]
        largest[part] = max(largest[part], float(apart.abs().max()))
    return largest


def parameters(rule: Rule) -> dict[str, Tensor]:
    """Return the parameters of the blocks and of the predictors by name."""
    named: dict[str, nn.Module] = {**rule.blocks}
    named |= {f"{SYNTHETIC}{name}": p for name, p in predictors(rule).items()}
    return {
        f"{name}.{path}": parameter
        for name, module in named.items()
        for path, parameter in module.named_parameters()
    }


def by_definition(rule: Rule, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    r"""Return the gradients of the system, from the top segment down.

    Above the last split the loss is differentiated; below a split, what its predictor
    says of h; the predictor's regression is towards what the segment above sends back.
    Every segment starts at its detached input, so nothing else reaches a parameter.
    """
    net, blocks = copy.deepcopy(rule.network), list(rule.blocks)
    modules = dict(zip(blocks, net.children(), strict=True))
    gradients: dict[str, Tensor] = {}
    bounds = [0, *(blocks.index(name) + 1 for name in rule.splits), len(blocks)]
    entries, outs = [], []
    h = x
    for start, end in zip(bounds, bounds[1:], strict=False):
        entries.append(h.detach().requires_grad_())
        h = entries[-1]
        for name in blocks[start:end]:
            h = modules[name](h)
        outs.append(h)
    loss = rule.loss(outs[-1], y) * len(x)
    (error,) = torch.autograd.grad(loss, outs[-1], retain_graph=True)
    vectors = one_hot(y, outs[-1].shape[1]).to(x)
    for i in reversed(range(len(outs))):
        names = blocks[bounds[i] : bounds[i + 1]]
        own = {
            f"{name}.{path}": p
            for name in names
            for path, p in modules[name].named_parameters()
        }
        wanted = [*own.values(), entries[i]]
        grads = torch.autograd.grad(outs[i], wanted, error / len(x), allow_unused=True)
        gradients |= {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(own.items(), grads, strict=False)
        }
        if i:
            target = grads[-1] * len(x)
            name, h = blocks[bounds[i] - 1], entries[i].detach()
            gradients |= _regression(name, predictors(rule)[name], h, vectors, target)
            error = predicted(predictors(rule)[name], h, vectors).detach()
    return gradients


def _regression(
    name: str, predictor: Any, h: Tensor, y: Tensor, target: Tensor
) -> dict[str, Tensor]:
    """Return the gradient of mean ‖S(h, y) − target‖² by the predictor's numbers."""
    own = copy.deepcopy(predictor)
    loss = (predicted(own, h, y) - target).square().sum() / len(h)
    named = dict(own.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()))
    return {
        f"{SYNTHETIC}{name}.{path}": g for path, g in zip(named, grads, strict=True)
    }


def predicted(predictor: Any, h: Tensor, y: Tensor) -> Tensor:
    """Return S(h, y): hA + yB + C where the predictor has these, or what it says."""
    if not hasattr(predictor, "A"):
        output: Tensor = predictor(h, y)
        return output
    seen: Tensor = h @ predictor.A + predictor.C
    return seen if predictor.B is None else seen + y @ predictor.B


STARTS = "predictor's first error"
SYSTEM = (DEFINED, Gate(STARTS, "==", 0.0, "zero by definition"))
"""What every claim about trained networks demands of the rule that trained them."""


def system(lab: "Lab") -> dict[str, list[float]]:
    """Return what `SYSTEM` asks of the rule under test, on small deep networks."""
    measured: dict[str, list[float]] = {STRAYS: [], STARTS: []}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 8, generator=generator, dtype=F64)
    y = torch.arange(32) % 4
    for at in ([2], [1, 2, 3, 4]):
        net = mlp(8, [16] * 4, 4, batch_norm="after", seed=0).double()
        measured[STRAYS].append(strays(lab.rule, net, x, y, at=at))
        rule = lab.make(lab.rule, net, at=at)
        h = torch.randn(32, 16, generator=generator, dtype=F64)
        vectors = one_hot(y, 4).to(h)
        first = [predicted(p, h, vectors).detach() for p in predictors(rule).values()]
        measured[STARTS].append(max(float(s.abs().max()) for s in first))
    return measured
