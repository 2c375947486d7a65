"""What a rule lets in: batches that fit its network, and the shapes they lead to."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from repsim.core.messages import require, unknown
from repsim.learning.blocks import check_input, first_weights, trace
from repsim.learning.losses import check_labels


class BatchChecks:
    """The checks of a batch, and what inputs of its shape become on their way."""

    def __init__(
        self, network: nn.Module, blocks: Mapping[str, nn.Module], rule: str
    ) -> None:
        self.network, self.blocks, self.rule = network, blocks, rule
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.in_place: frozenset[str] = frozenset()
        self.input_shape: tuple[int, ...] | None = None
        self._dtype: torch.dtype | None = None

    def example(self) -> Tensor | None:
        """Return inputs that fit, or None where the first weights do not say."""
        name, block = next(iter(self.blocks.items()))
        first = first_weights({name: block})
        if not isinstance(first, nn.Linear):
            return None
        return first.weight.new_zeros(2, first.in_features)

    def check_cuts(self, cuts: Sequence[str]) -> None:
        """Refuse cuts that are no hidden blocks."""
        hidden = list(self.blocks)[:-1]
        for name in cuts:
            if name not in hidden:
                what = f"cuts of rule {self.rule!r}"
                raise ValueError(unknown(what, name, hidden))

    def is_new(self, x: Tensor) -> bool:
        """Return whether inputs of this shape and type have not been seen yet."""
        require(isinstance(x, Tensor), x, "`x` to be a tensor")
        if x.ndim == 0 or len(x) == 0:
            msg = f"Expected `x` to hold examples, but got shape {tuple(x.shape)}."
            raise ValueError(msg)
        return tuple(x.shape[1:]) != self.input_shape or x.dtype != self._dtype

    def look_at(self, x: Tensor, trained: bool) -> bool:
        """Trace the blocks on inputs of a new shape or type."""
        expected = next(self.network.parameters())
        if x.dtype != expected.dtype or x.device != expected.device:
            msg = (
                f"Expected `x` as {expected.dtype} on {expected.device}, like the "
                f"network, but got {x.dtype} on {x.device}; convert it with x.to(…)."
            )
            raise ValueError(msg)
        check_input(self.blocks, x)
        shapes, in_place = trace(self.network, self.blocks, x[:2])
        new = shapes != self.shapes
        if new and trained:
            msg = (
                f"Expected `x` of the shape (n, {self.input_shape}) that rule "
                f"{self.rule!r} has trained on, but got {tuple(x.shape)}."
            )
            raise ValueError(msg)
        self.shapes, self.in_place = shapes, in_place
        self.input_shape, self._dtype = tuple(x.shape[1:]), x.dtype
        return new

    def need_vectors(self, what: str) -> None:
        """Refuse a network whose output for one example is no vector."""
        last, shape = next(reversed(self.shapes.items()))
        if len(shape) != 1:
            sides = ", ".join(["n", *map(str, shape)])
            msg = (
                f"Expected block {last!r} to return (n, classes) for {what}, but its "
                f"outputs have the shape ({sides})."
            )
            raise ValueError(msg)

    def own(self, name: str, h: Tensor) -> Tensor:
        """Return what a block may take: a copy where it would change its input."""
        return h.clone() if name in self.in_place else h

    def labels(self, x: Tensor, y: Tensor) -> Tensor:
        """Refuse what does not fit; return the labels as the loss takes them."""
        require(isinstance(y, Tensor), y, "`y` to be a tensor")
        # The sum is looked at first, which is cheaper; it may overflow on its own.
        if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
            msg = "Expected `x` to be finite, but got NaN or inf."
            raise ValueError(msg)
        if not y.is_floating_point():
            self.need_vectors("integer labels")
        shape = next(reversed(self.shapes.values()))
        return check_labels(y, len(x), shape[-1] if shape else 1)
