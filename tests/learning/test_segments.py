"""Backpropagation through the frame is autograd's, and so are its relatives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repsim import learning, networks
from repsim.learning.passes import is_lean

Batch = tuple[Tensor, Tensor]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def _mlp(seed: int = 0, depth: int = 3, batch_norm: bool = True) -> nn.Sequential:
    return networks.mlp(6, [7] * depth, 4, batch_norm=batch_norm, seed=seed)


def _cnn(seed: int = 0) -> nn.Sequential:
    return networks.cnn((2, 6, 6), [3, 5], 4, seed=seed)


def _batch(kind: str, dtype: torch.dtype = torch.float32, n: int = 12) -> Batch:
    g = torch.Generator().manual_seed(1)
    shape = (n, 6) if kind == "mlp" else (n, 2, 6, 6)
    x = torch.randn(*shape, generator=g, dtype=torch.float64)
    return x.to(dtype), torch.randint(0, 4, (n,), generator=g)


def _reference(net: nn.Module, batch: Batch, loss: str) -> dict[str, Tensor]:
    """Gradients by one plain backward pass."""
    x, y = batch
    net.zero_grad()
    if loss == "cross_entropy":
        nn.functional.cross_entropy(net(x), y).backward()
    else:
        target = nn.functional.one_hot(y, 4).to(x.dtype)
        (0.5 * (net(x) - target) ** 2).sum(1).mean().backward()
    return {
        name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None
    }


def _grads(rule: learning.Rule, batch: Batch) -> dict[str, Tensor]:
    rule.zero_grad()
    rule.accumulate(*batch)
    return {
        name: p.grad.clone()
        for name, p in rule.network.named_parameters()
        if p.grad is not None
    }


def _worst(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def _without_lean(rule: learning.Rule) -> None:
    """A hook on a block keeps the frame from differentiating by hand."""
    for block in rule.blocks.values():
        block.register_forward_hook(lambda *args: None)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_bp_is_autograd(kind: str, loss: str, dtype: torch.dtype) -> None:
    make = {"mlp": _mlp, "cnn": _cnn}[kind]
    batch = _batch(kind, dtype)
    expected = _reference(make().to(dtype), batch, loss)
    for lean in (True, False):
        rule = learning.make("bp", make().to(dtype), loss=loss)
        if not lean:
            _without_lean(rule)
        assert _worst(_grads(rule, batch), expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "identity", "gelu"])
@pytest.mark.parametrize("norm", [True, False, "after"])
def test_layers_by_hand_are_autograd(activation: str, norm: networks.BatchNorm) -> None:
    def make() -> nn.Sequential:
        return networks.mlp(6, [7, 5], 4, activation, norm, seed=0).double()

    batch = _batch("mlp", torch.float64)
    rule = learning.make("bp", make())
    assert is_lean(rule, batch[0]) == (activation != "gelu")
    assert (
        _worst(_grads(rule, batch), _reference(make(), batch, "cross_entropy")) < 1e-12
    )
    buffers = dict(rule.network.named_buffers())
    plain = make()
    plain(batch[0])
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(buffers[name], buffer)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("lean", [True, False])
def test_fa_with_transposed_weights_is_bp(kind: str, lean: bool) -> None:
    net = {"mlp": _mlp, "cnn": _cnn}[kind]().double()
    batch = _batch(kind, torch.float64)
    expected = _reference({"mlp": _mlp, "cnn": _cnn}[kind]().double(), batch, "mse")
    rule = learning.make("fa", net, loss="mse")
    if not lean:
        _without_lean(rule)
    rule.accumulate(*batch)
    for path, matrix in rule.feedback.items():
        matrix.copy_(net.get_submodule(path).weight.detach())
    assert _worst(_grads(rule, batch), expected) < 1e-12


@pytest.mark.parametrize("lean", [True, False])
def test_fa_replaces_the_transposed_weight_and_nothing_else(lean: bool) -> None:
    net = networks.mlp(6, [7], 4, "tanh", False, seed=0).double()
    x, y = _batch("mlp", torch.float64)
    rule = learning.make("fa", net, loss="mse")
    if not lean:
        _without_lean(rule)
    found = _grads(rule, (x, y))
    h = torch.tanh(net.get_submodule("hidden_1.linear")(x)).detach()
    e = (net.get_submodule("output")(h) - nn.functional.one_hot(y, 4)).detach()
    gated = (e @ rule.feedback["output"]) * (1 - h**2)
    torch.testing.assert_close(found["hidden_1.linear.weight"], gated.T @ x / len(x))


def test_feedback_is_random_and_of_the_size_the_docstrings_say() -> None:
    net = networks.mlp(60, [80, 100], 40, seed=0)
    fa, dfa = learning.make("fa", net, seed=3), learning.make("dfa", net, seed=3)
    for path, matrix in fa.feedback.items():
        weight = net.get_submodule(path).weight.detach().flatten()
        pair = torch.stack([weight, matrix.flatten()])
        assert float(torch.corrcoef(pair)[0, 1].abs()) < 0.1
        assert float(matrix.std() / weight.std()) == pytest.approx(1, abs=0.1)
    assert list(dfa.feedback) == ["hidden_1", "hidden_2"]
    for matrix in dfa.feedback.values():
        assert matrix.shape[0] == 40
        assert float(matrix.square().sum(1).mean()) == pytest.approx(1, abs=0.1)


def test_dfa_with_the_downstream_map_is_bp_on_one_hidden_layer() -> None:
    batch = _batch("mlp", torch.float64)
    expected = _reference(_mlp(depth=1).double(), batch, "cross_entropy")
    rule = learning.make("dfa", _mlp(depth=1).double())
    rule.feedback["hidden_1"] = rule.network.get_submodule("output").weight.detach()
    assert _worst(_grads(rule, batch), expected) < 1e-12


def test_kickback_with_one_output_is_balduzzis() -> None:
    net = networks.mlp(6, [7, 5, 3], 1, batch_norm=False, seed=0).double()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 6, generator=g, dtype=torch.float64)
    y = torch.randn(12, 1, generator=g, dtype=torch.float64)
    rule = learning.make("kickback", net, loss="mse")
    used = {name: pair[0] for name, pair in rule.errors(x, y).items()}
    h = {}
    z = x
    for name, block in rule.blocks.items():
        z = h[name] = block(z).detach()
    error = h["output"] - y
    weight = {
        n: b[0].weight if isinstance(b, nn.Sequential) else b.weight
        for n, b in rule.blocks.items()
    }
    for name, above in (("hidden_1", "hidden_2"), ("hidden_2", "hidden_3")):
        influence = (h[above] > 0).double() @ weight[above].detach()
        torch.testing.assert_close(used[name], error * influence)
    torch.testing.assert_close(used["hidden_3"], error * weight["output"].detach())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sg", {"at": "every"}),
        ("sg", {"at": [1, 3], "targets": 0.5}),
        ("sg", {"targets": "true", "at": "every"}),
        ("sg", {"prop": 0.5}),
        ("dni", {}),
        ("dfa", {}),
        ("kickback", {}),
        ("noise", {}),
        ("fa", {}),
    ],
)
def test_lean_steps_are_the_graphs_steps(name: str, options: dict[str, object]) -> None:
    rules = [
        learning.make(
            name, _mlp().double(), optimizer=torch.optim.SGD, lr=0.1, **options
        )
        for _ in range(2)
    ]
    _without_lean(rules[1])
    batch = _batch("mlp", torch.float64)
    assert is_lean(rules[0], batch[0]) and not is_lean(rules[1], batch[0])
    for _ in range(5):
        losses = [rule.step(*batch) for rule in rules]
        for key in losses[0]:
            torch.testing.assert_close(losses[0][key], losses[1][key])
    a, b = (rule.network.state_dict() for rule in rules)
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["bp", "sg", "fa", "dfa", "kickback"])
def test_a_batch_may_come_in_parts(name: str) -> None:
    x, y = _batch("mlp", torch.float64)
    options = {"at": "every"} if name == "sg" else {}
    whole, parts = (
        learning.make(name, _mlp(batch_norm=False).double(), **options) for _ in "ab"
    )
    for rule in (whole, parts):
        rule.step(x, y)
    whole.zero_grad()
    whole.accumulate(x, y)
    parts.zero_grad()
    for part in (slice(0, 3), slice(3, 4), slice(4, 12)):
        parts.accumulate(x[part], y[part], count=len(x))
    for a, b in zip(
        whole.network.parameters(), parts.network.parameters(), strict=True
    ):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
    whole.update()
    parts.update()
    e, f = whole.errors(x, y), parts.errors(x, y)
    for layer in e:
        torch.testing.assert_close(e[layer][0], f[layer][0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["bp", "sg", "fa", "dfa", "kickback", "noise"])
def test_nothing_depends_on_the_losss_reduction(name: str) -> None:
    batch = _batch("mlp")
    states = []
    for reduction in ("mean", "sum", "none"):
        loss = nn.CrossEntropyLoss(reduction=reduction)
        rule = learning.make(name, _mlp(), loss=loss)
        for _ in range(3):
            rule.step(*batch)
        assert loss.reduction == reduction
        states.append(rule.network.state_dict())
    for other in states[1:]:
        assert all(torch.equal(states[0][key], other[key]) for key in other)


def test_errors_are_per_sample_and_batches_do_not_matter() -> None:
    x, y = _batch("mlp")
    for name in ("bp", "sg", "fa", "dfa", "kickback"):
        rule = learning.make(name, _mlp())
        rule.step(x, y)
        whole, part = rule.errors(x, y), rule.errors(x[:5], y[:5])
        for layer in whole:
            for a, b in zip(whole[layer], part[layer], strict=True):
                torch.testing.assert_close(a[:5], b)
        onehot = nn.functional.one_hot(y, 4)
        with torch.no_grad():
            rule.network.eval()
            e = torch.softmax(rule.network(x), 1) - onehot
        torch.testing.assert_close(whole["output"][0], e)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("name", learning.names())
def test_errors_touch_nothing(name: str, kind: str) -> None:
    net = {"mlp": _mlp, "cnn": _cnn}[kind]()
    if (name, kind) == ("pepita", "cnn"):
        net = networks.cnn((2, 6, 6), [3, 5], 4, pool=1, seed=0)
    batch = _batch(kind)
    rule = learning.make(name, net)
    rule.step(*batch)
    rule.zero_grad()
    net[0].eval()
    before, random = rule.state_dict(), torch.get_rng_state()
    flags = [m.training for m in net.modules()]
    errors = rule.errors(*batch)
    assert list(errors) == [n for n, _ in net.named_children()]
    assert all(p.grad is None for p in net.parameters())
    assert flags == [m.training for m in net.modules()]
    assert torch.equal(random, torch.get_rng_state())
    after = rule.state_dict()
    assert torch.equal(before["generator"], after["generator"])
    for key, value in before["network"].items():
        assert torch.equal(value, after["network"][key])
    assert not any(used.requires_grad for used, _ in errors.values())


def test_used_errors_are_the_true_ones_only_where_the_rule_says_so() -> None:
    batch = _batch("mlp")
    rule = learning.make("sg", _mlp(), at=[2])
    for _ in range(3):
        rule.step(*batch)
    errors = rule.errors(*batch)
    for layer, same in (
        ("hidden_1", 0),
        ("hidden_2", 0),
        ("hidden_3", 1),
        ("output", 1),
    ):
        assert torch.allclose(*errors[layer], atol=1e-6) == bool(same)


def test_a_forward_pass_is_run_once() -> None:
    for name in learning.names():
        net = _mlp()
        learning.make(name, net).step(*_batch("mlp"))
        assert int(net.get_submodule("hidden_2.norm").num_batches_tracked) == 1, name


def test_steps_leave_global_random_numbers_alone() -> None:
    net = nn.Sequential(
        nn.Sequential(nn.Linear(6, 7), nn.Dropout(0.5)), nn.Linear(7, 4)
    )
    rule = learning.make("sg", net)
    before = torch.get_rng_state()
    rule.step(*_batch("mlp"))
    assert torch.equal(before, torch.get_rng_state())


def test_a_frozen_block_rests_and_passes_the_error_on() -> None:
    net = _mlp()
    net[1].requires_grad_(False)
    rule = learning.make("bp", net)
    before = {k: v.clone() for k, v in net.named_parameters()}
    rule.step(*_batch("mlp"))
    moved = {
        k.split(".")[0]
        for k, v in net.named_parameters()
        if not torch.equal(v, before[k])
    }
    assert moved == {"hidden_1", "hidden_3", "output"}


def test_blocks_may_be_joined_by_hand() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3)
            self.head = nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.conv(torch.relu(self.stem(x))))
            output: Tensor = self.head(h.flatten(1))
            return output

    torch.manual_seed(0)
    net, batch = Net(), _batch("cnn")
    blocks = {
        "stem": nn.Sequential(net.stem, nn.ReLU()),
        "conv": nn.Sequential(net.conv, nn.ReLU(), nn.Flatten()),
        "head": net.head,
    }
    rule = learning.make("bp", net, blocks=blocks)
    assert rule.options["blocks"] == ["stem", "conv", "head"]
    found = _grads(rule, batch)
    assert _worst(found, _reference(net, batch, "cross_entropy")) < 1e-6
    with pytest.raises(ValueError, match="'head' to take the output of block 'conv'"):
        learning.make("bp", net).step(*batch)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", learning.names())
def test_any_dtype_trains(name: str, dtype: torch.dtype) -> None:
    rule = learning.make(name, _mlp().to(dtype))
    x, y = _batch("mlp", dtype)
    losses = rule.step(x, y)
    rule.step(x, y)
    assert losses["loss"].dtype == dtype and torch.isfinite(losses["loss"])


@pytest.mark.gpu
@pytest.mark.parametrize("name", learning.names())
def test_any_device_trains(name: str) -> None:
    for make, kind in ((_mlp, "mlp"), (_cnn, "cnn")):
        if (name, kind) == ("pepita", "cnn"):
            continue
        rule = learning.make(name, make().cuda())
        x, y = _batch(kind)
        rule.step(x.cuda(), y.cuda())
        used, _ = rule.errors(x.cuda(), y.cuda())["output"]
        assert used.is_cuda


def _blocks_apart(in_place: bool) -> nn.Sequential:
    """Activations and dropout as blocks of their own, the first block one, too."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Hardtanh(inplace=in_place),
        nn.Linear(6, 7),
        nn.ReLU(inplace=in_place),
        nn.Linear(7, 7),
        nn.Sequential(nn.Dropout(0.3, inplace=in_place), nn.Sigmoid()),
        nn.ELU(inplace=in_place),
        nn.Linear(7, 4),
    ).double()


@pytest.mark.parametrize("name", learning.names())
def test_blocks_that_work_in_place_are_as_those_that_do_not(name: str) -> None:
    x, y = _batch("mlp", torch.float64)
    given = x.clone()
    options = {"at": "every"} if name in ("sg", "dni") else {}
    a, b = (
        learning.make(name, _blocks_apart(kind), lr=1e-2, **options)
        for kind in (True, False)
    )
    for _ in range(4):
        assert _equal(a.step(x, y), b.step(x, y))
    assert _equal(a.network.state_dict(), b.network.state_dict())
    left, right = a.errors(x, y), b.errors(x, y)
    for layer in left:
        assert all(map(torch.equal, left[layer], right[layer])), layer
    found = [learning.error_diagnostics(rule, x, y) for rule in (a, b)]
    assert str(found[0]) == str(found[1])
    assert torch.equal(x, given)


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


Factory = Callable[..., torch.optim.Optimizer]


@pytest.mark.parametrize(
    "factory",
    [
        torch.optim.SGD,
        torch.optim.RMSprop,
        lambda parameters: torch.optim.SGD(parameters, 0.1),
    ],
)
def test_any_optimiser_factory(factory: Factory) -> None:
    rule = learning.make("sg", _mlp(), optimizer=factory, lr=0.1, sg_lr=0.2)
    before = [p.detach().clone() for p in rule.network.parameters()]
    for _ in range(3):
        rule.step(*_batch("mlp"))
    after = list(rule.network.parameters())
    assert all(
        not torch.equal(a, b) for a, b in zip(after, before, strict=True) if a.ndim > 1
    )
