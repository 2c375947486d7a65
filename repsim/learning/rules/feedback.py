"""Feedback alignment: fixed random weights carry the error down in place of Wᵀ.

From the paper: every layer's transposed weight is replaced by a fixed random matrix;
the derivatives of activation and normalisation stay exact. Ours: the matrix is normal
with the standard deviation of the layer's initial weights, so that the error that
arrives has about the size that backpropagation's has at the start.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from repsim.learning.rule import Rule
from repsim.learning.rule_info import Info

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Weighted = nn.Linear | Convolution
KNOWN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class FeedbackAlignment(Rule):
    r"""Replace the transposed weights by fixed random ones (`fa`).

    .. math::
        \epsilon_i = (\epsilon_{i+1} \odot \phi'(a_{i+1})) B_{i+1}

    with B of the shape of the layer's weight (outputs, inputs). Linear layers and
    convolutions have one each, also several in a block.

    Parameters
    ----------
    network, **options
        As in `Rule`.

    Attributes
    ----------
    feedback : dict
        Module path → B.

    Raises
    ------
    ValueError
        If a block holds weights other than those of linear layers and convolutions.

    References
    ----------
    Lillicrap et al. 2016, doi:10.1038/ncomms13276.
    """

    name: ClassVar[str] = "fa"
    info: ClassVar[Info] = Info(
        method="FA",
        error="(e_{i+1} * f'(a_{i+1})) B_{i+1}",
        learned="nothing; B fixed and random",
        update_locked=True,
        backward_locked=True,
        sees_error=False,
        source="Lillicrap et al. 2016; scale of B ours",
    )

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Draw a matrix for every weight but the first, which sends nothing down."""
        self.feedback: dict[str, Tensor] = {}
        self.weighted: dict[str, dict[str, Weighted]] = {}
        generator = torch.Generator().manual_seed(self.seed)
        for block, root in self.blocks.items():
            self.weighted[block] = dict(_weighted(block, root))
            for path, module in self.weighted[block].items():
                weight = module.weight.detach()
                drawn = torch.randn(weight.shape, generator=generator)
                self.feedback[path] = drawn.to(weight) * weight.std()

    def run(self, name: str, h: Tensor) -> Tensor:
        """Run one block with its weights' derivatives replaced."""
        swaps = [
            (module, self._forward_with(module, self.feedback[path]))
            for path, module in self.weighted[name].items()
        ]
        with _swapped(swaps):
            output: Tensor = self.blocks[name](h)
        return output

    def _forward_with(
        self, module: Weighted, feedback: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """Return a module's forward whose derivative by its input uses `feedback`."""

        def forward(x: Tensor) -> Tensor:
            apply: Callable[..., Tensor] = (
                _Linear.apply if isinstance(module, nn.Linear) else _Convolved.apply
            )
            return apply(x, module.weight, module.bias, feedback, module)

        return forward

    def pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield path, weight and its B, of all weights."""
        for modules in self.weighted.values():
            for path, module in modules.items():
                yield path, module.weight, self.feedback[path]

    def transposes(self) -> Mapping[str, Tensor]:
        """Return the matrices: `run` does nothing else."""
        return self.feedback

    def extra_state(self) -> dict[str, Any]:
        """Return the matrices."""
        return dict(self.feedback)

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take the matrices back."""
        for path, matrix in self.feedback.items():
            matrix.copy_(state[path])


def _weighted(block: str, root: nn.Module) -> Iterator[tuple[str, Weighted]]:
    """Yield the weighted modules of a block, or refuse what has no plain transpose."""
    for path, module in root.named_modules(prefix=block):
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, KNOWN):
            padded = not isinstance(module, nn.Linear) and (
                module.padding_mode != "zeros" or isinstance(module.padding, str)
            )
            if not padded:
                yield path, module
                continue
        elif not any(parameter.ndim > 1 for parameter in own.values()):
            continue
        msg = (
            "Expected blocks of linear layers and zero-padded convolutions, whose "
            f"transposed weights feedback can replace, but block {block!r} holds "
            f"{module} at {path!r}."
        )
        raise ValueError(msg)


@contextmanager
def _swapped(
    swaps: Sequence[tuple[nn.Module, Callable[[Tensor], Tensor]]],
) -> Iterator[None]:
    """Replace modules' forward for one call; hooks keep working."""
    before = [module.__dict__.get("forward") for module, _ in swaps]
    for module, forward in swaps:
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for (module, _), old in zip(swaps, before, strict=True):
            if old is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = old


class _Linear(torch.autograd.Function):
    """A linear map whose derivative by its input uses another matrix."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: Tensor,
        module: nn.Linear,
    ) -> Tensor:
        """Return xWᵀ + b."""
        ctx.save_for_backward(x, feedback)
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return gB in place of gW, and the exact derivatives of weight and bias."""
        (grad,) = grads
        x, feedback = ctx.saved_tensors
        to_x, to_weight, to_bias, *_ = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            grad @ feedback if to_x else None,
            rows.T @ x.reshape(-1, x.shape[-1]) if to_weight else None,
            rows.sum(0) if to_bias else None,
            None,
            None,
        )


class _Convolved(torch.autograd.Function):
    """A convolution whose derivative by its input uses another kernel."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: Tensor,
        module: Convolution,
    ) -> Tensor:
        """Return the convolution as the module computes it."""
        ctx.save_for_backward(x, feedback)
        ctx.module, ctx.bias = module, None if bias is None else list(bias.shape)
        made: Tensor = module._conv_forward(x, weight, bias)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the three derivatives in one call, by x through `feedback`."""
        x, feedback = ctx.saved_tensors
        module = ctx.module
        derivatives = torch.ops.aten.convolution_backward(
            grads[0],
            x,
            feedback,
            ctx.bias,
            module.stride,
            module.padding,
            module.dilation,
            False,
            [0] * len(module.kernel_size),
            module.groups,
            list(ctx.needs_input_grad[:3]),
        )
        return (*derivatives, None, None)
