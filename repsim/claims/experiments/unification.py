"""Every rule in one frame, and the two properties that make a gradient synthetic."""

import json
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.drawing import figure
from repsim.claims.experiments.optimisation import final
from repsim.claims.lab import Lab
from repsim.learning.rule import Rule
from repsim.networks import mlp

ROWS = ("bp", "fa", "dfa", "kickback", "sg", "dni", "sg_prop", "noise")
"""The rows of the paper's table, in its order (SG with and without the label)."""

RATE = 0.1


class Descent(torch.optim.SGD):
    """Plain descent, in which the update is the gradient times a known rate."""


def descent(parameters: Any, lr: float = RATE) -> Descent:
    """Return plain gradient descent; the factory that rules take."""
    return Descent(parameters, lr=lr)


@claim(
    "C17",
    order=25,
    statement=(
        "Backpropagation, feedback alignment, direct feedback alignment, Kickback and "
        "synthetic gradients are one scheme: an error put at each layer."
    ),
    source="Czarnecki et al. 2017, section 6 and Table 2",
    experiment=(
        "The frame's backpropagation against autograd (float32, six layers); feedback "
        "alignment with B = W' and direct feedback alignment with B = V' against "
        "backpropagation."
    ),
    gates=[
        Gate("bp in the frame − autograd", "<", 1e-6, "equal by theory; float32"),
        Gate("fa with transposed weights − bp", "<", 1e-6, "equal by theory; float32"),
        Gate(
            "dfa with the output's weights − bp", "<", 1e-6, "equal by theory; float32"
        ),
    ],
)
def one_frame(lab: Lab) -> Evidence:
    """Measure that the rules agree where they must."""
    names = ("bp in the frame − autograd", "fa with transposed weights − bp")
    last = "dfa with the output's weights − bp"
    measured: dict[str, list[float]] = {name: [] for name in (*names, last)}
    for seed in lab.seeds:
        autograd = _gradients(lab, "autograd", seed)
        measured[names[0]].append(_apart(_gradients(lab, "bp", seed), autograd))
        measured[names[1]].append(_apart(_gradients(lab, "fa", seed), autograd))
        shallow = _gradients(lab, "autograd", seed, depth=1)
        measured[last].append(_apart(_gradients(lab, "dfa", seed, depth=1), shallow))
    return Evidence(measured)


@claim(
    "E7",
    order=26,
    statement=(
        "The unification table: what each rule puts at a layer, what it locks, and how "
        "well it learns."
    ),
    source="Czarnecki et al. 2017, Table 2 (accuracies ours; the paper gives none)",
    experiment=(
        "Every rule on the shared networks, its rate tuned over the grid all share; "
        "the columns are what the rules say about themselves."
    ),
    uses=ROWS,
)
def unification_table(lab: Lab) -> Evidence:
    """Measure how well each row of the unification table learns."""
    study = lab.study(ROWS)
    ends = {name: final(study[name], "test_accuracy") for name in ROWS}
    measured = {f"test accuracy {name}": values for name, values in ends.items()}
    rates = lab.tuned(ROWS)
    table = {
        name: _row(lab, name)
        | {"rate": rates[name], "test accuracy": _spread(ends[name])}
        for name in ROWS
    }
    return Evidence(measured, _draw(ends), {"unification": table})


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def _row(lab: Lab, label: str) -> dict[str, Any]:
    """Return what a rule says about itself: its row of the table."""
    cell = lab.cell(label, 1e-3, lab.seeds[0])
    net = mlp(4, [4, 4], 2, batch_norm=False, seed=0)
    options = {k: v for k, v in json.loads(cell.options).items() if k != "at"}
    # Without the label, and with the regression's own gradient, the rule under test
    # is another row of the table.
    blind = options.pop("conditioned", True) is False
    rule = lab.make("dni" if blind else cell.rule, net, **options)
    rows = {info.method: info for info in rule.variants}
    info = rows.get("SG+prop", rule.info) if "prop" in options else rule.info
    return {
        "method": info.method,
        "error": info.error,
        "learned": info.learned,
        "update_locked": info.update_locked,
        "backward_locked": info.backward_locked,
        "sees_error": info.sees_error,
    }


def _network(seed: int, depth: int) -> nn.Sequential:
    return mlp(8, [16] * depth, 4, batch_norm=True, seed=seed)


def _batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 8, generator=generator)
    return x, torch.randint(0, 4, (32,), generator=generator)


def _gradients(lab: Lab, name: str, seed: int, depth: int = 5) -> list[Tensor]:
    """Return what a rule adds to `.grad`, with the feedback that makes it exact."""
    net = _network(seed, depth)
    x, y = _batch(seed)
    if name == "autograd":
        loss = nn.functional.cross_entropy(net(x), y)
        return list(torch.autograd.grad(loss, list(net.parameters())))
    rule: Any = lab.make(name, net, seed=seed)
    weights = {path: module.weight for path, module in _linear(net)}
    rule.prepare()
    for path, matrix in getattr(rule, "feedback", {}).items():
        exact = weights[path] if name == "fa" else weights["output"]
        matrix.copy_(exact.detach())
    rule.accumulate(x, y)
    return [p.grad for p in net.parameters() if p.grad is not None]


def _linear(net: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear)]


def _apart(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((u - v).abs().max()) for u, v in zip(a, b, strict=True))


def _draw(ends: dict[str, list[float]]) -> Figure:
    drawn, axes = figure(figsize=(7.2, 3.6))
    for i, values in enumerate(ends.values()):
        axes[0, 0].plot([i] * len(values), values, "o", alpha=0.6, mew=0, color="C0")
        axes[0, 0].hlines(np.mean(values), i - 0.25, i + 0.25, color="k")
    axes[0, 0].set_xticks(range(len(ends)), list(ends))
    axes[0, 0].set(ylabel="test accuracy", ylim=(0, 1.02))
    return drawn


@claim(
    "M1",
    order=27,
    statement=(
        "A predictor starts at zero, so the first update leaves everything below the "
        "split where it is; and a network that makes no error stays where it is."
    ),
    source="Jaderberg et al. 2017 (zero last layer); Czarnecki et al. 2017, section 3",
    experiment=(
        "One update of the rule by plain descent; and 500 updates from a linear "
        "network whose targets are its own outputs."
    ),
    gates=[
        Gate("way of the lower weights in one update", "==", 0.0, "zero by definition"),
        Gate(
            "way from a point of zero loss in 500 updates", "<", 1e-9, "zero by theory"
        ),
    ],
)
def starts_at_zero(lab: Lab) -> Evidence:
    """Measure what the rule does before its predictor has learned anything."""
    first, still = [], []
    for seed in lab.seeds:
        net = _network(seed, 4)
        rule = _rule(lab, net, seed)
        before = _lower(net, rule)
        rule.step(*_batch(seed))
        first.append(_apart(_lower(net, rule), before))
        teacher = mlp(
            6, [5, 5], 2, activation="identity", batch_norm=False, seed=seed
        ).double()
        x = torch.randn(50, 6, dtype=F64, generator=torch.Generator().manual_seed(seed))
        start = [p.detach().clone() for p in teacher.parameters()]
        rule = lab.make(lab.rule, teacher, at=[1], lr=1e-2, loss="mse", seed=seed)
        y = teacher(x).detach()
        for _ in range(500):
            rule.step(x, y)
        still.append(_apart([p.detach() for p in teacher.parameters()], start))
    return Evidence(
        {
            "way of the lower weights in one update": first,
            "way from a point of zero loss in 500 updates": still,
        }
    )


F64 = torch.float64


def _rule(lab: Lab, net: nn.Module, seed: int) -> Rule:
    return lab.make(lab.rule, net, at=[2], lr=RATE, optimizer=descent, seed=seed)


def _lower(net: nn.Module, rule: Rule) -> list[Tensor]:
    """Return copies of the parameters below the split."""
    blocks = list(rule.blocks)[: list(rule.blocks).index(rule.splits[0]) + 1]
    return [
        p.detach().clone() for name in blocks for p in rule.blocks[name].parameters()
    ]


@claim(
    "M2",
    order=28,
    statement=(
        "Above the split the network follows the true gradient and below it the "
        "predicted one; the predictor's own regression moves neither."
    ),
    source="Czarnecki et al. 2017, section 2 (the system's update rule)",
    experiment=(
        "After 20 updates, one more by plain descent; every parameter's change is "
        "compared with derivatives taken by autograd from the detached activation and "
        "the predicted error."
    ),
    gates=[
        Gate("upper update − true gradient", "<", 1e-6, "equal by definition; float32"),
        Gate("lower update − synthetic gradient", "<", 1e-6, "equal by definition"),
    ],
)
def two_gradients(lab: Lab) -> Evidence:
    """Measure one update of the rule against its definition."""
    upper: list[float] = []
    lower: list[float] = []
    for seed in lab.seeds:
        net = mlp(8, [16] * 4, 4, batch_norm=False, seed=seed)
        rule = _rule(lab, net, seed)
        x, y = _batch(seed)
        for _ in range(20):
            rule.step(x, y)
        expected = _expected(net, rule, x, y)
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        rule.step(x, y)
        made = {n: (before[n] - p.detach()) / RATE for n, p in net.named_parameters()}
        below = {n for n in made if n.split(".")[0] in ("hidden_1", "hidden_2")}
        for names, found in ((made.keys() - below, upper), (below, lower)):
            found.append(max(float((made[n] - expected[n]).abs().max()) for n in names))
    return Evidence(
        {
            "upper update − true gradient": upper,
            "lower update − synthetic gradient": lower,
        }
    )


def _expected(net: nn.Module, rule: Rule, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the definition, from the predicted error alone."""
    predicted = rule.errors(x, y)[rule.splits[0]][0].detach()
    blocks = list(net.children())
    h = blocks[1](blocks[0](x))
    named = dict(net.named_parameters())
    low = {
        n: p for n, p in named.items() if n.split(".")[0] in ("hidden_1", "hidden_2")
    }
    grads = torch.autograd.grad(h, list(low.values()), predicted / len(x))
    found = dict(zip(low, grads, strict=True))
    output = h.detach()
    for block in blocks[2:]:
        output = block(output)
    high = {n: p for n, p in named.items() if n not in low}
    loss = nn.functional.cross_entropy(output, y)
    grads = torch.autograd.grad(loss, list(high.values()))
    return found | dict(zip(high, grads, strict=True))
