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
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from repsim.core.messages import whole
from repsim.core.modes import kept_modes
from repsim.learning.closed_form import lean_chains
from repsim.learning.definition import Definition
from repsim.learning.passes import parts
from repsim.learning.randomness import isolated
from repsim.learning.rule_info import Diverged
from repsim.learning.rule_state import check_network, check_state
from repsim.learning.schedules import Schedule
from repsim.learning.segments import Segment
from repsim.learning.whole_step import gradients, true_errors, used_errors


class Rule(Definition):
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

    Examples
    --------
    >>> import repsim
    >>> rule = Rule(repsim.networks.mlp(4, hidden=[3], classes=2, seed=0), lr=1e-3)
    >>> losses = rule.step(torch.rand(8, 4), torch.arange(8) % 2)
    >>> rule.steps, sorted(losses)
    (1, ['loss'])
    """

    schedule: Schedule | None = None
    _segments: list[Segment] | None = None

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
        if self._segments is None:
            self.stand_alone()
            self._segments = [Segment(self, names) for names in parts(self)]
            pairs = zip(self._segments[:-1], self._segments[1:], strict=True)
            for lower, upper in pairs:
                lower.above = upper
        return self._segments

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

    def prepare(self) -> None:
        """Build at once where the first weights say what an input looks like."""
        example = self.batch_checks.example()
        if example is not None:
            self.look_at(example)

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
