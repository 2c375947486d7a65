"""Segments that work on their own, and the orders in which they do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import repsim
from repsim import learning, networks
from repsim.learning import schedules

IN_PARTS = [
    name
    for name in learning.names()
    if learning.make(name, networks.mlp(6, [5, 5, 5], 3, seed=0)).in_parts
]


def _rule(name: str, **options: Any) -> learning.Rule:
    net = networks.mlp(6, [5, 5, 5], 3, seed=0).double()
    return learning.make(name, net, lr=1e-2, **options)


def _batch(k: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (9,), generator=generator)


def _worst(a: learning.Rule, b: learning.Rule) -> float:
    pairs = zip(a.network.parameters(), b.network.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in IN_PARTS),
        ("sg", {"at": "every"}),
        ("sg", {"at": [1, 3], "targets": 0.5, "prop": 0.1}),
        ("sg", {"at": "every", "optimizer": torch.optim.RMSprop}),
        ("local", {"similarity": 0.5}),
    ],
)
def test_the_step_is_one_schedule_of_the_segments(
    name: str, options: dict[str, Any]
) -> None:
    whole, in_parts = _rule(name, **options), _rule(name, **options)
    whole.step(*_batch(9))
    in_parts.step(*_batch(9))  # Stacked predictors are taken apart with their state.
    in_parts.schedule = schedules.Schedule()
    for k in range(4):
        losses = whole.step(*_batch(k))
        found = in_parts.step(*_batch(k))
        assert losses.keys() == found.keys()
        for key in losses:
            torch.testing.assert_close(losses[key], found[key])
    assert whole.steps == in_parts.steps == 5
    assert _worst(whole, in_parts) < 1e-9


def test_by_hand() -> None:
    rule, whole = _rule("sg", at=[2]), _rule("sg", at=[2])
    lower, upper = rule.segments
    assert (lower.names, upper.names) == (
        ("hidden_1", "hidden_2"),
        ("hidden_3", "output"),
    )
    x, y = _batch()
    for _ in range(3):
        output = upper.forward(lower.forward(x))
        assert output.shape == (9, 3)
        upper.error(y)
        message = upper.update()
        assert message is not None and message.shape == (9, 5)
        lower.error(y, incoming=message)
        assert lower.update() is None
        whole.step(x, y)
    assert _worst(rule, whole) < 1e-9


def test_a_segment_updates_itself_alone() -> None:
    rule = _rule("local")
    x, y = _batch()
    first, second, *_ = rule.segments
    before = [p.detach().clone() for p in rule.network.parameters()]
    second.forward(first.forward(x))
    second.error(y)
    second.update()
    own = {id(p) for p in second.parameters}
    for old, new in zip(before, rule.network.parameters(), strict=True):
        assert (id(new) in own) != torch.equal(old, new) or new.ndim == 1


def test_what_is_missing_is_said() -> None:
    rule = _rule("dfa")
    first = rule.segments[0]
    with pytest.raises(ValueError, match="'hidden_1' has run forward, but got at=3"):
        first.error(_batch()[1], at=3)
    first.forward(_batch()[0])
    with pytest.raises(ValueError, match="Expected the error of segment 'hidden_1' be"):
        first.update()
    with pytest.raises(ValueError, match="Expected `output_error` for rule 'dfa'"):
        first.error(_batch()[1])
    for name in set(learning.names()) - set(IN_PARTS):
        with pytest.raises(ValueError, match="does more and has no segments"):
            _ = _rule(name).segments
    unseen = learning.make("sg", networks.cnn((1, 6, 6), [3], 3))
    with pytest.raises(ValueError, match="Expected a rule that has seen an input"):
        _ = unseen.segments


@pytest.mark.parametrize("kind", [schedules.Reversed, schedules.UpdateUnlocked])
@pytest.mark.parametrize("name", ["bp", "fa", "kickback"])
def test_locked_rules_are_refused(name: str, kind: type[schedules.Schedule]) -> None:
    rule = _rule(name)
    rule.schedule = kind()
    with pytest.raises(ValueError, match=f"rule '{name}' is .* locked; sg, dni and"):
        rule.step(*_batch())


def test_update_unlocked_is_the_slow_reference() -> None:
    rule = _rule("sg", at=[1], optimizer=torch.optim.SGD)
    rule.schedule = schedules.UpdateUnlocked()
    x, y = _batch()
    rule.step(x, y)
    w = rule.predictors["hidden_1"].weight.detach().clone()
    lower = rule.blocks["hidden_1"]
    params = list(lower.parameters())
    h = lower(x)
    seen = torch.cat(
        [h, h.new_ones(9, 1), torch.nn.functional.one_hot(y, 3).double()], 1
    )
    grads = torch.autograd.grad(h, params, (seen @ w).detach() / 9, retain_graph=True)
    expected = [p.detach() - 1e-2 * g for p, g in zip(params, grads, strict=True)]
    top = h.detach().requires_grad_()
    z = top
    for name in ("hidden_2", "hidden_3", "output"):
        z = rule.blocks[name](z)
    loss = torch.nn.functional.cross_entropy(z, y) * 9
    (message,) = torch.autograd.grad(loss, top)
    lr = rule.optimizers["predictors"].param_groups[0]["lr"]
    learned = w - lr * 2 / 9 * seen.detach().T @ (seen.detach() @ w - message)
    rule.step(x, y)
    for found, right in zip(params, expected, strict=True):
        torch.testing.assert_close(found.detach(), right)
    torch.testing.assert_close(rule.predictors["hidden_1"].weight.detach(), learned)


def test_no_delay_is_update_unlocked_and_delays_are_late() -> None:
    now, late, unlocked = (_rule("sg", at="every") for _ in range(3))
    now.schedule, late.schedule = schedules.Delayed(0), schedules.Delayed(3)
    unlocked.schedule = schedules.UpdateUnlocked()
    for k in range(3):
        for rule in (now, late, unlocked):
            losses = rule.step(*_batch(k))
        assert _worst(now, unlocked) == 0
        assert "sg_loss" in losses and bool(now.predictors["hidden_3"].weight.any())
        assert not bool(late.predictors["hidden_3"].weight.any())
    late.step(*_batch(3))
    assert bool(late.predictors["hidden_3"].weight.any())
    assert max(len(s.flights) for s in late.segments) == 3


def test_segments_are_drawn_with_their_probability() -> None:
    rule = _rule("local")
    rule.schedule = schedules.Stochastic(0.3)
    counts = np.zeros(4)
    for k in range(200):
        before = [s.parameters[0].detach().clone() for s in rule.segments]
        rule.step(*_batch(k))
        moved = zip(before, rule.segments, strict=True)
        counts += [not torch.equal(a, s.parameters[0]) for a, s in moved]
    assert np.all(np.abs(counts / 200 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 200))
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match="Expected `p_update` above 0 and up to 1"):
            schedules.Stochastic(wrong)


LEARNS: dict[str, tuple[Any, ...]] = {
    "reversed": (),
    "update_unlocked": (),
    "stochastic": (0.5,),
    "delayed": (4,),
    "unlocked": (),
}


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_digits_are_learned_in_any_order(name: str) -> None:
    made = schedules.SCHEDULES[name](*LEARNS.get(name, ()))
    net = repsim.networks.mlp(64, [64] * 3, seed=1)
    rule = learning.make("sg", net, lr=3e-3)
    rule.schedule = made
    log = repsim.train(
        rule,
        repsim.datasets.load("digits"),
        steps=250,
        eval_every=[250],
        diagnostics=False,
        progress=False,
    )
    assert float(log.accuracy[-1]) > 0.85
    assert made.cost


def test_unlocked_segments_never_see_each_others_activity() -> None:
    rule = _rule("local")
    rule.schedule = schedules.Unlocked()
    rule.step(*_batch())
    poisoned = rule.blocks["hidden_1"]
    poisoned.register_forward_hook(lambda m, a, out: out.detach() * 0 + 7)
    before = {name: p.detach().clone() for name, p in rule.network.named_parameters()}
    twin = _rule("local")
    twin.schedule = schedules.Unlocked()
    twin.step(*_batch())
    twin.step(*_batch(1))
    rule.step(*_batch(1))
    for name, p in rule.network.named_parameters():
        assert not torch.equal(before[name], p) or name.startswith("hidden_1")
        if name.startswith(("hidden_2", "hidden_3")):
            torch.testing.assert_close(p, dict(twin.network.named_parameters())[name])


def test_state_of_predictors_taken_apart_continues() -> None:
    def make() -> learning.Rule:
        rule = _rule("sg", at="every")
        rule.schedule = schedules.UpdateUnlocked()
        return rule

    whole = make()
    for k in range(3):
        whole.step(*_batch(k))
    later = make()
    later.load_state_dict(whole.state_dict())
    whole.step(*_batch(3))
    later.step(*_batch(3))
    assert _worst(whole, later) == 0
    stacked = _rule("sg", at="every")
    stacked.step(*_batch())
    later.load_state_dict(stacked.state_dict())
    later.schedule = None
    later.step(*_batch(1))
    stacked.step(*_batch(1))
    assert _worst(stacked, later) == 0


def test_the_documentation_shows_the_schedules() -> None:
    page = Path(__file__).parents[2] / "docs" / "learning.md"
    if not page.exists():
        pytest.skip("runs beside the documentation")
    text = page.read_text()
    for row in schedules.schedule_rows():
        assert f"`{row['schedule']}`" in text and row["cost"] in text
