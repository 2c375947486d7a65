"""Synthetic gradients: a small module predicts the error from what it sees.

The paper's: the linear form with the label, one in the middle or one behind each
layer, zero weights and biases at first, targets bootstrapped from the predictor
above. Ours: the sigmoid's exact form, the λ-mixture of targets in place of the used
errors, and the weight of the propagated regression loss.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from repsim.core.messages import flag, is_whole, number, require, unknown, whole
from repsim.core.modes import kept_modes
from repsim.learning.diagnostics import curl
from repsim.learning.losses import one_hot
from repsim.learning.optimisers import make_optimizer, not_negative, rate
from repsim.learning.passes import Cut
from repsim.learning.randomness import seeded
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Common, Info
from repsim.learning.rules.predictors import (
    KINDS,
    LinearStack,
    Predictor,
    held,
    layer_sizes,
    make_predictor,
)

At = Literal["middle", "every"] | int | Sequence[int]
Targets = Literal["bootstrapped", "true"] | float

UNCONDITIONED = Info(
    method="DNI",
    error="S_i(h_i)",
    learned="S, on what the blocks above send back",
    update_locked=False,
    backward_locked=False,
    sees_error=False,
    source="Jaderberg et al. 2017",
)
CONDITIONED = replace(
    UNCONDITIONED,
    method="cDNI",
    error="S_i(h_i, y)",
    source="Jaderberg et al. 2017; Czarnecki et al. 2017",
)
PROPAGATED = replace(
    CONDITIONED,
    method="SG+prop",
    error="S_i(h_i, y) + dL_S,i/dh_i",
    learned="S, and the network towards what S can predict",
    update_locked="partly",
    backward_locked="partly",
    source="Czarnecki et al. 2017; weight of the second term ours",
)


class SyntheticGradient(Rule):
    r"""Predict the error at some blocks' outputs (`sg`, and `dni` without labels).

    .. math::
        \epsilon_i = S_i(h_i, y), \qquad
        \phi_i \leftarrow \phi_i - \eta_S \nabla_{\phi_i}
        \frac{1}{n} \sum_n \| S_i(h_{i,n}, y_n) - t_{i,n} \|^2

    with the target t bootstrapped: what the next segment sends back under the error
    that was put at *its* end. The error sits at a block's output, so whether before
    or behind a normalisation is a matter of where the block ends.

    Parameters
    ----------
    network, **options
        As in `Rule`.
    at : "middle", "every" or sequence of int
        Numbers of hidden blocks, from 1, after which a gradient is synthesised.
        "middle" is block number depth // 2 (1 where there is only one).
    sg_lr : float or None
        The predictors' learning rate; None is `lr` for one predictor and 10 × `lr`
        where there is one behind every block (more than one).
    predictor : str
        "linear", "sigmoid" or "mlp".
    conditioned : bool
        Whether predictors see the label.
    targets : "bootstrapped", "true" or float
        λ of BP(λ): the target's cotangent at the next cut is (1 − λ)·(error used
        there) + λ·(target there). "bootstrapped" is 0; "true" is 1, the exact
        gradient, which is not decoupled and meant for diagnosis.
    predictor_hidden : int, sequence of int or None
        Hidden sizes of the "mlp" predictor, and of no other; None is (1024, 1024).
    predictor_batch_norm : bool
        Whether hidden layers of the "mlp" predictor are normalised over the batch, in
        front of their rectifier, as in Jaderberg et al. 2017; for no other predictor.
    kernel_size : int
        Side of the predictors' kernels on maps, odd; 1 or 3 as a rule, and 1 where
        no split is on maps.
    prop : float
        Weight of the regression loss's own gradient in the network's error
        ("SG+prop"); 0 for none.

    Attributes
    ----------
    predictors : dict
        Block → Predictor.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ValueError
        If an option has a wrong value, or the network is no sequence of blocks.

    References
    ----------
    Jaderberg et al. 2017, arXiv:1608.05343; Czarnecki et al. 2017, arXiv:1703.00522.
    """

    name: ClassVar[str] = "sg"
    info: ClassVar[Info] = CONDITIONED
    variants: ClassVar[tuple[Info, ...]] = (CONDITIONED, PROPAGATED)

    def __init__(
        self,
        network: nn.Module,
        *,
        at: At = "middle",
        sg_lr: float | None = None,
        predictor: str = "linear",
        conditioned: bool = True,
        targets: Targets = "bootstrapped",
        predictor_hidden: int | Sequence[int] | None = None,
        predictor_batch_norm: bool = False,
        kernel_size: int = 1,
        prop: float = 0.0,
        **options: Unpack[Common],
    ) -> None:
        super().__init__(network, **options)
        if predictor not in KINDS:
            raise ValueError(unknown("predictor", predictor, KINDS))
        self.kernel_size = whole(kernel_size, "kernel_size", 1)
        if self.kernel_size % 2 == 0:
            msg = f"Expected `kernel_size` to be odd, but got {kernel_size}."
            raise ValueError(msg)
        self.prop = not_negative(prop, "prop")
        numbers = places(at, len(self.hidden))
        self.splits = [self.hidden[place - 1] for place in numbers]
        everywhere = len(numbers) == len(self.hidden) > 1
        own_rate = self.lr * (10 if everywhere else 1)
        self.sg_lr = own_rate if sg_lr is None else rate(sg_lr, "sg_lr")
        self.kind, self.conditioned = predictor, flag(conditioned, "conditioned")
        self.trace = trace_of(targets)
        self.predictor_hidden = hidden_sizes(predictor, predictor_hidden)
        self.predictor_batch_norm = flag(predictor_batch_norm, "predictor_batch_norm")
        if self.predictor_batch_norm and not self.predictor_hidden:
            msg = (
                "Expected `predictor_batch_norm` only with hidden layers, those of "
                f"predictor='mlp', but got it with {predictor!r}."
            )
            raise ValueError(msg)
        self.needs_vjp = self.trace > 0
        self.stack: LinearStack | None = None
        self._single: dict[str, Predictor] = {}
        self.options |= {
            "at": at if isinstance(at, str) else numbers,
            "sg_lr": self.sg_lr,
            "predictor": predictor,
            "conditioned": self.conditioned,
            "targets": targets if isinstance(targets, str) else self.trace,
            "predictor_hidden": list(self.predictor_hidden),
            "predictor_batch_norm": self.predictor_batch_norm,
            "kernel_size": self.kernel_size,
            "prop": self.prop,
        }

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make a predictor for every split, and their optimiser."""
        if self.conditioned:
            self.batch_checks.need_vectors("`conditioned=True`")
        classes = shapes[self.last][-1] if self.conditioned else 0
        like = next(self.network.parameters())
        sizes = {shapes[name] for name in self.splits}
        maps = [name for name in self.splits if self._has_maps(name, shapes[name])]
        if self.kernel_size != 1 and not maps:
            msg = (
                "Expected `kernel_size` to be 1 where no gradient is synthesised on "
                f"maps ({', '.join(self.splits)} have none), but got "
                f"{self.kernel_size}."
            )
            raise ValueError(msg)
        self.stack, self._single = None, {}
        if self.kind == "linear" and len(sizes) == 1 and len(next(iter(sizes))) == 1:
            (units,) = next(iter(sizes))
            self.stack = LinearStack(self.splits, units, classes).to(like)
            parameters = list(self.stack.parameters())
        else:
            self._single = self._separate(shapes, classes, like)
            parameters = [p for s in self._single.values() for p in s.parameters()]
        self.optimizers["predictors"] = make_optimizer(
            parameters, self.sg_lr, self.factory
        )

    def _separate(
        self, shapes: Mapping[str, tuple[int, ...]], classes: int, like: Tensor
    ) -> dict[str, Predictor]:
        """Make predictors one by one, where they cannot be stacked."""
        with seeded(self.seed):
            return {
                name: make_predictor(
                    self.kind,
                    shapes[name],
                    classes,
                    maps=self._has_maps(name, shapes[name]),
                    hidden=self.predictor_hidden,
                    kernel=self.kernel_size,
                    batch_norm=self.predictor_batch_norm,
                ).to(like)
                for name in self.splits
            }

    def learned(self, name: str) -> list[nn.Parameter]:
        """Return the predictor's parameters."""
        return list(self.predictors[name].parameters())

    def stand_alone(self) -> None:
        """Take stacked predictors apart, with what their optimiser keeps."""
        if self.stack is None:
            return
        stack, before = self.stack, self.optimizers["predictors"]
        self._single = {}
        for name in self.splits:
            one = stack[name]
            one.weight = nn.Parameter(one.weight.detach().clone())
            self._single[name] = one
        parameters = [p for s in self._single.values() for p in s.parameters()]
        after = make_optimizer(parameters, self.sg_lr, self.factory)
        for i, parameter in enumerate(parameters):
            for key, value in before.state.get(stack.weight, {}).items():
                own = isinstance(value, Tensor) and value.shape == stack.weight.shape
                kept = value[i] if own else value
                after.state[parameter][key] = copy.deepcopy(kept)
        self.optimizers["predictors"], self.stack = after, None

    @property
    def predictors(self) -> dict[str, Predictor]:
        """Block → its predictor; writing into its numbers changes the rule's."""
        if self.stack is not None:
            return {name: self.stack[name] for name in self.splits}
        return dict(self._single)

    def _has_maps(self, name: str, shape: tuple[int, ...]) -> bool:
        """Return whether a block gives (channels, …): three axes are tokens if not."""
        convolves = any(isinstance(m, nn.Conv1d) for m in self.blocks[name].modules())
        return len(shape) > 2 or (len(shape) == 2 and convolves)

    def check(self, x: Tensor, y: Tensor) -> Tensor:
        """Refuse labels that the predictors cannot see, too."""
        y = super().check(x, y)
        shape = (len(x), *self.shapes[self.last])
        if self.predictor_batch_norm and len(x) < 2:
            msg = (
                "Expected at least 2 examples, over which the predictors normalise, "
                f"but got {len(x)}; predictor_batch_norm=False does with fewer."
            )
            raise ValueError(msg)
        if self.conditioned and y.is_floating_point() and y.shape != shape:
            msg = (
                f"Expected labels `y` as integers or of the shape {shape} of the "
                f"outputs, which predictors see, but got {tuple(y.shape)}; "
                "conditioned=False does without."
            )
            raise ValueError(msg)
        return y

    def predict(self, cuts: Sequence[Cut]) -> None:
        """Predict at every cut from what the forward pass has left there."""
        if self.stack is not None:
            self.stack.predict(cuts)
            return
        with torch.no_grad():
            for cut in cuts:
                cut.predicted = self._single[cut.name](cut.h, self._seen(cut))

    def label_vectors(self, y: Tensor) -> Tensor | None:
        """Return labels as the predictors see them: None without conditioning."""
        return one_hot(y, self.shapes[self.last][-1]) if self.conditioned else None

    def curls(self, x: Tensor, y: Tensor) -> dict[str, float]:
        """Return |A − Aᵀ|/|A + Aᵀ| of every predictor's derivative on four examples."""
        curls = {}
        with torch.no_grad(), kept_modes(self.network, training=False):
            h, labels = x[:4], self.label_vectors(y[:4])
            for name, block in self.blocks.items():
                h = block(self.batch_checks.own(name, h))
                if name in self.splits:
                    curls[name] = curl(self.predictors[name].jacobians(h, labels))
        return curls

    def _seen(self, cut: Cut) -> Tensor | None:
        return cut.labels if self.conditioned else None

    def error(self, cut: Cut) -> Tensor:
        """Return S(h, y), and the regression's own gradient for SG+prop."""
        cut.target = self._target(cut)
        predicted = held(cut.predicted)
        if self.prop == 0:
            return predicted
        predictor = self.predictors[cut.name]
        with torch.enable_grad():
            h = cut.h.detach().requires_grad_()
            loss = (predictor(h, self._seen(cut)) - cut.target).square().sum()
        (own,) = torch.autograd.grad(loss, h)
        return predicted + self.prop * own

    def _target(self, cut: Cut) -> Tensor:
        """Return what the predictor is to learn (see `targets`)."""
        above = cut.above
        if self.trace == 0 or above is None:
            return cut.incoming
        mixed = torch.lerp(held(above.used), held(above.target), self.trace)
        return cut.segment.pull(mixed)

    def learn(self, cut: Cut, count: int) -> dict[str, Tensor]:
        """Add the gradient of the predictor's regression."""
        if cut.target is None:
            cut.target = self._target(cut)
        distance: Tensor | None
        if self.stack is not None:
            distance = self.stack.learn(cut, count)
        else:
            predicted, target = held(cut.predicted), held(cut.target)
            predictor = self._single[cut.name]
            distance = predictor.learn(cut.h, self._seen(cut), predicted, target, count)
        return {} if distance is None else {"sg_loss": distance}

    def extra_state(self) -> dict[str, Any]:
        """Return the predictors' weights, and whether they are stacked."""
        weights = {name: s.state_dict() for name, s in self.predictors.items()}
        return {**weights, "stacked": self.stack is not None}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take the predictors' weights back, stacked or apart as they were."""
        stacked = state.get("stacked", self.stack is not None)
        if self.stack is not None and not stacked:
            self.stand_alone()
        elif self.stack is None and stacked:
            self.build(self.shapes)
            self._segments = None
        for name, predictor in self.predictors.items():
            predictor.load_state_dict(state[name])


class UnconditionedSyntheticGradient(SyntheticGradient):
    """Predict the error without the label (`dni`): `sg` with ``conditioned=False``."""

    name: ClassVar[str] = "dni"
    info: ClassVar[Info] = UNCONDITIONED
    variants: ClassVar[tuple[Info, ...]] = (UNCONDITIONED,)

    @classmethod
    def option_names(cls) -> list[str] | None:
        """Return those of `sg`."""
        return SyntheticGradient.option_names()

    def __init__(self, network: nn.Module, **options: Any) -> None:
        if options.setdefault("conditioned", False):
            msg = "Expected `conditioned` to be False for rule 'dni'; use rule 'sg'."
            raise ValueError(msg)
        super().__init__(network, **options)


def places(at: At, depth: int) -> list[int]:
    """Return the numbers of hidden blocks that `at` means, in order."""
    if isinstance(at, str):
        if at == "middle":
            return [max(depth // 2, 1)]
        if at == "every":
            return list(range(1, depth + 1))
        if not all(part.strip().isdigit() for part in at.split("+")):
            raise ValueError(unknown("at", at, ["middle", "every", "hidden numbers"]))
        at = [int(part) for part in at.split("+")]
    listed: Any = [at] if is_whole(at) else at
    wanted = "`at` to be 'middle', 'every' or a list of hidden-layer numbers"
    require(isinstance(listed, Iterable) and not isinstance(at, Tensor), at, wanted)
    for place in listed:
        require(is_whole(place), place, f"{wanted}, which are whole")
    numbers = sorted(int(place) for place in listed)
    wrong = [n for n in numbers if not 1 <= n <= depth]
    if wrong or not numbers or len(set(numbers)) < len(numbers):
        msg = (
            f"Expected `at` to hold different numbers of hidden layers, 1 to {depth}, "
            f"but got {numbers}."
        )
        raise ValueError(msg)
    return numbers


def hidden_sizes(predictor: str, sizes: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the hidden sizes of the predictors, none but for "mlp"."""
    if predictor == "mlp":
        return layer_sizes((1024, 1024) if sizes is None else sizes, "predictor_hidden")
    if sizes is None:
        return ()
    msg = (
        "Expected `predictor_hidden` only with predictor='mlp', but got it with "
        f"{predictor!r}."
    )
    raise ValueError(msg)


def trace_of(targets: Targets) -> float:
    """Return λ of BP(λ) for the argument `targets`."""
    named = {"bootstrapped": 0.0, "true": 1.0}
    if targets is True:
        return 1.0
    if isinstance(targets, str):
        if targets not in named:
            raise ValueError(unknown("targets", targets, [*named, "a number 0 to 1"]))
        return named[targets]
    trace = number(targets, "targets")
    if not 0 <= trace <= 1:
        msg = f"Expected `targets` between 0 and 1, but got {targets}."
        raise ValueError(msg)
    return trace
