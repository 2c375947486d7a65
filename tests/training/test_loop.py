"""One loop for every rule: the record, the order of data, continuing, callbacks."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.metrics import r2_score
from torch import Tensor

import repsim
from repsim import learning, networks
from repsim.training.log import due_steps
from repsim.training.order import Order, as_tensors


def _data(n: int = 50) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=g)
    return x, (x[:, :3]).argmax(1)


def _rule(name: str = "sg", **options: Any) -> learning.Rule:
    return learning.make(name, networks.mlp(5, [8, 8], 3, seed=0), lr=1e-2, **options)


def _train(rule: learning.Rule, steps: int = 20, **options: Any) -> xr.Dataset:
    return repsim.train(
        rule, _data(), steps=steps, **{"batch_size": 16, "progress": False, **options}
    )


def test_the_record() -> None:
    rule = _rule()
    before = [m.training for m in rule.network.modules()]
    w0 = rule.network.get_submodule("hidden_1.linear").weight.detach().clone()
    log = _train(rule, 100, test=_data(30), eval_every=40, seed=5)
    assert log.step.values.tolist() == [0, 40, 80, 100]
    assert log.step.dtype == np.int64
    assert log.layer.values.tolist() == ["hidden_1", "hidden_2", "output"]
    for name in ("loss", "accuracy", "test_loss", "test_accuracy"):
        assert log[name].dims == ("step",)
    for name in ("displacement", "weight_norm", "update_norm", "error_cosine", "curl"):
        assert log[name].dims == ("step", "layer")
        assert log[name].attrs["description"]
    w = rule.network.get_submodule("hidden_1.linear").weight.detach()
    assert float(log.displacement[-1, 0]) == pytest.approx(
        float((w - w0).norm() / w0.norm())
    )
    assert float(log.weight_norm[-1, 0]) == pytest.approx(float(w.norm()))
    assert not log.displacement[0].any() and np.isnan(log.update_norm[0]).all()
    assert float(log.accuracy[-1]) > 0.9 > float(log.accuracy[0])
    rule.network.eval()
    x, y = _data()
    output = rule.network(x)
    assert float(log.loss[-1]) == pytest.approx(rule.loss(output, y).item(), rel=1e-5)
    assert float(log.accuracy[-1]) == pytest.approx(
        float((output.argmax(1) == y).float().mean())
    )
    assert log.attrs["rule"] == "sg" and log.attrs["seed"] == 5
    assert json.loads(log.attrs["rule_options"]) == rule.options
    assert log.attrs["monitored_examples"] == 50 == log.attrs["diagnosed_examples"]
    rule.network.train()
    assert before == [m.training for m in rule.network.modules()]
    assert "error_cosine" not in _train(_rule(), 4, diagnostics=False)


def test_a_schedule_of_rates_is_a_callback() -> None:
    rule = _rule("bp")
    group = rule.optimizers["network"].param_groups[0]
    first = group["lr"]
    optimizer = rule.optimizers["network"]
    _train(rule, 4, callbacks=[torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)])
    assert group["lr"] == pytest.approx(first / 100)


def test_the_update_norm_is_the_latest_updates() -> None:
    rule = _rule("bp")
    _train(rule, 6)
    before = rule.network.get_submodule("output").weight.detach().clone()
    log = _train(rule, 7, start=6, eval_every=[7])
    moved = (rule.network.get_submodule("output").weight.detach() - before).norm()
    assert float(log.update_norm[-1, -1]) == pytest.approx(float(moved))


@pytest.mark.parametrize("name", ["bp", "sg", "noise"])
def test_a_run_continues_where_it_stopped(name: str) -> None:
    whole = _rule(name)
    log = _train(whole, 30, eval_every=5)
    first = _rule(name)
    early = _train(first, 15, eval_every=5)
    later = _rule(name)
    torch.nn.init.zeros_(later.network.get_submodule("output").weight)  # type: ignore[arg-type]
    later.load_state_dict(first.state_dict())
    late = _train(later, 30, eval_every=5, start=15)
    joined = xr.concat([early, late], "step", combine_attrs="drop")
    assert late.step.values.tolist() == [20, 25, 30]
    xr.testing.assert_identical(joined.drop_attrs(), log.drop_attrs())
    for a, b in zip(
        whole.network.parameters(), later.network.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_evaluating_changes_nothing() -> None:
    for name in ("bp", "sg", "noise"):
        often, never = _rule(name), _rule(name)
        random = torch.get_rng_state()
        _train(often, 5, eval_every=1, test=_data(20))
        _train(never, 5, eval_every=[], diagnostics=False)
        assert torch.equal(random, torch.get_rng_state())
        a, b = often.network.state_dict(), never.network.state_dict()
        assert all(torch.equal(a[key], b[key]) for key in a), name


def test_callbacks() -> None:
    class Counter:
        count = 0

        def step(self) -> None:
            self.count += 1

    seen: list[tuple[int, list[str]]] = []

    def told(step: int, losses: Mapping[str, Tensor]) -> None:
        seen.append((step, list(losses)))

    counter = Counter()
    _train(_rule(), 5, callbacks=[counter, told])
    assert counter.count == 5
    assert seen == [(k, ["loss", "sg_loss"]) for k in range(1, 6)]
    with pytest.raises(TypeError, match="Expected a callback with `.step\\(\\)`"):
        _train(_rule(), callbacks=[3])


def test_the_bar_shows_loss_and_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    _train(_rule(), 5, progress=True, test=_data(20))
    out, err = capsys.readouterr()
    assert out == ""
    for word in ("sg:", "5/5", "loss=", "accuracy=", "test="):
        assert word in err


def test_denormals_are_flushed_while_training_only() -> None:
    def flushes() -> bool:
        return float(torch.tensor(1e-40) * 1.0) == 0.0

    assert not flushes()
    seen: list[bool] = []
    _train(_rule(), 2, callbacks=[lambda step, losses: seen.append(flushes())])
    assert seen == [True, True] and not flushes()

    def fail(step: int, losses: object) -> None:
        raise KeyError

    rule = _rule()
    rule.network.eval()
    with pytest.raises(KeyError):
        _train(rule, callbacks=[fail])
    assert not flushes() and not any(m.training for m in rule.network.modules())


def test_the_order_of_the_data() -> None:
    order = Order(10, 4, seed=3)
    drawn = torch.cat([order[k] for k in range(10)])
    for epoch in range(4):
        part = drawn[10 * epoch : 10 * epoch + 10]
        assert sorted(part.tolist()) == list(range(10))
    assert not torch.equal(drawn[:10], drawn[10:20])
    again = Order(10, 4, seed=3)
    for k in (7, 2, 9, 0, 5):
        assert torch.equal(again[k], order[k])
    assert not torch.equal(Order(10, 4, seed=4)[0], order[0])
    assert sorted(Order(3, 3, seed=0)[1].tolist()) == [0, 1, 2]


def test_a_batch_is_at_most_all_there_is() -> None:
    assert sorted(Order(5, 8, seed=0)[3].tolist()) == list(range(5))
    assert _train(_rule(), 1, batch_size=80).attrs["batch_size"] == 50


def test_due_steps() -> None:
    assert sorted(due_steps(3, 0, 7)) == [0, 3, 6, 7]
    assert sorted(due_steps([0, 5], 0, 7)) == [0, 5]
    assert sorted(due_steps(iter([2, 5, 7]), 5, 7)) == [7]
    assert sorted(due_steps(3, 3, 7)) == [6, 7]
    assert len(due_steps(None, 0, 1000)) == 21
    assert sorted(due_steps(None, 0, 3)) == [0, 1, 2, 3]


def test_data_sets_come_as_the_network_wants_them() -> None:
    digits = repsim.datasets.load("digits", limit=20)
    x, _ = as_tensors(digits, networks.mlp(64, [3], seed=0).double())
    assert x.shape == (20, 64) and x.dtype == torch.float64
    net = networks.cnn((1, 8, 8), [3], seed=0)
    assert as_tensors(digits, net)[0].shape == (20, 1, 8, 8)
    log = repsim.train(
        learning.make("sg", net), digits, steps=2, batch_size=8, progress=False
    )
    assert log.sizes["step"] == 3
    toy = repsim.datasets.load("lin_2")
    assert as_tensors(toy, networks.mlp(2, [3], 2, seed=0))[0].shape[1] == 2


def test_numbers_are_scored_by_r2() -> None:
    x, _ = _data()
    rule = learning.make("bp", networks.mlp(5, [8], 2, seed=0), loss="mse", lr=1e-2)
    log = repsim.train(rule, (x, x[:, :2]), steps=60, batch_size=16, progress=False)
    assert "accuracy" not in log and log.attrs["metric"] == "r2"
    p, y = rule.network.eval()(x).detach().double().numpy(), x[:, :2].numpy()
    assert float(log.r2[-1]) == pytest.approx(r2_score(y, p), abs=1e-6)
    assert float(log.r2[-1]) > float(log.r2[0])


def test_a_nan_stops_and_is_told() -> None:
    rule = _rule("bp", optimizer=torch.optim.SGD)
    rule.optimizers["network"].param_groups[0]["lr"] = 1e30
    message = (
        r"finite loss, but got loss = .* at step \d+ of rule 'bp', first in layer '"
    )
    with pytest.raises(ValueError, match=message):
        _train(rule, 50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "Expected `steps` to be positive and `start` between 0 and"),
        ({"start": 30}, "Expected `steps` to be positive and `start` between 0 and"),
        (
            {"start": 5},
            "Expected `start` to be the 0 updates that the rule has made, but",
        ),
        ({"batch_size": 0}, "Expected `batch_size` to be at least 1, but got 0"),
        ({"eval_every": 0}, "Expected `eval_every` to be positive, but got 0"),
        (
            {"eval_every": [3, 21]},
            "Expected steps of `eval_every` between 0 and 20, but",
        ),
        (
            {"test": (torch.ones(3, 5), torch.ones(2))},
            "Expected `test` to hold as many",
        ),
    ],
)
def test_wrong_numbers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _train(_rule(), **options)


def test_wrong_data() -> None:
    with pytest.raises(
        TypeError, match="Expected `data` to be a Dataset of .* got list"
    ):
        repsim.train(_rule(), [1, 2, 3], progress=False)  # type: ignore[arg-type]
