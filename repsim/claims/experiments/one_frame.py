"""Every rule in one frame, and the two properties that make a gradient synthetic."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from repsim.claims.base import Evidence, Gate, claim
from repsim.claims.drawing import figure
from repsim.claims.experiments.linear_systems import (
    descent,
    strays,
)
from repsim.claims.experiments.optimisation import final
from repsim.claims.lab import Lab
from repsim.networks import mlp

ROWS = ("bp", "fa", "dfa", "kickback", "sg", "dni", "sg_prop", "noise")
"""The rows of the paper's table, in its order (SG with and without the label)."""


@claim(
    "C17",
    order=26,
    statement=(
        "Backpropagation, feedback alignment, direct feedback alignment, Kickback and "
        "synthetic gradients are one scheme: an error put at each layer."
    ),
    source="Czarnecki et al. 2017, section 6 and Table 2",
    experiment=(
        "Six layers with batch normalisation, float32. Each rule's own first step by "
        "plain descent (of the rule under test: from a predictor put at random) "
        "against a slow reference that puts the table's error at each layer and "
        "differentiates that layer alone; backpropagation also against autograd."
    ),
    gates=[
        Gate("bp − autograd", "<", 1e-6, "equal by theory; float32"),
        *(
            Gate(f"{name} − slow reference", "<", 1e-6, "equal by definition; float32")
            for name in ("bp", "fa", "dfa", "kickback", "rule under test")
        ),
    ],
    holds_for={"away": "the predictor is put at random here, whatever it starts from"},
)
def one_frame(lab: Lab) -> Evidence:
    """Measure every rule's first step against the error that the table says."""
    measured: dict[str, list[float]] = {"bp − autograd": []}
    for seed in lab.seeds:
        for name in ("bp", "fa", "dfa", "kickback"):
            made, reference, true = _first_step(lab, name, seed)
            measured.setdefault(f"{name} − slow reference", []).append(
                _apart(made, reference)
            )
            if name == "bp":
                measured["bp − autograd"].append(_apart(made, true))
        x, y = small_batch(seed)
        deviation = strays(lab.rule, small_network(seed, 5), x, y, at=[3], seed=seed)
        measured.setdefault("rule under test − slow reference", []).append(deviation)
    return Evidence(measured)


def _first_step(
    lab: Lab, name: str, seed: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return a rule's first step, the slow reference's and autograd's."""
    net, (x, y) = small_network(seed, 5), small_batch(seed)
    loss = nn.functional.cross_entropy(net(x), y)
    true = list(torch.autograd.grad(loss, list(net.parameters())))
    # At rate 1 a weight of size 1 leaves the step its last digits.
    rule: Any = lab.make(name, net, lr=1.0, optimizer=descent, seed=seed)
    rule.prepare()
    reference = slow_step(name, net, x, y, getattr(rule, "feedback", {}))
    before = [p.detach().clone() for p in net.parameters()]
    rule.step(x, y)
    made = [a - p.detach() for a, p in zip(before, net.parameters(), strict=True)]
    return made, reference, true


@claim(
    "E7",
    order=27,
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
    study = lab.study(ROWS, seeds=lab.few_seeds)
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


def small_network(seed: int, depth: int) -> nn.Sequential:
    """Return a network of normalised blocks, 8 → 16 … → 4."""
    return mlp(8, [16] * depth, 4, batch_norm=True, seed=seed)


def small_batch(seed: int) -> tuple[Tensor, Tensor]:
    """Return 32 inputs of 8 features with labels below 4."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 8, generator=generator)
    return x, torch.randint(0, 4, (32,), generator=generator)


def slow_step(
    name: str, net: nn.Module, x: Tensor, y: Tensor, feedback: Mapping[str, Tensor]
) -> list[Tensor]:
    """Return the gradients of a rule of the table, layer by layer from the top.

    Every block's output is differentiated by the block's own numbers alone, under the
    per-sample error that the rule puts there.
    """
    blocks = dict(copy.deepcopy(net).named_children())
    names, inputs, outs = list(blocks), [], []
    h = x
    for block in blocks.values():
        inputs.append(h.detach().requires_grad_())
        outs.append(block(inputs[-1]))
        h = outs[-1]
    p = outs[-1].detach()
    e = p.softmax(1) - nn.functional.one_hot(y, p.shape[1])
    gradients: list[Tensor] = []
    error = e
    for i in reversed(range(len(names))):
        own = list(blocks[names[i]].parameters())
        grads = torch.autograd.grad(
            outs[i], [*own, inputs[i]], error / len(x), retain_graph=True
        )
        gradients = [*grads[:-1], *gradients]
        if i == 0:
            break
        if name == "dfa":
            error = e @ feedback[names[i - 1]]
        elif name == "kickback":
            # Unit k stands for the error of class k mod C; one exact step down.
            put = e if i == len(names) - 1 else e[:, torch.arange(16) % e.shape[1]]
            (error,) = torch.autograd.grad(outs[i], inputs[i], put, retain_graph=True)
        elif name == "fa":
            error = _through(blocks[names[i]], inputs[i], error, feedback, names[i])
        else:
            error = grads[-1] * len(x)
    return gradients


def _through(
    block: nn.Module,
    entry: Tensor,
    error: Tensor,
    feedback: Mapping[str, Tensor],
    name: str,
) -> Tensor:
    """Return an error sent through a block, B in place of the linear layer's Wᵀ."""
    (path, linear), *rest = [
        (n, m) for n, m in block.named_modules(prefix=name) if not list(m.children())
    ]
    a = linear(entry).detach().requires_grad_()
    out = a
    for _, module in rest:
        out = module(out)
    if rest:
        (error,) = torch.autograd.grad(out, a, error)
    return error @ feedback[path]


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
