"""What a wrong call is answered with."""

from collections import OrderedDict
from typing import Any, ClassVar

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
        (X[0, 0], Y[:0], r"Expected `x` to hold examples, but got shape \(\)"),
        (X[:1], Y[:1], "Expected block 'hidden_1' to take 1 examples in training, but"),
        (
            X,
            torch.ones(4),
            r"of the outputs, or integers, but got \(4,\)|which predictors see",
        ),
        (
            X,
            torch.ones(4, 2),
            r"of the outputs, or integers, but got \(4, 2\)|which pre",
        ),
        (X, torch.ones(4, 3, 1), r"or integers, but got \(4, 3, 1\)|which predictors"),
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


@pytest.mark.parametrize("count", ["4", 2.0, 0, True])
def test_wrong_counts(count: Any) -> None:
    with pytest.raises(
        (TypeError, ValueError), match="Expected `count` (to be|between)"
    ):
        learning.make("bp", _mlp()).accumulate(X, Y, count=count)


@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        (
            nn.NLLLoss(weight=torch.ones(2)),
            ValueError,
            "loss 'NLLLoss' takes .* raised:",
        ),
        (lambda p, y: p[9], ValueError, "loss '<lambda>' takes .* it raised: index 9"),
        (
            lambda p, y: "low",
            TypeError,
            "loss '<lambda>' to return a tensor, but got st",
        ),
        (
            lambda p, y: p[:2],
            ValueError,
            r"or one for each of the 4 examples, but got .*",
        ),
        (
            lambda p, y: torch.tensor(1.0),
            ValueError,
            "to be differentiable by the netw",
        ),
        (
            lambda p, y: torch.ones(1, requires_grad=True).sum(),
            ValueError,
            "to be diff",
        ),
    ],
)
def test_losses_that_are_none(loss: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        learning.make("bp", _mlp(), loss=loss).step(X, Y)


@pytest.mark.parametrize(
    "network", [3, None, "mlp", nn.Linear, [nn.Linear(5, 3)], lambda x: x]
)
def test_networks_that_are_none(network: Any) -> None:
    with pytest.raises(TypeError, match="Expected `network` to be an nn.Module, but"):
        learning.make("bp", network)


@pytest.mark.parametrize("name", ["sg", "kickback"])
def test_outputs_that_are_no_vectors(name: str) -> None:
    network = nn.Sequential(
        OrderedDict(
            hidden=nn.Linear(5, 6),
            output=nn.Sequential(nn.Linear(6, 3), nn.Unflatten(1, (3, 1))),
        )
    )
    message = r"block 'output' to return \(n, classes\) for .* the shape \(n, 3, 1\)"
    with pytest.raises(ValueError, match=message):
        learning.make(name, network)
    for other in ("bp", "dfa", "dni"):
        rule = learning.make(other, network, loss="mse")
        rule.step(X, torch.ones(4, 3, 1))
        with pytest.raises(ValueError, match=message):
            rule.step(X, Y)


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
            _mlp(),
            {"blocks": ["hidden_1", "hidden_1", "output"]},
            "Expected each block once in `blocks`, but got 'hidden_1' twice",
        ),
        (
            nn.Sequential(nn.LazyLinear(6), nn.Linear(6, 3)),
            {},
            "Expected weights whose shapes are known, but '0.weight' is lazy",
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


@pytest.mark.parametrize("blocks", ["hidden_1", 3, {"hidden_1", "output"}])
def test_blocks_are_a_list_or_a_mapping(blocks: Any) -> None:
    with pytest.raises(
        TypeError, match="Expected `blocks` to be a list of names, or a"
    ):
        learning.make("bp", _mlp(), blocks=blocks)
    with pytest.raises(
        TypeError, match="Expected block 'a' to be an nn.Module, but got"
    ):
        learning.make("bp", _mlp(), blocks={"a": blocks})


class Own(learning.Rule):
    """A rule of a user's, with something wrong in it."""

    name: ClassVar[str] = "own"
    where: ClassVar[list[str]] = ["hidden_1"]
    wrong: ClassVar[Any] = None

    @property
    def cuts(self) -> list[str]:
        return self.where

    def error(self, cut: learning.Cut) -> Tensor:
        found: Tensor = self.wrong
        return found


@pytest.mark.parametrize("wrong", [None, torch.ones(4, 2), 3.0])
def test_errors_of_a_users_rule_must_fit(wrong: Any) -> None:
    class Wrong(Own):
        pass

    Wrong.wrong = wrong
    message = (
        r"`error` of rule 'own' to return a tensor of the shape \(4, 6\) of block 'h"
    )
    with pytest.raises(ValueError, match=message):
        Wrong(_mlp()).step(X, Y)


@pytest.mark.parametrize("name", ["output", "hiden_2"])
def test_cuts_of_a_users_rule_are_hidden_blocks(name: str) -> None:
    class Wrong(Own):
        where: ClassVar[list[str]] = [name]

    message = "Expected `cuts of rule 'own'` to be one of hidden_1, hidden_2, hidden_3"
    with pytest.raises(ValueError, match=message):
        Wrong(_mlp()).step(X, Y)


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
        ({"loss": nn.CrossEntropyLoss}, TypeError, "not a class, but got type"),
        ({"lr": -1.0}, ValueError, "`lr` to be a positive learning rate, but got -1.0"),
        ({"lr": float("inf")}, ValueError, "Expected `lr` to be a positive learning"),
        ({"lr": float("nan")}, ValueError, "Expected `lr` to be a positive learning"),
        ({"lr": "1e-3"}, TypeError, "Expected `lr` to be a number, but got str"),
        ({"lr": True}, TypeError, "Expected `lr` to be a number, but got bool"),
        ({"lr": torch.tensor(1.0)}, TypeError, "Expected `lr` to be a number, but got"),
        ({"seed": "0"}, TypeError, "Expected `seed` to be a whole number, but got '0'"),
        ({"seed": 0.0}, TypeError, "Expected `seed` to be a whole number, but got 0.0"),
        ({"seed": -1}, ValueError, "Expected `seed` to be at least 0, but got -1"),
        ({"seed": 2**63}, ValueError, "Expected `seed` between 0 and "),
        ({"optimizer": torch.optim.LBFGS}, ValueError, "but LBFGS evaluates the loss"),
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
        with pytest.raises(
            ValueError, match="Expected `sigma` to be finite and at least 0"
        ):
            learning.make("noise", _mlp(), sigma=sigma)
    with pytest.raises(TypeError, match="Expected `sigma` to be a number, but got str"):
        learning.make("noise", _mlp(), sigma="1")
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
    with pytest.raises(ValueError, match="Expected `name` to be free, but got 'bp'"):
        learning.register("bp", learning.Rule)
    with pytest.raises(ValueError, match="Expected a rule's `name` without any of"):
        learning.register("a:b", learning.Rule)
    with pytest.raises(TypeError, match="Expected `factory` to be a function"):
        learning.register("a", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rule's `name` to be a string, but got int"):
        learning.register(3, learning.Rule)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2)])
def test_squared_error_never_broadcasts(shape: tuple[int, ...]) -> None:
    rule = learning.make("bp", _mlp(), loss="mse")
    with pytest.raises(ValueError, match=r"of the shape \(4, 3\) of the outputs, or"):
        rule.step(X, torch.ones(shape))
