"""Random numbers that belong to a rule and to nobody else."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def is_random(network: nn.Module) -> bool:
    """Return whether a network draws random numbers in its forward pass."""
    random = (_DropoutNd, nn.RReLU, nn.MultiheadAttention, nn.Transformer)
    return any(
        isinstance(module, random) or not type(module).__module__.startswith("torch.nn")
        for module in network.modules()
    )


@contextmanager
def isolated(
    generator: torch.Generator, random: bool, device: torch.device
) -> Iterator[None]:
    """Seed PyTorch's global generators from the rule's, and put them back."""
    if not random:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` on the CPU and leave PyTorch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
