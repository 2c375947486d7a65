"""Synthetic gradients through time, against loops over examples and steps."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim import learning
from repsim.learning import RecurrentSyntheticGradient

BATCH, STEPS, FEATURES, UNITS, CLASSES = 3, 7, 2, 4, 3


def made(kind: str = "RNNCell", **options: Any) -> RecurrentSyntheticGradient:
    """Return a rule in float64 whose predictor is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cell = getattr(nn, kind)(FEATURES, UNITS).double()
        rule = RecurrentSyntheticGradient(
            cell, nn.Linear(UNITS, CLASSES).double(), **options
        )
        if rule.synthesiser is not None:
            for p in rule.synthesiser.parameters():
                nn.init.normal_(p, std=0.3)
    return rule


def sequences(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return inputs and a label for every step."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, STEPS, FEATURES, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, CLASSES, (BATCH, STEPS), generator=generator)


class Slow:
    """One example of a tanh network: every derivative by hand, λ-returns backwards."""

    def __init__(self, rule: RecurrentSyntheticGradient) -> None:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        p = [getattr(rule.cell, name).detach().numpy() for name in names]
        self.w_in, self.w_back, self.bias = p[0], p[1], p[2] + p[3]
        self.w_out = rule.readout.weight.detach().numpy()
        self.b_out = rule.readout.bias.detach().numpy()
        layer = rule.synthesiser
        self.a = 0 if layer is None else layer.weight.detach().numpy()
        self.c = 0 if layer is None else layer.bias.detach().numpy()

    def gradients(self, x: Any, y: Any, window: int, trace: float) -> dict[str, Any]:
        """Return the gradients of one example by name."""
        h = [np.zeros(UNITS)]
        for row in x:
            h.append(np.tanh(self.w_in @ row + self.w_back @ h[-1] + self.bias))
        outs = []
        for i, label in enumerate(y):
            share = np.exp(self.w_out @ h[i + 1] + self.b_out)
            share /= share.sum()
            share[label] -= 1
            outs.append(share)
        found: dict[str, Any] = {
            "out": sum(np.outer(o, s) for o, s in zip(outs, h[1:], strict=True)),
            "in": 0, "back": 0, "synthesiser": 0,
        }  # fmt: skip
        ends = [*range(window, len(x), window), len(x)]
        coming = np.zeros(UNITS)  # The λ-return at the end of the window.
        for end, begin in zip(ends[::-1], [*ends[-2::-1], 0], strict=True):
            last = end == len(x)
            said = np.zeros(UNITS) if last else self.a @ h[end] + self.c
            if not last:
                seen = np.append(h[end], 1.0)
                found["synthesiser"] += -2 * np.outer(coming - said, seen)
            used, sent = said, (1 - trace) * said + trace * coming
            for t in range(end, begin, -1):
                error = self.w_out.T @ outs[t - 1]
                gate = 1 - h[t] ** 2
                found["in"] += np.outer((error + used) * gate, x[t - 1])
                found["back"] += np.outer((error + used) * gate, h[t - 1])
                used = self.w_back.T @ ((error + used) * gate)
                sent = self.w_back.T @ ((error + sent) * gate)
            coming = sent
        return found


@pytest.mark.parametrize("trace", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_gradients_are_the_slow_references(window: int, trace: float) -> None:
    rule, (x, y) = made(window=window, trace=trace), sequences()
    slow = Slow(rule)
    rows = zip(x.numpy(), y.numpy(), strict=True)
    each = [slow.gradients(*row, window, trace) for row in rows]
    expected = {name: sum(one[name] for one in each) / BATCH for name in each[0]}
    rule.accumulate(x, y)
    layer = rule.synthesiser
    assert layer is not None and layer.weight.grad is not None
    assert layer.bias.grad is not None
    found = {
        "out": rule.readout.weight.grad,
        "in": rule.cell.weight_ih.grad,
        "back": rule.cell.weight_hh.grad,
        "synthesiser": torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-11)


def unrolled(
    rule: RecurrentSyntheticGradient, x: Tensor, y: Tensor, start: Tensor | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return every step's loss, and the states from the first on, of one graph."""
    states = [x.new_zeros(len(x), UNITS * rule.parts) if start is None else start]
    losses = []
    for t in range(x.shape[1]):
        parts = states[-1].split(UNITS, 1)
        out = rule.cell(x[:, t], parts if rule.parts == 2 else parts[0])
        states.append(torch.cat(out, 1) if rule.parts == 2 else out)
        output = rule.readout(states[-1][:, :UNITS])
        losses.append(nn.functional.cross_entropy(output, y[:, t]))
    return losses, states


@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
def test_returns_of_a_full_trace_are_the_true_gradients(kind: str) -> None:
    rule, (x, y) = made(kind, window=2, trace=1.0), sequences()
    losses, states = unrolled(rule, x, y)
    layer = rule.synthesiser
    assert layer is not None
    expected = torch.zeros_like(layer.weight)
    for t in range(2, STEPS, 2):
        coming = BATCH * torch.stack(losses[t:]).sum()
        (true,) = torch.autograd.grad(coming, states[t], retain_graph=True)
        apart = (true - layer(states[t])).detach()
        expected -= 2 / BATCH * apart.T @ states[t].detach()
    rule.accumulate(x, y)
    torch.testing.assert_close(layer.weight.grad, expected)


@pytest.mark.parametrize("kind", ["GRUCell", "LSTMCell"])
def test_one_window_is_backpropagation_through_time(kind: str) -> None:
    rule, (x, y) = made(kind, window=STEPS), sequences()
    loss = torch.stack(unrolled(rule, x, y)[0]).sum()
    true = torch.autograd.grad(loss, rule.trained)
    told = rule.accumulate(x, y)
    torch.testing.assert_close(told["loss"], loss.detach())
    for p, grad in zip(rule.trained, true, strict=True):
        torch.testing.assert_close(p.grad, grad)


def test_without_a_predictor_windows_are_cut_off() -> None:
    rule, (x, y) = made(window=3, trace=None), sequences()
    truth = [torch.zeros_like(p) for p in rule.trained]
    start = None
    for window in (slice(0, 3), slice(3, 6), slice(6, 7)):
        losses, states = unrolled(rule, x[:, window], y[:, window], start)
        grads = torch.autograd.grad(torch.stack(losses).sum(), rule.trained)
        truth = [a + b for a, b in zip(truth, grads, strict=True)]
        start = states[-1].detach()
    assert rule.synthesiser is None and set(rule.accumulate(x, y)) == {"loss"}
    for p, grad in zip(rule.trained, truth, strict=True):
        torch.testing.assert_close(p.grad, grad)


def recalled(trace: float | None) -> float:
    """Return the share of sequences whose first input is known at their end."""
    torch.manual_seed(1)
    rule = RecurrentSyntheticGradient(
        nn.RNNCell(1, 6), nn.Linear(6, 2), trace=trace, loss_at="last", lr=5e-3,
        sg_lr=2e-2,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    for _ in range(150):
        x = torch.randn(32, 5, 1, generator=generator)
        rule.step(x, (x[:, 0, 0] > 0).long())
    x = torch.randn(500, 5, 1, generator=generator)
    state = torch.zeros(500, 6)
    for t in range(5):
        state = rule.cell(x[:, t], state)
    right = rule.readout(state).argmax(1) == (x[:, 0, 0] > 0)
    return float(right.float().mean())


def test_what_is_beyond_the_window_is_learnt_only_with_a_predictor() -> None:
    with torch.random.fork_rng(devices=[]):
        assert recalled(None) < 0.75
        assert recalled(1.0) > 0.8


def test_a_state_goes_on_bit_for_bit() -> None:
    first, (x, y) = made(window=2, trace=0.5), sequences()
    first.step(x, y)
    second = made(window=2, trace=0.5)
    second.load_state_dict(first.state_dict())
    for rule in (first, second):
        rule.step(*sequences(2))
    for a, b in zip(first.trained, second.trained, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="Expected a state of cell, optimizers, rea"):
        made(trace=None).load_state_dict(first.state_dict())


def test_parameters_move_after_each_window_or_once() -> None:
    x, y = sequences()
    once, often = made(window=2, update="sequence"), made(window=2)
    for rule in (once, often):
        rule.step(x, y)
    moved = [
        rule.optimizers["network"].state[rule.trained[0]] for rule in (once, often)
    ]
    assert [int(state["step"]) for state in moved] == [1, 4]


def test_what_was_asked_wrongly() -> None:
    cell, readout = nn.RNNCell(2, 4), nn.Linear(4, 3)

    def make(**options: Any) -> RecurrentSyntheticGradient:
        return RecurrentSyntheticGradient(cell, readout, **options)

    with pytest.raises(ValueError, match="Expected `trace` between 0 and 1, or None"):
        make(trace=1.5)
    with pytest.raises(ValueError, match="Expected `window` to be at least 1"):
        make(window=0)
    with pytest.raises(ValueError, match="Expected `update` to be one of window, seq"):
        make(update="step")
    with pytest.raises(ValueError, match="Expected `loss_at` to be one of every, last"):
        make(loss_at="first")
    with pytest.raises(TypeError, match="Expected `cell` to be a module, but got str"):
        RecurrentSyntheticGradient("cell", readout)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="attribute `hidden_size`"):
        RecurrentSyntheticGradient(nn.Linear(2, 2), readout)
    with pytest.raises(ValueError, match=r"Expected `x` of shape \(batch, time, feat"):
        make().step(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"begin with the axes \(3, 5\) of `x`"):
        make().step(torch.zeros(3, 5, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="between 0 and 2"):
        make().step(torch.zeros(3, 5, 2), torch.full((3, 5), 7))
    with pytest.raises(
        learning.Diverged, match="a finite loss, but got nan in window 0"
    ):
        make().step(torch.full((3, 5, 2), torch.nan), torch.zeros(3, 5).long())
