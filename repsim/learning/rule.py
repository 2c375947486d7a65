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
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from repsim.core.messages import whole
from repsim.core.modes import kept_modes
from repsim.learning.batch_checks import BatchChecks
from repsim.learning.blocks import Blocks, named_blocks, weights
from repsim.learning.closed_form import Chains, lean_chains
from repsim.learning.losses import LossFunction, resolve
from repsim.learning.optimisers import Factory, make_optimizer, name_of, rate
from repsim.learning.passes import Cut, parts
from repsim.learning.randomness import is_random, isolated
from repsim.learning.rule_info import Common, Diverged, Info
from repsim.learning.rule_state import check_network, check_state
from repsim.learning.schedules import Schedule
from repsim.learning.segments import Segment
from repsim.learning.whole_step import gradients, true_errors, used_errors


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
    schedule : Schedule or None
        How segments take turns in a step (`repsim.learning.schedules`); None is all
        forward, then all back.

    Raises
    ------
    ValueError
        If the network is no sequence of blocks, or an option has a wrong value.
    """

    name: ClassVar[str] = "bp"
    info: ClassVar[Info]
    variants: ClassVar[tuple[Info, ...]] = ()
    needs_incoming: ClassVar[bool] = True
    needs_vjp: bool = False
    in_parts: ClassVar[bool] = True

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
        self.lr, self.factory = rate(lr, "lr"), optimizer
        self.seed = whole(seed, "seed", 0)
        self.options: dict[str, Any] = {
            "lr": self.lr,
            "loss": self.loss_name,
            "optimizer": name_of(optimizer),
            "blocks": None if blocks is None else list(self.blocks),
            "seed": self.seed,
        }
        self.splits: list[str] = []
        self.steps = 0
        self.generator = torch.Generator().manual_seed(self.seed)
        self.initial = {
            name: [w.detach().clone() for w in weights(block)]
            for name, block in self.blocks.items()
        }
        trainable = [p for p in network.parameters() if p.requires_grad]
        self.optimizers = {"network": make_optimizer(trainable, self.lr, optimizer)}
        self.batch_checks = BatchChecks(network, self.blocks, self.name)
        self.chains: Chains | None = None
        self._segments: list[Segment] = []
        self.schedule: Schedule | None = None
        self.modules = [m for b in self.blocks.values() for m in b.modules()]
        self.draws = is_random(network)

    # What a rule says about itself.

    @classmethod
    def option_names(cls) -> list[str] | None:
        """Return the names of the rule's options, or None where it takes any."""
        names: list[str] = []
        for name, kind in inspect.signature(cls).parameters.items():
            if kind.kind is inspect.Parameter.VAR_KEYWORD:
                if kind.annotation != Unpack[Common]:
                    return None
                names += Common.__annotations__
            elif name != "network":
                names.append(name)
        return names

    @property
    def hidden(self) -> list[str]:
        """Names of the hidden blocks, which `at` counts from 1."""
        return list(self.blocks)[:-1]

    def prepare(self) -> None:
        """Build at once where the first weights say what an input looks like."""
        example = self.batch_checks.example()
        if example is not None:
            self.look_at(example)

    @property
    def cuts(self) -> list[str]:
        """Blocks behind which the rule puts an error of its own."""
        return self.splits

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make what the rule needs once the blocks' output shapes are known.

        Called anew where a rule that has not trained meets inputs that lead to others.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
            Block → shape of its output for one example.
        """

    def error(self, cut: Cut) -> Tensor:
        """Return the per-sample error at a cut; here what comes from above.

        Parameters
        ----------
        cut : Cut
            The output `h`, the labels and what has come from above.

        Returns
        -------
        Tensor
            Of the shape of `cut.h`; a row stands for the derivative of that sample's
            own loss, without the 1/N of a mean.
        """
        return cut.incoming

    def predict(self, cuts: Sequence[Cut]) -> None:
        """Look at all cuts after the forward pass, before any error is formed.

        Parameters
        ----------
        cuts : sequence of Cut
            From the output down, with nothing from above yet; where segments work on
            their own, one cut with the message it has, if any.
        """

    def learn(self, cut: Cut, count: int) -> dict[str, Tensor]:
        """Add gradients of what forms the errors, and return losses to report.

        Parameters
        ----------
        cut : Cut
            As in `error`, with `used` the error formed there.
        count : int
            Examples in the whole batch, by which sums over samples are divided.

        Returns
        -------
        dict
            Name → 0-d tensor, a mean over this part's examples; equal names are added
            over the cuts.
        """
        return {}

    def gradients(self, x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
        """Add the gradients of a checked batch, and return losses.

        Here those of the frame: an error at each cut. A rule that learns otherwise,
        from states that settle or from several passes, says so here and in `used`.

        Parameters
        ----------
        x : Tensor, shape (n, …)
            Inputs.
        y : Tensor, shape (n,) or (n, …)
            Labels as `check` returns them.
        count : int
            Examples in the whole batch, by which sums over samples are divided.

        Returns
        -------
        dict
            As of `accumulate`.
        """
        return gradients(self, x, y, count)

    def used(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return what stands for the error at every block's output, per sample.

        Parameters
        ----------
        x, y : Tensor
            As in `gradients`; `errors` calls this in eval mode.

        Returns
        -------
        dict
            Block → tensor of the shape of its output, without 1/N, found without
            adding to any parameter's gradient.
        """
        return used_errors(self, x, y)

    def curls(self, x: Tensor, y: Tensor) -> dict[str, float]:
        """Return the asymmetry of each predictor's derivative by h, by block.

        Parameters
        ----------
        x, y : Tensor
            As in `step`.

        Returns
        -------
        dict
            Block → number; here none, for a rule without predictors.
        """
        return {}

    def learned(self, name: str) -> list[nn.Parameter]:
        """Return what is learned to form the error behind one block.

        Parameters
        ----------
        name : str
            The block.

        Returns
        -------
        list of Parameter
            What a segment on its own steps besides its blocks; here nothing.
        """
        return []

    def run(self, name: str, h: Tensor) -> Tensor:
        """Run one block forward as the rule's derivatives want it.

        Parameters
        ----------
        name : str
            The block.
        h : Tensor, shape (n, …)
            Its input.

        Returns
        -------
        Tensor
            Its output, whose derivative by `h` takes an error down.
        """
        output: Tensor = self.blocks[name](h)
        return output

    def transposes(self) -> Mapping[str, Tensor] | None:
        """Return matrices in place of Wᵀ, by module path; None where `run` does more.

        A rule that overrides `run` is differentiated by autograd unless what it does
        is said here.

        Returns
        -------
        mapping of str to Tensor, or None
            Module path → matrix of the weight's shape (outputs, inputs); modules left
            out keep their own weights.
        """
        return {} if type(self).run is Rule.run else None

    def extra_state(self) -> dict[str, Any]:
        """Return what the rule keeps besides network, optimisers and generator.

        Returns
        -------
        dict
            Tensors and plain containers only; `state_dict` copies them.
        """
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `extra_state` returned.

        Parameters
        ----------
        state : mapping
            A copy of it, which the rule may keep.
        """

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
            If shapes, labels or numbers are wrong.
        Diverged
            If the loss is not finite, a ValueError, too.
        """
        if self.schedule is not None:
            return self.schedule.step(self, x, y)
        self.zero_grad()
        losses = self.accumulate(x, y)
        self.update()
        return losses

    @property
    def segments(self) -> list[Segment]:
        """The network's parts between cuts, from the input up, each able to work alone.

        Raises
        ------
        ValueError
            If the rule does more than put errors at cuts, or has seen no input yet.
        """
        if not self.in_parts:
            msg = (
                "Expected a rule that only puts errors at cuts, but rule "
                f"{self.name!r} does more and has no segments; use its step."
            )
            raise ValueError(msg)
        if not self.shapes:
            msg = (
                f"Expected a rule that has seen an input, but rule {self.name!r} does "
                "not know the shapes of its blocks yet; call check(x, y) first."
            )
            raise ValueError(msg)
        if not self._segments:
            self.stand_alone()
            self._segments = [Segment(self, names) for names in parts(self)]
            pairs = zip(self._segments[:-1], self._segments[1:], strict=True)
            for lower, upper in pairs:
                lower.above = upper
        return self._segments

    def stand_alone(self) -> None:
        """Make ready for segments that step one by one."""

    def zero_grad(self) -> None:
        """Forget accumulated gradients."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

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
        y = self.check(x, y)
        count = len(x) if count is None else whole(count, "count", 1)
        with isolated(self.generator, self.draws, x.device):
            losses = self.gradients(x, y, count)
        self.check_finite(x, losses)
        return losses

    def update(self) -> None:
        """Let the optimisers use the accumulated gradients."""
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.steps += 1

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
        y = self.check(x, y)
        state = self.generator.get_state()
        try:
            with torch.enable_grad(), kept_modes(self.network, training=False):
                true = true_errors(self, x, y)
                used = self.used(x, y)
        finally:
            self.generator.set_state(state)
        return {name: (used[name], true[name]) for name in self.blocks}

    def check_finite(self, x: Tensor, losses: Mapping[str, Tensor]) -> None:
        """Stop at a loss that is NaN or infinite.

        Parameters
        ----------
        x : Tensor, shape (n, …)
            The inputs, run once more to name the layer where it began.
        losses : mapping of str to Tensor
            Name → 0-d tensor.

        Raises
        ------
        Diverged
            If one is not finite.
        """
        # The sum is looked at first, which is cheaper; it may overflow on its own.
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
        raise Diverged(msg)

    def _first_bad(self, x: Tensor) -> str:
        """Return the first block with weights or outputs that are not finite."""
        with torch.no_grad(), kept_modes(self.network, training=False):
            h = x
            for name, block in self.blocks.items():
                h = block(self.batch_checks.own(name, h))
                if not all(torch.isfinite(t).all() for t in (h, *block.parameters())):
                    return name
        return self.last

    # What comes in.

    def check(self, x: Tensor, y: Tensor) -> Tensor:
        """Refuse what does not fit, and return the labels as the loss takes them.

        Parameters
        ----------
        x, y : Tensor
            As in `step`.

        Returns
        -------
        Tensor
            `y`, integers as int64.

        Raises
        ------
        TypeError
            If either is no tensor.
        ValueError
            If shapes, labels or numbers are wrong.
        """
        if self.batch_checks.is_new(x):
            self.look_at(x)
        return self.batch_checks.labels(x, y)

    def look_at(self, x: Tensor) -> None:
        """Trace the blocks on inputs of a new shape, and build what depends on it.

        Parameters
        ----------
        x : Tensor, shape (n, …)
            Inputs, of which the first two are run.

        Raises
        ------
        ValueError
            If the network does not take them, a rule that has trained meets other
            shapes, or a cut is no hidden block.
        """
        if not self.batch_checks.look_at(x, trained=self.steps > 0):
            return
        self.batch_checks.check_cuts(self.cuts)
        self.build(self.shapes)
        matrices = self.transposes()
        if matrices is not None:
            self.chains = lean_chains(self.blocks, matrices)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Block → shape of its output for one example."""
        return self.batch_checks.shapes

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
            "input_shape": self.batch_checks.input_shape,
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
        TypeError
            If `state` is no mapping.
        ValueError
            If the state is incomplete, or belongs to another rule, network or other
            options; nothing is changed then.
        """
        check_state(state, rule=self.name, options=self.options)
        check_network(self.network, state["network"])
        state = copy.deepcopy(dict(state))
        self.network.load_state_dict(state["network"])
        if state["input_shape"] is not None and not self.shapes:
            parameter = next(self.network.parameters())
            self.look_at(parameter.new_zeros(2, *state["input_shape"]))
        self.load_extra_state(state["extra"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.generator.set_state(state["generator"])
        self.initial, self.steps = state["initial"], state["steps"]
