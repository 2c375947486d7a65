"""The frame: every rule says which error arrives at a block's output.

A network is a sequence of blocks. A rule cuts it at some of them; between two cuts
lies a segment. One training step runs every segment forward once and then, from the
output down, puts an error at each segment's end and differentiates the segment once:

    output            the true error e, always
    each cut          what the rule's `error` says
    inside a segment  the exact derivative of the segment

Errors are per sample (no 1/N). A rule in its own file states `info`, where it cuts,
and `error`; that is all in which the rules differ.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from repsim.learning.blocks import (
    Blocks,
    check_input,
    evaluating,
    first_weights,
    named_blocks,
    output_shapes,
    weights,
)
from repsim.learning.checks import require
from repsim.learning.frame import Cut, Segment, make_cuts
from repsim.learning.info import Info
from repsim.learning.lean import Layer, LeanSegment, is_plain, lean_chains
from repsim.learning.losses import LossFunction, check_labels, one_hot, resolve
from repsim.learning.optimisers import Factory, make_optimizer
from repsim.learning.randomness import is_random, isolated


class Rule:
    """A learning rule on a network: backpropagation, unless a subclass differs.

    Parameters
    ----------
    network : Module
        A sequence of named blocks, the last one the output.
    lr : float
        Learning rate.
    loss : str or callable
        "cross_entropy", "mse" (half the squared error) or f(output, y).
    optimizer : callable or None
        Factory f(parameters, lr=lr), or f(parameters); None is fused Adam.
    blocks : sequence of str, mapping or None
        The blocks by name; None means the network's direct children.
    seed : int
        Seed of the rule's own generator.

    Attributes
    ----------
    network : Module
    name : str
    info : Info
    options : dict
        The options, as JSON keeps them.
    splits : list of str
        Blocks behind which a gradient is synthesised.
    steps : int
        Updates made.
    initial : dict
        The blocks' weights at construction, block → list of tensors.

    Raises
    ------
    ValueError
        If the network is no sequence of blocks, or an option has a wrong value.
    """

    name: ClassVar[str] = "bp"
    info: ClassVar[Info]
    variants: ClassVar[tuple[Info, ...]] = ()
    needs_incoming: ClassVar[bool] = True
    pulls: bool = False

    def __init__(
        self,
        network: nn.Module,
        *,
        lr: float = 3e-4,
        loss: str | LossFunction = "cross_entropy",
        optimizer: Factory | None = None,
        blocks: Blocks = None,
        seed: int = 0,
    ) -> None:
        self.network = network
        self.blocks = named_blocks(network, blocks)
        self.loss_name, self.loss = resolve(loss)
        self.lr, self.seed, self.factory = lr, seed, optimizer
        self.options: dict[str, Any] = {
            "lr": lr,
            "loss": self.loss_name,
            "optimizer": None
            if optimizer is None
            else getattr(optimizer, "__name__", type(optimizer).__name__),
            "blocks": None if blocks is None else list(self.blocks),
            "seed": seed,
        }
        self.splits: list[str] = []
        self.steps = 0
        self.generator = torch.Generator().manual_seed(seed)
        self.initial = {
            name: [w.detach().clone() for w in weights(block)]
            for name, block in self.blocks.items()
        }
        trainable = [p for p in network.parameters() if p.requires_grad]
        self.optimizers = {"network": make_optimizer(trainable, lr, optimizer)}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._input_shape: tuple[int, ...] | None = None
        self._dtype: torch.dtype | None = None
        self._random = is_random(network)
        self._chains: dict[str, list[Layer]] | None = None
        self._modules = [m for b in self.blocks.values() for m in b.modules()]

    # What a rule says about itself.

    @property
    def hidden(self) -> list[str]:
        """Names of the hidden blocks, which `at` counts from 1."""
        return list(self.blocks)[:-1]

    def prepare(self) -> None:
        """Build at once where the first weights say what an input looks like."""
        name = next(iter(self.blocks))
        first = first_weights({name: self.blocks[name]})
        if isinstance(first, nn.Linear):
            self._look_at(first.weight.new_zeros(2, first.in_features))

    @property
    def cuts(self) -> list[str]:
        """Blocks behind which the rule puts an error of its own."""
        return self.splits

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make what the rule needs once the blocks' output shapes are known."""

    def error(self, cut: Cut) -> Tensor:
        """Return the per-sample error at a cut; here what comes from above."""
        return cut.incoming

    def foresee(self, cuts: Sequence[Cut]) -> None:
        """Look at all cuts after the forward pass, before any error is formed."""

    def learn(self, cuts: Sequence[Cut], count: int) -> dict[str, Tensor]:
        """Add gradients of what forms the errors, and return losses to report."""
        return {}

    def run(self, name: str, h: Tensor) -> Tensor:
        """Run one block forward as the rule's derivatives want it."""
        output: Tensor = self.blocks[name](h)
        return output

    def transposes(self) -> Mapping[str, Tensor] | None:
        """Return matrices in place of Wᵀ, by module path; None where `run` does more.

        A rule that overrides `run` is differentiated by autograd unless what it does
        is said here.
        """
        return {} if type(self).run is Rule.run else None

    def extra_state(self) -> dict[str, Any]:
        """Return what the rule keeps besides network, optimisers and generator."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `extra_state` returned."""

    # One update.

    def step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Make one update.

        Parameters
        ----------
        x : Tensor, shape (n, …)
            Inputs, on the network's device and of its dtype.
        y : Tensor, shape (n,) of integers, or what the loss takes
            Labels.

        Returns
        -------
        dict
            0-d tensors: `loss`, and `sg_loss` where gradients are predicted.

        Raises
        ------
        ValueError
            If shapes, labels or numbers are wrong, or the loss is not finite.
        """
        self.zero_grad()
        losses = self.accumulate(x, y)
        self.update()
        return losses

    def zero_grad(self) -> None:
        """Forget accumulated gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()

    def accumulate(
        self, x: Tensor, y: Tensor, count: int | None = None
    ) -> dict[str, Tensor]:
        """Add the gradients of one part of a batch, without an update.

        Parameters
        ----------
        x, y : Tensor
            As in `step`.
        count : int or None
            Examples in the whole batch; None where this is all of it.

        Returns
        -------
        dict
            This part's losses, means over its examples.

        Raises
        ------
        ValueError
            As `step`.
        """
        y = self._check(x, y)
        with isolated(self.generator, self._random, x.device):
            losses = self._gradients(x, y, len(x) if count is None else count)
        self._check_finite(x, losses)
        return losses

    def update(self) -> None:
        """Let the optimisers use the accumulated gradients."""
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.steps += 1

    def _gradients(self, x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
        """Run forward once and differentiate every segment once, from the top."""
        lean = self._is_lean(x)
        with torch.set_grad_enabled(not lean):
            segments = self._forward(x, lean=lean)
        loss, error = self._output_error(segments[-1].out, y)
        cuts = make_cuts(segments, error, one_hot(y, error.shape[-1]))
        self.foresee(cuts)
        for segment, cut in zip(segments[::-1], (None, *cuts), strict=True):
            if cut is not None:
                cut.used = error = self.error(cut)
            segment.backward(error, count, keep=self.pulls, send=self.needs_incoming)
        return {"loss": loss, **self.learn(cuts, count)}

    def _forward(self, x: Tensor, *, lean: bool = False) -> list[Segment]:
        """Run the blocks, with the graph cut behind each block in `cuts`."""
        make: Callable[[Tensor], Segment] = Segment
        if lean and self._chains is not None:
            make = partial(LeanSegment, chain=self._chains)
        segments = [make(x)]
        h, cuts = x, frozenset(self.cuts)
        for name in self.blocks:
            h = segments[-1].run(name, h, self.run)
            if name in cuts:
                h = h.detach().requires_grad_(
                    not lean and (self.needs_incoming or self.pulls)
                )
                segments.append(make(h))
        if self.pulls and not self.needs_incoming:
            for segment in segments:
                segment.trained = self._trained(segment.inner)
        return segments

    def _trained(self, names: Iterable[str]) -> list[nn.Parameter]:
        parameters = (p for name in names for p in self.blocks[name].parameters())
        return [p for p in parameters if p.requires_grad]

    def _is_lean(self, x: Tensor) -> bool:
        """Return whether the blocks can be differentiated by hand (see `lean`)."""
        return (
            self._chains is not None
            and x.ndim == 2
            and len(x) > 1
            and is_plain(self._modules)
            and not torch.is_autocast_enabled(x.device.type)
        )

    def _output_error(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss and its per-sample derivative by the output."""
        with torch.enable_grad():
            leaf = output.detach().requires_grad_()
            loss = self.loss(leaf, y)
        (grad,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), grad * len(output)

    # Errors, looked at without touching anything.

    def errors(self, x: Tensor, y: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the error used and the true one at every block's output.

        Both come from private passes in eval mode, per sample, and change nothing:
        neither gradients nor random state, normalisation statistics nor flags.

        Parameters
        ----------
        x, y : Tensor
            As in `step`.

        Returns
        -------
        dict
            Block → (used, true), each of the shape of the block's output.

        Raises
        ------
        ValueError
            If shapes or labels are wrong.
        """
        y = self._check(x, y)
        state = self.generator.get_state()
        try:
            with torch.enable_grad(), evaluating(self.network):
                true = self._true_errors(x, y)
                used = self._used_errors(x, y)
        finally:
            self.generator.set_state(state)
        return {name: (used[name], true[name]) for name in self.blocks}

    def _true_errors(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Differentiate the loss by every block's output, exactly."""
        segment, h = Segment(x.detach().requires_grad_()), x.detach().requires_grad_()
        segment.entry = h
        for name, block in self.blocks.items():
            h = segment.inner[name] = block(h)
        _, error = self._output_error(h, y)
        return segment.inner_errors(error)

    def _used_errors(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Follow `_gradients` from the top down, without parameter gradients."""
        segments = self._forward(x.detach().requires_grad_())
        _, error = self._output_error(segments[-1].out, y)
        cuts = make_cuts(segments, error, one_hot(y, error.shape[-1]))
        self.foresee(cuts)
        found: dict[str, Tensor] = {}
        for segment, cut in zip(segments[::-1], (None, *cuts), strict=True):
            if cut is not None:
                cut.used = error = self.error(cut)
            found |= segment.inner_errors(error)
        return found

    # What comes in.

    def _check(self, x: Tensor, y: Tensor) -> Tensor:
        """Refuse what does not fit, and return the labels as the loss takes them."""
        require(isinstance(x, Tensor), x, "`x` to be a tensor")
        require(isinstance(y, Tensor), y, "`y` to be a tensor")
        if len(x) == 0:
            msg = f"Expected `x` to hold examples, but got shape {tuple(x.shape)}."
            raise ValueError(msg)
        shape = tuple(x.shape[1:])
        if shape != self._input_shape or x.dtype != self._dtype:
            self._look_at(x)
        # The sum is looked at first, which is cheaper; it may overflow on its own.
        if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
            msg = "Expected `x` to be finite, but got NaN or inf."
            raise ValueError(msg)
        return check_labels(y, len(x), self._shapes[self.last][-1])

    def _look_at(self, x: Tensor) -> None:
        """Trace the blocks on inputs of a new shape, and build what depends on it."""
        expected = next(self.network.parameters())
        if x.dtype != expected.dtype or x.device != expected.device:
            msg = (
                f"Expected `x` as {expected.dtype} on {expected.device}, like the "
                f"network, but got {x.dtype} on {x.device}; convert it with x.to(…)."
            )
            raise ValueError(msg)
        check_input(self.blocks, x)
        shapes = output_shapes(self.network, self.blocks, x[:2])
        if shapes != self._shapes:
            if self.steps:
                msg = (
                    f"Expected `x` of the shape (n, {self._input_shape}) that rule "
                    f"{self.name!r} has trained on, but got {tuple(x.shape)}."
                )
                raise ValueError(msg)
            self._shapes = shapes
            self.build(shapes)
            matrices = self.transposes()
            if matrices is not None:
                self._chains = lean_chains(self.blocks, matrices)
        self._input_shape, self._dtype = tuple(x.shape[1:]), x.dtype

    def _check_finite(self, x: Tensor, losses: dict[str, Tensor]) -> None:
        """Stop at a loss that is NaN or infinite, and say where it comes from."""
        if torch.isfinite(torch.stack(list(losses.values())).sum()):
            return
        bad = [name for name, value in losses.items() if not torch.isfinite(value)]
        if not bad:
            return
        msg = (
            f"Expected a finite loss, but got {bad[0]} = {float(losses[bad[0]])} at "
            f"step {self.steps + 1} of rule {self.name!r}, first in layer "
            f"{self._first_bad(x)!r}; try a smaller learning rate."
        )
        raise ValueError(msg)

    def _first_bad(self, x: Tensor) -> str:
        """Return the first block with weights or outputs that are not finite."""
        with torch.no_grad(), evaluating(self.network):
            h = x
            for name, block in self.blocks.items():
                h = block(h)
                if not all(torch.isfinite(t).all() for t in (h, *block.parameters())):
                    return name
        return self.last

    @property
    def last(self) -> str:
        """The output block's name."""
        return next(reversed(self.blocks))

    # State.

    def state_dict(self) -> dict[str, Any]:
        """Return everything a later run needs to continue bit for bit.

        Returns
        -------
        dict
            Network, optimisers, random state, initial weights, number of updates and
            what the rule adds; tensors and plain containers only, copied.
        """
        state = {
            "rule": self.name,
            "options": dict(self.options),
            "steps": self.steps,
            "input_shape": self._input_shape,
            "network": self.network.state_dict(),
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "generator": self.generator.get_state(),
            "initial": self.initial,
            "extra": self.extra_state(),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Parameters
        ----------
        state : mapping
            From a rule of the same name and options on the same kind of network.

        Raises
        ------
        ValueError
            If the state belongs to another rule or other options.
        """
        state = copy.deepcopy(dict(state))
        for what, mine in (("rule", self.name), ("options", self.options)):
            if state[what] != mine:
                msg = (
                    f"Expected a state of {what} {mine!r}, but got {state[what]!r}; "
                    "make the rule with the same name and options."
                )
                raise ValueError(msg)
        self.network.load_state_dict(state["network"])
        if state["input_shape"] is not None and not self._shapes:
            parameter = next(self.network.parameters())
            self._look_at(parameter.new_zeros(2, *state["input_shape"]))
        self.load_extra_state(state["extra"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.generator.set_state(state["generator"])
        self.initial, self.steps = state["initial"], state["steps"]
