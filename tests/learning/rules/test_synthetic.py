"""Synthetic gradients: where they sit, what they learn, what they must not touch."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim import learning, networks
from repsim.learning.rules.predictors import (
    LinearPredictor,
    Predictor,
    make_predictor,
)
from repsim.learning.rules.synthetic import SyntheticGradient, places


def _batch(n: int = 10) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 5, generator=g), torch.randint(0, 3, (n,), generator=g)


def _rule(depth: int = 4, **options: Any) -> SyntheticGradient:
    rule = learning.make("sg", networks.mlp(5, [6] * depth, 3, seed=0), **options)
    assert isinstance(rule, SyntheticGradient)
    return rule


@pytest.mark.parametrize("predictor", ["linear", "sigmoid", "mlp"])
@pytest.mark.parametrize("conditioned", [True, False])
def test_the_first_error_is_zero_and_nothing_below_moves(
    predictor: str, conditioned: bool
) -> None:
    rule = _rule(at=[2], predictor=predictor, conditioned=conditioned)
    x, y = _batch()
    used, true = rule.errors(x, y)["hidden_2"]
    assert torch.equal(used, torch.zeros_like(used)) and true.abs().max() > 0
    before = {k: v.detach().clone() for k, v in rule.network.named_parameters()}
    rule.step(x, y)
    for name, value in rule.network.named_parameters():
        below = name.startswith(("hidden_1.", "hidden_2."))
        # A bias before a normalisation has no gradient, so Adam may rest there.
        if below or not name.endswith("linear.bias"):
            assert torch.equal(value, before[name]) == below, name
    used, _ = rule.errors(x, y)["hidden_2"]
    assert used.abs().max() > 0


@pytest.mark.parametrize("at", [[2], "every"])
def test_gradients_below_do_not_know_the_true_loss(at: Any) -> None:
    x, y = _batch()
    rule = _rule(at=at)
    rule.step(x, y)
    found = []
    for scale in (1.0, 100.0):
        rule.loss = lambda p, t, s=scale: s * nn.functional.cross_entropy(p, t)
        rule.zero_grad()
        rule.accumulate(x, y)
        below = rule.network.get_submodule("hidden_2")
        found.append([p.grad.clone() for p in below.parameters() if p.grad is not None])
    assert len(found[0]) == 4
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("predictor", ["linear", "mlp"])
def test_the_predictors_loss_gives_the_network_no_gradient(predictor: str) -> None:
    x, y = _batch()
    grads = []
    for sg_lr in (1e-9, 10.0):
        rule = _rule(at="every", predictor=predictor, sg_lr=sg_lr)
        rule.accumulate(x, y)
        grads.append(
            [p.grad.clone() for p in rule.network.parameters() if p.grad is not None]
        )
        # Zero predictions: only output block may have a gradient that is not zero.
        hidden = rule.network.get_submodule("hidden_4.linear").weight.grad
        assert hidden is not None and not hidden.any()
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("conditioned", [True, False])
@pytest.mark.parametrize("widths", [[6, 6, 6], [6, 4, 6]])
def test_closed_form_gradients_are_autograds(
    widths: list[int], conditioned: bool
) -> None:
    net = networks.mlp(5, widths, 3, seed=0).double()
    rule = learning.make("sg", net, at="every", conditioned=conditioned)
    assert isinstance(rule, SyntheticGradient)
    x, y = _batch()
    parts = (x.double()[:6], y[:6]), (x.double()[6:], y[6:])
    for _ in range(3):
        rule.step(*parts[0])
    cuts: list[learning.Cut] = []
    learn = rule.learn

    def watched(cut: learning.Cut, count: int) -> dict[str, Tensor]:
        cuts.append(cut)
        return learn(cut, count)

    rule.learn = watched  # type: ignore[method-assign]
    rule.zero_grad()
    distances = [rule.accumulate(*part, count=10)["sg_loss"] for part in parts]
    total = torch.zeros(())
    for name, one in rule.predictors.items():
        mine = [cut for cut in cuts if cut.name == name]
        assert len(mine) == 2 and isinstance(one, LinearPredictor)
        loss = torch.zeros(())
        for cut, (_, labels) in zip(mine, parts, strict=True):
            vectors = nn.functional.one_hot(labels, 3).double()
            made = cut.h @ one.A + one.C
            if one.B is not None:
                made = made + vectors @ one.B
            assert cut.target is not None and cut.predicted is not None
            torch.testing.assert_close(cut.predicted, made.detach())
            loss = loss + (made - cut.target).square().sum() / 10
        (expected,) = torch.autograd.grad(loss, one.weight)
        assert one.weight.grad is not None and expected.abs().max() > 0
        torch.testing.assert_close(one.weight.grad, expected)
        total = total + loss.detach()
    torch.testing.assert_close(0.6 * distances[0] + 0.4 * distances[1], total)


def test_targets_are_bootstrapped_true_or_between() -> None:
    x, y = _batch()
    rules = {
        t: _rule(at="every", targets=t, prop=0.0)
        for t in ("bootstrapped", 0.0, 0.5, 1.0, "true")
    }
    g = torch.Generator().manual_seed(0)
    for rule in rules.values():
        g.manual_seed(0)
        for s in rule.predictors.values():
            for p in s.parameters():
                p.data.copy_(torch.randn(p.shape, generator=g))
    targets: dict[Any, list[Tensor]] = {}
    for key, rule in rules.items():
        kept: list[Tensor] = []

        def keep(cut: Any, count: int, kept: list[Tensor] = kept) -> dict[str, Tensor]:
            kept.append(cut.target)
            return {}

        rule.learn = keep  # type: ignore[method-assign]
        rule.accumulate(x, y)
        targets[key] = kept
    bp = learning.make("bp", networks.mlp(5, [6] * 4, 3, seed=0))
    h = x
    inner = []
    for block in bp.blocks.values():
        h = block(h)
        inner.append(h)
    loss = nn.functional.cross_entropy(h, y) * len(x)
    true = torch.autograd.grad(loss, inner[:-1])[::-1]
    for k in range(4):
        torch.testing.assert_close(targets["true"][k], true[k])
        torch.testing.assert_close(targets[1.0][k], true[k])
        torch.testing.assert_close(targets["bootstrapped"][k], targets[0.0][k])
    # One cut below the top, the mixture is linear in λ.
    middle = (targets[0.0][1] + targets[1.0][1]) / 2
    torch.testing.assert_close(targets[0.5][1], middle)
    assert not torch.allclose(targets[0.0][1], targets[1.0][1])


def test_prop_adds_the_regressions_own_gradient() -> None:
    x, y = _batch()
    plain, prop = _rule(at=[2]), _rule(at=[2], prop=0.5)
    for rule in (plain, prop):
        s = rule.predictors["hidden_2"]
        assert isinstance(s, LinearPredictor)
        s.A.data.copy_(torch.eye(6) * 0.3)
    a, b = plain.errors(x, y)["hidden_2"], prop.errors(x, y)["hidden_2"]
    expected = a[0] + 0.5 * 2 * (a[0] - a[1]) * 0.3
    torch.testing.assert_close(b[0], expected)


def test_places() -> None:
    assert places("middle", 20) == [10]
    assert places("middle", 1) == [1]
    assert places("middle", 5) == [2]
    assert places("every", 3) == [1, 2, 3]
    assert places([3, 1], 4) == [1, 3]
    assert places("1+3", 4) == [1, 3]
    assert _rule(at="every").splits == ["hidden_1", "hidden_2", "hidden_3", "hidden_4"]


@pytest.mark.parametrize("at", [[99], [0], [], [2, 2], "21"])
def test_places_out_of_range(at: Any) -> None:
    with pytest.raises(
        ValueError, match=r"Expected `at` .* hidden layers, 1 to 20, but"
    ):
        learning.make("sg", networks.mlp(5, [2] * 20, 3), at=at)


def test_options_have_one_meaning_however_they_are_written() -> None:
    assert _rule(at=2).splits == _rule(at=[2]).splits == ["hidden_2"]
    assert _rule(targets=True).trace == _rule(targets="true").trace == 1.0
    one = _rule(predictor="mlp", predictor_hidden=7)
    assert one.predictor_hidden == (7,) and one.options["predictor_hidden"] == [7]


def test_the_predictors_rate() -> None:
    assert _rule(at="middle", lr=1e-3).sg_lr == 1e-3
    assert _rule(at="every", lr=1e-3).sg_lr == pytest.approx(1e-2)
    assert _rule(at=[1, 2, 3, 4], lr=1e-3).sg_lr == pytest.approx(1e-2)
    assert _rule(at=[1, 3], lr=1e-3).sg_lr == 1e-3
    assert _rule(at="every", lr=1e-3, sg_lr=0.5).sg_lr == 0.5
    assert _rule(1, at="every", lr=1e-3).sg_lr == 1e-3
    rule = _rule(at="every", lr=1e-3)
    rates = {k: o.param_groups[0]["lr"] for k, o in rule.optimizers.items()}
    assert rates == {"network": 1e-3, "predictors": pytest.approx(1e-2)}


def test_dni_is_sg_without_labels() -> None:
    x, y = _batch()
    dni, sg = (
        learning.make("dni", networks.mlp(5, [6] * 4, 3, seed=0)),
        _rule(conditioned=False),
    )
    for _ in range(4):
        a, b = dni.step(x, y), sg.step(x, y)
    assert torch.equal(a["sg_loss"], b["sg_loss"])
    assert isinstance(dni, SyntheticGradient) and dni.options["conditioned"] is False


@pytest.mark.parametrize("kind", ["linear", "sigmoid", "mlp"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 3), (4, 7)])
def test_predictors_of_maps_keep_the_resolution(
    kind: str, kernel: int, shape: tuple[int, ...]
) -> None:
    s = make_predictor(kind, shape, 3, maps=True, hidden=(8,), kernel=kernel)
    h = torch.randn(2, *shape)
    labels = torch.eye(3)[:2]
    assert s(h, labels).shape == h.shape
    assert not s(h, labels).any()
    with torch.no_grad():
        for p in s.parameters():
            p.normal_(generator=torch.Generator().manual_seed(0))
    away = tuple(size // 2 for size in shape[1:])
    other = labels[[1, 1]]
    change = (s(h, other) - s(h, labels))[0]
    # The label comes as constant channels: far from a border it acts everywhere alike.
    if kind == "linear":
        inner = change[(slice(None), *[slice(1, -1)] * len(away))].reshape(4, -1)
        torch.testing.assert_close(
            inner, inner[:, :1].expand_as(inner), atol=1e-5, rtol=1e-4
        )
    touched = h.clone()
    touched[0][(slice(None), *away)] += 1
    where = (s(touched, labels) - s(h, labels))[0].abs().sum(0) > 1e-6
    reach = 2 * kernel - 1 if kind == "mlp" else kernel
    assert int(where.sum()) <= reach ** len(away)


@pytest.mark.parametrize("kind", ["linear", "sigmoid", "mlp"])
def test_predictors_of_tokens_work_on_each(kind: str) -> None:
    s = make_predictor(kind, (4, 6), 3, maps=False, hidden=(8,))
    h, labels = torch.randn(2, 4, 6), torch.eye(3)[:2]
    assert s(h, labels).shape == h.shape
    with torch.no_grad():
        for p in s.parameters():
            p.normal_(generator=torch.Generator().manual_seed(0))
    alone = torch.stack([s(h[:, t : t + 1], labels)[:, 0] for t in range(4)], 1)
    torch.testing.assert_close(s(h, labels), alone)


def normalised_by_hand(predictor: Predictor, seen: np.ndarray) -> np.ndarray:
    """Return what affine, normalised, rectified layers give, feature by feature."""
    h = seen
    layers = list(predictor.body)  # type: ignore[call-overload]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            h = h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        elif isinstance(layer, nn.ReLU):
            h = np.maximum(h, 0)
        else:
            flat = h.reshape(-1, h.shape[-1])
            flat = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
            scaled = flat * layer.weight.detach().numpy() + layer.bias.detach().numpy()
            h = scaled.reshape(h.shape)
    return h


@pytest.mark.parametrize("shape", [(6,), (4, 6)])
def test_normalised_predictors_are_what_a_slow_program_says(
    shape: tuple[int, ...],
) -> None:
    s = make_predictor("mlp", shape, 3, maps=False, hidden=(8, 5), batch_norm=True)
    s = s.double()
    g = torch.Generator().manual_seed(0)
    h = torch.randn(7, *shape, generator=g, dtype=torch.float64)
    labels = torch.eye(3, dtype=torch.float64)[torch.arange(7) % 3]
    assert not s(h, labels).any()
    with torch.no_grad():
        for p in s.parameters():
            p.normal_(generator=g)
    joined = s.joined(h, labels).numpy()
    np.testing.assert_allclose(
        s(h, labels).detach().numpy(), normalised_by_hand(s, joined), rtol=1e-10
    )
    # The derivative by one example, the others held: by differences.
    if shape == (6,):
        step = 1e-6 * torch.eye(6, dtype=torch.float64)
        for i, found in enumerate(s.jacobians(h[:4], labels[:4])):
            rows = [h[:4].clone() for _ in range(12)]
            for j in range(6):
                rows[j][i] += step[j]
                rows[6 + j][i] -= step[j]
            with torch.no_grad():
                out = torch.stack([s(r, labels[:4])[i] for r in rows])
            slow = (out[:6] - out[6:]).T / 2e-6
            torch.testing.assert_close(found.detach(), slow, atol=1e-5, rtol=1e-5)


def test_normalised_predictors_of_maps_normalise_channels() -> None:
    s = make_predictor("mlp", (4, 6, 5), 3, maps=True, hidden=(8,), batch_norm=True)
    h = torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    normed = s.body[1](s.body[0](s.joined(h, torch.eye(3))))  # type: ignore[index]
    mean, spread = normed.mean((0, 2, 3)), normed.std((0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(spread, torch.ones(8), atol=1e-3, rtol=0)


def test_looking_at_normalised_predictors_changes_nothing() -> None:
    x, y = _batch(20)
    rules = [
        _rule(
            at="every", predictor="mlp", predictor_hidden=8, predictor_batch_norm=True
        )
        for _ in range(2)
    ]
    for i in range(30):
        rules[0].step(x, y)
        rules[1].step(x, y)
        if i % 5 == 0:
            rules[1].errors(x[:7], y[:7])
            rules[1].curls(x, y)
    one, other = (rule.state_dict()["extra"]["hidden_2"] for rule in rules)
    assert all(torch.equal(one[k], other[k]) for k in one)
    used, _ = rules[0].errors(x, y)["hidden_2"]
    assert used.abs().max() > 0


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("predictor", ["linear", "sigmoid", "mlp"])
def test_convolutional_networks_train(kernel_size: int, predictor: str) -> None:
    net = networks.cnn((1, 8, 8), [4, 6], 3, seed=0)
    rule = learning.make(
        "sg",
        net,
        at="every",
        lr=1e-2,
        predictor=predictor,
        kernel_size=kernel_size,
        predictor_hidden=(8,) if predictor == "mlp" else None,
    )
    g = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(24, 1, 8, 8, generator=g),
        torch.randint(0, 3, (24,), generator=g),
    )
    first = rule.step(x, y)
    for _ in range(40):
        last = rule.step(x, y)
    assert float(last["loss"]) < 0.7 * float(first["loss"])
    assert isinstance(rule, SyntheticGradient)
    assert rule.predictors["hidden_1"].axis == 1


@pytest.mark.parametrize(
    ("kind", "trace", "prop", "kernel_size"),
    [
        ("linear", 0.0, 0.0, 1),
        ("linear", 0.3, 0.0, 3),
        ("mlp", 0.3, 0.2, 3),
        ("sigmoid", 1.0, 0.1, 1),
    ],
)
def test_a_convolutional_step_is_the_recursion_written_out(
    kind: str, trace: float, prop: float, kernel_size: int
) -> None:
    net = networks.cnn((1, 6, 6), [3, 4, 4], 3, "tanh", "after", pool=1, seed=0)
    options: dict[str, Any] = {"targets": trace, "prop": prop, "predictor": kind}
    if kind == "mlp":
        options["predictor_hidden"] = 5
    rule = learning.make(
        "sg", net.double(), at="every", kernel_size=kernel_size, loss="mse", **options
    )
    assert isinstance(rule, SyntheticGradient)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(7, 1, 6, 6, generator=g).double()
    y = torch.arange(7) % 3
    rule.step(x, y)
    for s in rule.predictors.values():
        for p in s.parameters():
            p.data = torch.randn(p.shape, generator=g).to(p) / 3
    passes, h = [], x
    for block in copy.deepcopy(net):
        entry = h.detach().requires_grad_()
        passes.append((entry, block(entry), block))
        h = passes[-1][1]
    labels = nn.functional.one_hot(y, 3).double()
    used = target = error = (h - labels).detach()
    rule.zero_grad()
    rule.accumulate(x, y)
    blocks = list(rule.blocks)
    for i in reversed(range(len(blocks))):
        entry, out, block = passes[i]
        if i < len(blocks) - 1:
            above, top = passes[i + 1][:2], i == len(blocks) - 2
            mixed = error if top else (1 - trace) * used + trace * target
            (target,) = torch.autograd.grad(
                above[1], above[0], mixed, retain_graph=True
            )
            seen = out.detach().requires_grad_()
            made = rule.predictors[blocks[i]](seen, labels)
            distance = (made - target).square().sum()
            weights = list(rule.predictors[blocks[i]].parameters())
            own, *grads = torch.autograd.grad(distance, [seen, *weights])
            for p, grad in zip(weights, grads, strict=True):
                torch.testing.assert_close(p.grad, grad / 7, rtol=1e-9, atol=1e-12)
            used = (made + prop * own).detach()
        expected = torch.autograd.grad(
            out, list(block.parameters()), used / 7, retain_graph=True
        )
        for p, grad in zip(net[i].parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, grad, rtol=1e-9, atol=1e-12)


def test_vectors_are_labels_too() -> None:
    net = networks.mlp(5, [6, 6], 2, seed=0)
    rule = learning.make("sg", net, loss="mse", at="every")
    x, y = torch.randn(10, 5), torch.randn(10, 2)
    rule.step(x, y)
    assert torch.isfinite(rule.step(x, y)["sg_loss"])


def test_wrong_options_are_refused() -> None:
    for option, value, message in (
        (
            "at",
            "midle",
            "Expected `at` to be one of middle, every.*Did you mean 'middle'",
        ),
        ("predictor", "linaer", "Expected `predictor` to be one of linear.*'linear'"),
        ("targets", "tru", "Expected `targets` to be one of bootstrapped, true"),
        ("targets", 1.5, "Expected `targets` between 0 and 1, but got 1.5"),
        ("kernel_size", 2, "Expected `kernel_size` to be odd, but got 2"),
        (
            "kernel_size",
            -1,
            r"Expected `kernel_size` to be at least 1, but got",
        ),
        (
            "kernel_size",
            3,
            "`kernel_size` to be 1 where no .* maps .hidden_2 have none",
        ),
        ("predictor_hidden", (3,), "only with predictor='mlp', but got .* 'linear'"),
        ("predictor_batch_norm", True, "only with hidden layers, .* got it with 'lin"),
        ("prop", -1.0, "Expected `prop` to be finite and at least 0, but got -1.0"),
        ("prop", float("nan"), "Expected `prop` to be finite and at least 0"),
        ("sg_lr", 0.0, "Expected `sg_lr` to be a positive learning rate, but got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            _rule(**{option: value})
    for at in (1.5, [1.5], ["hidden_1"], None, True, [True], torch.tensor(1)):
        with pytest.raises(TypeError, match="Expected `at` to be 'middle', 'every' or"):
            _rule(at=at)
    with pytest.raises(ValueError, match="to hold positive sizes, but got .0,."):
        _rule(predictor="mlp", predictor_hidden=(0,))
    for option, wrong in (
        ("kernel_size", 1.5),
        ("kernel_size", True),
        ("prop", "0.1"),
        ("sg_lr", "fast"),
        ("targets", [1]),
        ("targets", False),
    ):
        with pytest.raises(
            TypeError, match=f"Expected `{option}` to be a .*number, but"
        ):
            _rule(**{option: wrong})
    for sizes in ((1.5,), "64", 2.0):
        with pytest.raises(TypeError, match="to be a list of whole numbers, but got"):
            _rule(predictor="mlp", predictor_hidden=sizes)
    for wrong in ("no", 1, None):
        message = f"Expected `conditioned` to be True or False, but got {wrong!r}"
        with pytest.raises(TypeError, match=message):
            _rule(conditioned=wrong)
    with pytest.raises(ValueError, match="`conditioned` to be False for rule 'dni'"):
        learning.make("dni", networks.mlp(5, [6], 3), conditioned=True)
    alone = _rule(predictor="mlp", predictor_batch_norm=True)
    with pytest.raises(ValueError, match="at least 2 examples, over which the pred"):
        alone.step(*_batch(1))
    with pytest.raises(ValueError, match="Expected `predictor` to be one of"):
        make_predictor("x", (3,), 2, maps=False)


def test_errors_out_of_order_are_refused() -> None:
    from repsim.learning.rules.predictors import held

    with pytest.raises(TypeError, match="formed from the output down"):
        held(None)


@pytest.mark.parametrize("shape", [(10,), (10, 2), (10, 3, 1)])
def test_labels_that_predictors_cannot_see_are_refused(shape: tuple[int, ...]) -> None:
    def loss(output: Tensor, y: Tensor) -> Tensor:
        return (output.sum(1) - y.reshape(10, -1)[:, 0]).square().mean()

    x, _ = _batch()
    message = r"`y` as integers or of the shape \(10, 3\) of the outputs, which predict"
    with pytest.raises(ValueError, match=message):
        _rule(loss=loss).step(x, torch.ones(shape))
    _rule(loss=loss, conditioned=False).step(x, torch.ones(shape))
