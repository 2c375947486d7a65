"""PEPITA: a second forward pass, on inputs that the output's error has moved.

From the paper: the error is projected onto the input; a hidden layer learns from the
difference between its activities in the two passes, times its input in the second; no
derivative of an activation comes in. Ours: normalisation keeps its first scale and
shift, since the paper has none, and counts the first pass alone in its statistics.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from repsim.core.modes import kept_buffers, kept_modes
from repsim.learning.optimisers import rate
from repsim.learning.rule import Rule
from repsim.learning.rule_info import Common, Info
from repsim.learning.rules.feedback import KNOWN
from repsim.learning.whole_step import loss_and_error


class Pepita(Rule):
    r"""Learn from what the error changes on the way up (`pepita`).

    .. math::
        \tilde x = x + e F, \qquad
        \Delta W_i \propto (h_i - \tilde h_i)^T \tilde h_{i-1}, \qquad
        \Delta W_L \propto e^T \tilde h_{L-1}

    with :math:`F_{cj} \sim \mathcal{N}(0, 2 s^2 / d)` for d inputs. The difference
    stands for the error at a block's output; it is put at the block's weights as it is.

    Parameters
    ----------
    network, **options
        As in `Rule`.
    scale : float
        s, positive.

    Attributes
    ----------
    projection : Tensor, shape (outputs, inputs)
        F.

    Raises
    ------
    TypeError
        If `scale` is no number.
    ValueError
        If `scale` is not positive, a block has several layers with weights, or one
        that does not give an output of the block's shape, as before pooling.

    References
    ----------
    Dellaferrera and Kreiman 2022, arXiv:2201.11665.

    Examples
    --------
    >>> import repsim
    >>> net = repsim.networks.mlp(4, hidden=[3, 3], classes=2, seed=0)
    >>> repsim.learning.make("pepita", net).projection.shape
    torch.Size([2, 4])
    """

    name: ClassVar[str] = "pepita"
    in_parts: ClassVar[bool] = False
    info: ClassVar[Info] = Info(
        method="PEPITA",
        error="h_i - h_i(x + e F)",
        learned="nothing; F fixed and random",
        update_locked=True,
        backward_locked=False,
        sees_error=True,
        source="Dellaferrera and Kreiman 2022",
    )

    def __init__(
        self, network: nn.Module, *, scale: float = 0.05, **options: Unpack[Common]
    ) -> None:
        super().__init__(network, **options)
        self.scale = self.options["scale"] = rate(scale, "scale")

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Draw F, and find the one layer of each block that learns."""
        self.layers: dict[str, nn.Module] = {}
        for name, block in self.blocks.items():
            own = [m for m in block.modules() if _has_weights(m)]
            if len(own) > 1 or not all(isinstance(m, KNOWN) for m in own):
                msg = (
                    "Expected blocks with one linear layer or convolution each for "
                    f"rule 'pepita', but block {name!r} holds {own}."
                )
                raise ValueError(msg)
            if own:
                self.layers[name] = own[0]
        generator = torch.Generator().manual_seed(self.seed)
        like = next(self.network.parameters())
        shape = torch.Size(self.batch_checks.input_shape or ())
        sizes = torch.Size(shapes[self.last]).numel(), shape.numel()
        drawn = torch.randn(sizes, generator=generator).to(like)
        self.projection = drawn * self.scale * (2 / shape.numel()) ** 0.5
        with torch.no_grad(), kept_modes(self.network, training=False):
            outputs = self._run(like.new_zeros(2, *shape))[1]
        for name, layer in self.layers.items():
            got = tuple(layer(outputs[name]).shape[1:])
            if got != shapes[name]:
                msg = (
                    f"Expected block {name!r} to end with the shape {got} of its "
                    f"layer, where rule 'pepita' puts the error, but it has "
                    f"{shapes[name]}; leave pooling out."
                )
                raise ValueError(msg)

    def _run(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return every block's output, and what its layer with weights was given."""
        given: dict[str, Tensor] = {}

        def see(name: str) -> torch.utils.hooks.RemovableHandle:
            def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                given[name] = args[0].detach().clone()

            return self.layers[name].register_forward_pre_hook(hook)

        handles = [see(name) for name in self.layers]
        outputs, h = {}, x
        try:
            for name in self.blocks:
                h = outputs[name] = self.run(name, self.batch_checks.own(name, h))
        finally:
            for handle in handles:
                handle.remove()
        return outputs, given

    def _differences(
        self, x: Tensor, y: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Return the loss, the differences, and each layer's second input."""
        with torch.no_grad():
            first, _ = self._run(x)
            loss, error = loss_and_error(self, first[self.last], y)
            moved = error.reshape(len(x), -1) @ self.projection
            with kept_buffers(self.network):
                second, given = self._run(x + moved.reshape(x.shape))
        differences = {name: h - second[name] for name, h in first.items()}
        return loss, {**differences, self.last: error}, given

    def gradients(self, x: Tensor, y: Tensor, count: int) -> dict[str, Tensor]:
        """Add the products of differences and inputs of the second pass."""
        loss, differences, given = self._differences(x, y)
        for name, layer in self.layers.items():
            parameters = [p for p in layer.parameters() if p.requires_grad]
            if parameters:
                with torch.enable_grad():
                    output = layer(given[name])
                error = differences[name] / count
                torch.autograd.backward(output, error, inputs=parameters)
        return {"loss": loss}

    def used(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the differences, and at the output the error."""
        return self._differences(x, y)[1]

    def extra_state(self) -> dict[str, Any]:
        """Return F."""
        return {"projection": self.projection}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take F back."""
        self.projection.copy_(state["projection"])


def _has_weights(module: nn.Module) -> bool:
    return any(p.ndim > 1 for p in module.parameters(recurse=False))
