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

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from repsim.learning.batch_checks import Entrance
from repsim.learning.blocks import Blocks, named_blocks, weights
from repsim.learning.checks import whole
from repsim.learning.closed_form import Chains, lean_chains
from repsim.learning.divergence import check_finite
from repsim.learning.info import Info
from repsim.learning.inspection import used_and_true
from repsim.learning.losses import LossFunction, resolve
from repsim.learning.optimisers import Factory, make_optimizer, name_of, rate
from repsim.learning.passes import gradients
from repsim.learning.randomness import is_random, isolated
from repsim.learning.segments import Cut
from repsim.learning.state import put_back, taken


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
        self.entrance = Entrance(network, self.blocks, self.name)
        self.chains: Chains | None = None
        self.modules = [m for b in self.blocks.values() for m in b.modules()]
        self._random = is_random(network)

    # What a rule says about itself.

    @property
    def hidden(self) -> list[str]:
        """Names of the hidden blocks, which `at` counts from 1."""
        return list(self.blocks)[:-1]

    def prepare(self) -> None:
        """Build at once where the first weights say what an input looks like."""
        example = self.entrance.example()
        if example is not None:
            self.look_at(example)

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

    def learn(self, cut: Cut, count: int) -> dict[str, Tensor]:
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
        with isolated(self.generator, self._random, x.device):
            losses = gradients(self, x, y, count)
        check_finite(self, x, losses)
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
        return used_and_true(self, x, self.check(x, y))

    # What comes in.

    def check(self, x: Tensor, y: Tensor) -> Tensor:
        """Refuse what does not fit, and return the labels as the loss takes them."""
        if self.entrance.is_new(x):
            self.look_at(x)
        return self.entrance.labels(x, y)

    def look_at(self, x: Tensor) -> None:
        """Trace the blocks on inputs of a new shape, and build what depends on it."""
        if not self.entrance.look_at(x, trained=self.steps > 0):
            return
        self.entrance.check_cuts(self.cuts)
        self.build(self.shapes)
        matrices = self.transposes()
        if matrices is not None:
            self.chains = lean_chains(self.blocks, matrices)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Block → shape of its output for one example."""
        return self.entrance.shapes

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
        return taken(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Parameters
        ----------
        state : mapping
            From a rule of the same name and options on the same kind of network.

        Raises
        ------
        ValueError
            If the state is incomplete, or belongs to another rule, network or other
            options.
        """
        put_back(self, state)
