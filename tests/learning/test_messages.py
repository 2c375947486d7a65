"""What a wrong call is answered with."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim import learning, networks
from repsim.learning.optimisers import make_optimizer


def _mlp(depth: int = 3) -> nn.Sequential:
    return networks.mlp(5, [6] * depth, 3, seed=0)


X, Y = torch.ones(4, 5), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            torch.ones(4, 7),
            Y,
            r"shape \(n, 5\), the input width of block 'hidden_1', but",
        ),
        (torch.ones(5), Y, r"shape \(n, 5\)"),
        (X.double(), Y, "Expected `x` as torch.float32 on cpu, like the network, but"),
        (X[:0], Y[:0], "Expected `x` to hold examples"),
        (X, Y + 1, "Expected labels `y` between 0 and 2, .* 3 outputs, but got 3"),
        (X, Y - 1, "Expected labels `y` between 0 and 2, .* but got -1"),
        (X, Y[:3], r"Expected `y` to have 4 labels, .* but got shape \(3,\)"),
        (X, Y[0], r"Expected `y` to have 4 labels, .* but got shape \(\)"),
        (X * torch.nan, Y, "Expected `x` to be finite, but got NaN or inf"),
        (X * torch.inf, Y, "Expected `x` to be finite, but got NaN or inf"),
        (X, torch.full((4, 3), torch.nan), "Expected `y` to be finite"),
        (X, Y[:, None], r"integer labels `y` of shape \(4,\), but got \(4, 1\)"),
    ],
)
@pytest.mark.parametrize("name", ["bp", "sg", "dfa"])
def test_wrong_batches(name: str, x: Tensor, y: Tensor, message: str) -> None:
    rule = learning.make(name, _mlp())
    before = [p.detach().clone() for p in rule.network.parameters()]
    with pytest.raises(ValueError, match=message):
        rule.step(x, y)
    after = rule.network.parameters()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_wrong_channels() -> None:
    rule = learning.make("bp", networks.cnn((2, 6, 6), [3], 3, seed=0))
    message = r"shape \(n, 2, height, width\), the input of block 'hidden_1', but"
    for x in (torch.ones(4, 1, 6, 6), torch.ones(4, 2)):
        with pytest.raises(ValueError, match=message):
            rule.step(x, Y)


def test_wrong_types() -> None:
    rule = learning.make("bp", _mlp())
    with pytest.raises(TypeError, match="Expected `x` to be a tensor, but got list"):
        rule.step([1], Y)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected `y` to be a tensor, but got int"):
        rule.step(X, 1)  # type: ignore[arg-type]


def test_another_shape_later() -> None:
    rule = learning.make("dfa", networks.cnn((1, 8, 8), [3], 3, seed=0), blocks=None)
    rule.step(torch.ones(4, 1, 8, 8), Y)
    with pytest.raises(ValueError, match="block 'output' to take the output of block"):
        rule.step(torch.ones(4, 1, 4, 4), Y)
    pooled = nn.Sequential(
        nn.Conv2d(1, 3, 1),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(3, 3),
    )
    rule = learning.make("dfa", pooled)
    rule.step(torch.ones(4, 1, 8, 8), Y)
    with pytest.raises(ValueError, match="that rule 'dfa' has trained on, but got"):
        rule.step(torch.ones(4, 1, 4, 4), Y)


@pytest.mark.parametrize("name", ["bp", "sg"])
def test_a_loss_that_is_nan_names_step_rule_and_layer(name: str) -> None:
    rule = learning.make(name, _mlp())
    for _ in range(2):
        rule.step(X, Y)
    weight = rule.network.get_submodule("hidden_2.linear").weight
    assert isinstance(weight, nn.Parameter)
    weight.data[0, 0] = torch.nan
    message = f"loss = nan at step 3 of rule '{name}', first in layer 'hidden_2'"
    with pytest.raises(ValueError, match=message):
        rule.step(X, Y)


def test_a_loss_that_overflows_in_the_loss_names_the_output() -> None:
    rule = learning.make("bp", _mlp(), loss=lambda p, y: p.sum() * torch.inf)
    with pytest.raises(
        ValueError, match="at step 1 of rule 'bp', first in layer 'output'"
    ):
        rule.step(X, Y)


def test_an_exploding_predictor_is_named() -> None:
    rule = learning.make("sg", _mlp(), optimizer=torch.optim.SGD, sg_lr=1e20, at=[2])
    with pytest.raises(
        ValueError, match="(sg_loss|loss) = .* of rule 'sg', first in layer"
    ):
        for _ in range(10):
            rule.step(torch.randn(4, 5), Y)


def test_networks_that_are_no_sequence() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            output: Tensor = self.c(h + self.b(h))
            return output

    with pytest.raises(
        ValueError, match="block 'c' gets something else in its own forw"
    ):
        learning.make("bp", Skip())


def test_blocks_that_do_not_fit() -> None:
    tied = nn.Linear(5, 5)
    cases: list[tuple[nn.Module, dict[str, Any], str]] = [
        (nn.Linear(5, 3), {}, "at least two blocks.*but got none"),
        (nn.Sequential(nn.Linear(5, 3)), {}, r"at least two blocks.*but got \['0'\]"),
        (_mlp(), {"blocks": ["hidden_1", "ouput"]}, "Did you mean 'output'"),
        (
            _mlp(),
            {"blocks": ["hidden_1", "output"]},
            "but 'hidden_2.linear.weight' lies in",
        ),
        (
            nn.Sequential(
                OrderedDict(a=tied, b=nn.Sequential(tied), c=nn.Linear(5, 3))
            ),
            {},
            "without common parameters, but 'b' shares one with 'a'",
        ),
        (
            nn.Sequential(nn.Linear(5, 6), nn.Linear(5, 3)),
            {},
            "Expected block '1' to take the output of block '0'",
        ),
        (
            nn.Sequential(nn.Linear(5, 6), nn.GRU(6, 3)),
            {},
            "Expected block '1' to return one tensor .* but got tuple",
        ),
    ]
    for network, options, message in cases:
        with pytest.raises(ValueError, match=message):
            learning.make("bp", network, **options)


def test_feedback_alignment_names_what_it_cannot_transpose() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.eye(5))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix

    net = nn.Sequential(
        OrderedDict(first=nn.Linear(5, 5), odd=Odd(), output=nn.Linear(5, 3))
    )
    with pytest.raises(ValueError, match="block 'odd' holds Odd.* at 'odd'"):
        learning.make("fa", net)
    circular = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
        nn.Sequential(nn.Flatten(), nn.Linear(32, 3)),
    )
    with pytest.raises(ValueError, match="block '0' holds Conv2d"):
        learning.make("fa", circular).step(torch.ones(4, 1, 4, 4), Y)


def test_wrong_options() -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        (
            {"loss": "mes"},
            ValueError,
            "Expected `loss` to be one of .* Did you mean 'mse'",
        ),
        ({"loss": 3}, TypeError, "Expected `loss` to be a name or a function"),
        ({"lr": -1.0}, ValueError, "Expected a positive learning rate, but got -1.0"),
        ({"lr": float("inf")}, ValueError, "Expected a positive learning rate"),
        ({"lr": float("nan")}, ValueError, "Expected a positive learning rate"),
        ({"optimizer": 3}, TypeError, "Expected `optimizer` to be a factory"),
        (
            {"optimizer": lambda p: 3},
            TypeError,
            "to return a torch.optim.Optimizer, but",
        ),
        (
            {"at": "every"},
            ValueError,
            "Expected `option of rule 'bp'` to be one of lr, loss",
        ),
    ]
    for options, kind, message in cases:
        with pytest.raises(kind, match=message):
            learning.make("bp", _mlp(), **options)
    for sigma in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="Expected `sigma` to be at least 0"):
            learning.make("noise", _mlp(), sigma=sigma)
    with pytest.raises(ValueError, match="trainable parameters, but got none"):
        make_optimizer([], 0.1)
    with pytest.raises(ValueError, match="trainable parameters, but got none"):
        learning.make("bp", _mlp().requires_grad_(False))


def test_names_of_rules() -> None:
    with pytest.raises(ValueError, match="Expected `rule` to be one of bp.*mean 'dfa'"):
        learning.make("dfaa", _mlp())
    with pytest.raises(ValueError, match="Expected `rule` to be one of"):
        learning.options_of("x")
    with pytest.raises(ValueError, match="Expected `rule` to be one of"):
        learning.unregister("x")
    with pytest.raises(ValueError, match="Expected a rule's `name` without any of"):
        learning.register("a:b", learning.Rule)
    with pytest.raises(TypeError, match="Expected `factory` to be a function"):
        learning.register("a", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2)])
def test_squared_error_never_broadcasts(shape: tuple[int, ...]) -> None:
    rule = learning.make("bp", _mlp(), loss="mse")
    with pytest.raises(ValueError, match=r"of the shape \(4, 3\) of the outputs, or"):
        rule.step(X, torch.ones(shape))
