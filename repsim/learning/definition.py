"""What a rule says about itself: where it cuts, what it makes, the error it puts.

All that a rule's author may override stands here with what it may look at, but for
`gradients` and `used` of a rule that is no error at a cut; how a rule is run, by a
training loop or by hand, stands in `rule`.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from repsim.core.messages import whole
from repsim.learning.batch_checks import BatchChecks
from repsim.learning.blocks import Blocks, named_blocks, weights
from repsim.learning.closed_form import Chains
from repsim.learning.losses import LossFunction, resolve
from repsim.learning.optimisers import Factory, make_optimizer, name_of, rate
from repsim.learning.passes import Cut
from repsim.learning.randomness import is_random
from repsim.learning.rule_info import Common, Info


class Definition:
    """The half of `Rule` that an author of rules writes."""

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
        self.modules = [m for b in self.blocks.values() for m in b.modules()]
        self.draws = is_random(network)

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

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Block → shape of its output for one example."""
        return self.batch_checks.shapes

    @property
    def last(self) -> str:
        """The output block's name."""
        return next(reversed(self.blocks))

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
        return {} if type(self).run is Definition.run else None

    def stand_alone(self) -> None:
        """Make ready for segments that step one by one."""

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
