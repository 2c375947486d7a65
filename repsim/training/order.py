"""Training data as tensors, in an order that the seed and the step determine."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from repsim import datasets
from repsim.learning.blocks import first_weights

Data = xr.Dataset | tuple[Tensor, Tensor]


class Order:
    """An endless stream of shuffled examples, cut into batches of one size.

    The stream is one random order of all examples after another, each drawn from
    (seed, number of the order); batch k holds the stream's examples k·size to
    (k + 1)·size. So every batch is full, every example comes once an epoch, and
    batch k needs nothing but the seed and k.
    """

    def __init__(self, examples: int, size: int, seed: int) -> None:
        if size < 1:
            msg = f"Expected `batch_size` to be at least 1, but got {size}."
            raise ValueError(msg)
        self.examples, self.size, self.seed = examples, min(size, examples), seed
        self._orders: dict[int, Tensor] = {}

    def __getitem__(self, k: int) -> Tensor:
        """Return the positions of batch k, counted from 0."""
        epoch, offset = divmod(k * self.size, self.examples)
        part = self._order(epoch)[offset : offset + self.size]
        missing = self.size - len(part)
        return torch.cat([part, self._order(epoch + 1)[:missing]]) if missing else part

    def _order(self, epoch: int) -> Tensor:
        """Return one random order of all examples; the two latest are kept."""
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            drawn = np.random.default_rng([self.seed, epoch]).permutation(self.examples)
            self._orders[epoch] = torch.from_numpy(drawn)
        return self._orders[epoch]


def as_tensors(
    data: Data, network: nn.Module, what: str = "data"
) -> tuple[Tensor, Tensor]:
    """Return inputs and labels as a network wants them, on its device."""
    if isinstance(data, xr.Dataset):
        first = first_weights({"network": network})
        convolves = first is not None and not isinstance(first, nn.Linear)
        x, y = datasets.to_tensors(data, "image" if convolves else "flat")
    else:
        x, y = _pair(data, what)
    if len(x) != len(y) or not len(x):
        msg = (
            f"Expected `{what}` to hold as many labels as inputs, and some, but got "
            f"{len(y)} and {len(x)}."
        )
        raise ValueError(msg)
    like = next(network.parameters())
    y = y.to(like) if y.is_floating_point() else y.to(like.device)
    return x.to(like), y


def _pair(data: object, what: str) -> tuple[Tensor, Tensor]:
    """Return a pair of tensors, or refuse."""
    if isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return x, y
    msg = (
        f"Expected `{what}` to be a Dataset of repsim.datasets.load, or a pair of "
        f"tensors (x, y), but got {type(data).__name__}."
    )
    raise TypeError(msg)
