"""Which axis follows the examples, found out by passes over a few of them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from repsim.capture.axes import SHARED
from repsim.capture.batches import Batch, Forward
from repsim.capture.hooks import Hooks
from repsim.capture.selection import Choice, Found

_OF_TWO = (slice(1, 2), slice(0, 2))


def followed(
    network: nn.Module,
    choices: Mapping[str, Choice],
    batch: Batch,
    axis: int,
    forward: Forward | None,
) -> dict[str, int | None]:
    """Return for each output the axis that grows with the examples.

    Two of the examples pass, then three others: that axis goes from 2 to 3. SHARED is
    where the values are the same both times, None where something else happens; empty
    where this batch cannot be cut, or the network takes no such part of it.
    """
    count = batch.along(axis)
    if count is None or count < 2:
        return {}
    few_rows = 2 if count > 2 else 1
    parts = [slice(0, 2), slice(count - 3, count)] if count > 2 else [*_OF_TWO]
    # Of four examples or fewer the parts have some in common: others pass, too, lest
    # rows that a network chose of those alone be taken for what all examples share.
    if count < 5:
        parts.append(slice(0, 1) if count == 2 else slice(2, count))
    outputs: list[dict[str, Found]] = []
    for part in parts:
        seen: dict[str, Found] = {}
        hooks = Hooks(choices, _keeping(seen))
        hooks.private = True
        try:
            with hooks:
                batch.part(part, axis).run(network, forward)
        except Exception:  # whatever a network says to a part of its inputs
            return {}
        outputs.append(seen)
    few, more, *others = outputs
    axes = {
        name: _axis(few[name], more[name], few_rows) for name in few if name in more
    }
    for name in [n for n, axis in axes.items() if axis == SHARED]:
        if not all(name in o and _same(few[name], o[name]) for o in others):
            axes[name] = None
    return axes


def _keeping(seen: dict[str, Found]) -> Callable[[str, Found], None]:
    def keep(name: str, tensor: Found) -> None:
        seen[name] = tensor.detach().clone() if isinstance(tensor, Tensor) else tensor

    return keep


def _axis(few: Found, more: Found, rows: int) -> int | None:
    if not isinstance(few, Tensor) or not isinstance(more, Tensor):
        return None
    if few.ndim != more.ndim:
        return None
    pairs = zip(few.shape, more.shape, strict=True)
    grown = [(i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]]
    if not grown:
        return SHARED if _same(few, more) else None
    if len(grown) == 1 and grown[0][1] == (rows, rows + 1):
        return grown[0][0]
    return None


def _same(a: Found, b: Found) -> bool:
    """Whether two outputs are equal, and not only by having no rows."""
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and torch.equal(a, b)
        and (a.numel() > 0)
    )
