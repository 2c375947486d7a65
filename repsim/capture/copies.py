"""Copies of outputs that travel while the network computes, waited for once a batch."""

from collections.abc import Callable

import torch
from torch import Tensor

MOST = 2**28
"""Bytes that may travel at once; then they are waited for."""


class Copies:
    """Bring outputs from an accelerator without a wait for each.

    The copies go into pinned memory on the stream that computes, so that what the
    network does to an output afterwards, in place, comes after its copy.
    """

    def __init__(self) -> None:
        self._devices: set[torch.device] = set()
        self._then: list[Callable[[], None]] = []
        self._bytes = 0

    def start(self, rows: Tensor) -> Tensor:
        """Return a copy in this machine's memory, which may still be on its way."""
        if not travels(rows):
            return rows.cpu()
        there = memory_for(rows)
        there.copy_(rows, non_blocking=True)
        self._devices.add(rows.device)
        self._bytes += rows.numel() * rows.element_size()
        return there

    @property
    def under_way(self) -> bool:
        """Whether anything travels."""
        return bool(self._devices)

    def then(self, use: Callable[[], None]) -> None:
        """Use a copy once all that travels is there."""
        self._then.append(use)
        if self._bytes > MOST:
            self.wait()

    def wait(self) -> None:
        """Wait for all that travels, and use it."""
        for device in self._devices:
            wait_for(device)
        self._devices.clear()
        self._bytes = 0
        waiting, self._then = self._then, []
        for use in waiting:
            use()


def travels(rows: Tensor) -> bool:
    """Whether an output lies where a copy can be started and left alone."""
    return rows.device.type == "cuda"


def memory_for(rows: Tensor) -> Tensor:
    """Return pinned memory for an output, which a device writes by itself."""
    return torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    torch.cuda.current_stream(device).synchronize()
