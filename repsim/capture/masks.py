"""Which positions of a batch count: said, or the batch's attention mask."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from repsim.capture.batches import Batch, as_array
from repsim.capture.selection import Found
from repsim.datasets.store.attributes import mask_hash

MaskSaid = Any | Callable[[Any], Any] | None


def check_mask(mask: MaskSaid) -> MaskSaid:
    """Return `mask`, an array as booleans (example, token)."""
    if mask is None or callable(mask):
        return mask
    array = as_array(mask)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        msg = (
            "Expected `mask` to be None, an array (example, token) of truth values or "
            f"a callable of the batch, but got {array.dtype} of shape {array.shape}."
        )
        raise ValueError(msg)
    return array != 0


class Masks:
    """The mask of the batch that is being recorded, and those before it."""

    def __init__(self, mask: MaskSaid, network: nn.Module) -> None:
        self._said = check_mask(mask)
        config = getattr(network, "config", None)
        self._two = bool(getattr(config, "is_encoder_decoder", False))
        self._now: Tensor | None = None
        self._decoder: Tensor | None = None
        self.other: dict[str, int] = {}  # layer -> positions that no mask fits

    def hash_of(self, batches: Sequence[Batch]) -> str | None:
        """Return what tells the mask of these batches from another, if all have one."""
        masks, start = [], 0
        for batch in batches:
            self.begin(batch, start, batch.size)
            start += batch.size or 0
            masks += [] if self._now is None else [self._now.numpy()]
        if len(masks) < len(batches) or len({m.shape[1] for m in masks}) != 1:
            return None
        return mask_hash(np.concatenate(masks))

    def cut(self, rows: slice) -> None:
        """Keep the rows of some of the examples, where the mask is an array."""
        if self._said is not None and not callable(self._said):
            self._said = self._said[rows]

    def begin(self, batch: Batch, start: int, size: int | None) -> None:
        """Take up the mask of a batch whose first example has this number."""
        self._now = self._decoder = None
        if callable(self._said):
            given = self._said(batch.whole)
            self._now = None if given is None else torch.from_numpy(check_mask(given))
        elif self._said is not None:
            stop = None if size is None else start + size
            self._now = torch.from_numpy(self._said[start:stop])
        else:
            inputs = batch.mapping()
            self._now = _boolean(inputs.get("attention_mask"))
            if self._two:
                self._decoder = _boolean(inputs.get("decoder_attention_mask"))
        if self._now is not None and size is not None and len(self._now) != size:
            msg = (
                f"Expected `mask` to have one row for each of {size} examples, but got "
                f"shape {tuple(self._now.shape)}."
            )
            raise ValueError(msg)

    @property
    def now(self) -> Tensor | None:
        """The batch's mask (example, token), True where a token counts."""
        return self._now

    def of(self, name: str, positions: int, *, tokens: bool) -> Tensor | None:
        """Return the mask of a layer with so many positions, or None for all."""
        parts = name.partition("@")[0].split(".")
        automatic = self._said is None
        mask = self._now
        if automatic and self._two and "decoder" in parts:
            mask = self._decoder
        elif automatic and any(p.startswith(("vision", "visual")) for p in parts):
            mask = None  # of two towers, the words' mask is not the pictures'
        if mask is None or not tokens:
            return None
        if mask.shape[1] != positions:
            self.other[name.partition("@")[0]] = positions
            return None
        return mask


def _boolean(given: Any) -> Tensor | None:
    if given is None:
        return None
    array = as_array(given)
    return torch.from_numpy(array != 0) if array.ndim == 2 else None


def is_ragged(tensor: Found) -> bool:
    """Whether an output has sequences of their own lengths."""
    return isinstance(tensor, PackedSequence) or tensor.is_nested


def padded(tensor: Found) -> tuple[Tensor, Tensor]:
    """Return ragged sequences as (example, token, …), and a mask of what is there."""
    if isinstance(tensor, PackedSequence):
        values, lengths = pad_packed_sequence(tensor, batch_first=True)
    else:
        parts = tensor.unbind()
        lengths = torch.tensor([len(part) for part in parts])
        values = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    return values, torch.arange(values.shape[1]) < lengths[:, None]


def matched(rows: Tensor, among: Tensor) -> Tensor | None:
    """Return where each row stands among others, bit for bit; None if one does not.

    Equal rows are taken in their order: a router sends them the same way.
    """
    places: dict[bytes, list[int]] = {}
    wanted, offered = _bytes(rows), _bytes(among)
    needed = set(wanted)
    for place, row in enumerate(offered):
        if row in needed:
            places.setdefault(row, []).append(place)
    taken: dict[bytes, int] = {}
    positions = []
    for row in wanted:
        number = taken.get(row, 0)
        held = places.get(row, [])
        if number >= len(held):
            return None
        taken[row] = number + 1
        positions.append(held[number])
    return torch.tensor(positions, dtype=torch.long)


def _bytes(rows: Tensor) -> list[bytes]:
    plain = rows.detach().cpu().contiguous()
    if not plain.numel():
        return []
    flat = plain.view(torch.uint8).numpy().reshape(len(plain), -1)
    return [row.tobytes() for row in flat]
