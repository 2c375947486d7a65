"""The paper's networks, as sequences of named blocks."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from repsim.core.messages import unknown

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "identity": nn.Identity,
}
"""Names that `activation` takes."""

BatchNorm = bool | Literal["before", "after"]
"""Whether, and on which side of the activation, units are normalised over a batch."""


def mlp(
    features: int,
    hidden: Sequence[int],
    classes: int = 10,
    activation: str = "relu",
    batch_norm: BatchNorm = True,
    *,
    seed: int | None = None,
) -> nn.Sequential:
    """Return a multilayer perceptron with the children `hidden_1` … and `output`.

    Each hidden block is Linear → batch normalisation → activation, so that what a
    tap or a learning rule sees at `hidden_i` is the block's activation. The error
    of a rule sits at a block's output: with ``batch_norm="after"`` (Linear →
    activation → normalisation) it sits after the normalisation.

    Parameters
    ----------
    features : int
        Number of input features.
    hidden : sequence of int
        Width of each hidden block; empty for a linear network.
    classes : int
        Number of outputs.
    activation : str
        One of relu, sigmoid, tanh, gelu, identity.
    batch_norm : bool, "before" or "after"
        True or "before" normalises before the activation, "after" behind it.
    seed : int or None
        Seed of the initial weights, drawn without touching PyTorch's global
        generator; None draws from that one, as every module of PyTorch does.

    Returns
    -------
    Sequential
        The network, with PyTorch's default initialisation; in: (n, features),
        out: (n, classes).

    Raises
    ------
    ValueError
        If a width is not positive, or a name is unknown.

    Examples
    --------
    >>> net = mlp(64, hidden=[32] * 2, classes=10, seed=0)
    >>> [name for name, _ in net.named_children()]
    ['hidden_1', 'hidden_2', 'output']
    """
    widths = [
        _positive("features", features),
        *(_positive("hidden", width) for width in hidden),
        _positive("classes", classes),
    ]
    order = _order(batch_norm)
    activation_named(activation)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    with drawn_from(seed):
        for i, (a, b) in enumerate(zip(widths[:-2], widths[1:-1], strict=True), 1):
            linear = nn.Linear(a, b)
            norm = nn.BatchNorm1d(b) if order else None
            blocks[f"hidden_{i}"] = _block("linear", linear, norm, activation, order)
        blocks["output"] = nn.Linear(widths[-2], widths[-1])
    return nn.Sequential(blocks)


def cnn(
    shape: tuple[int, int, int],
    channels: Sequence[int],
    classes: int = 10,
    activation: str = "relu",
    batch_norm: BatchNorm = True,
    *,
    kernel_size: int = 3,
    pool: int = 2,
    seed: int | None = None,
) -> nn.Sequential:
    """Return a convolutional network with the children `hidden_1` … and `output`.

    Each hidden block is Conv → batch normalisation → activation → max pooling;
    pooling stops where a side would fall below one. `output` flattens the last
    maps and is linear.

    Parameters
    ----------
    shape : tuple of int
        Shape of one input: channels, height, width.
    channels : sequence of int
        Number of channels of each hidden block.
    classes : int
        Number of outputs.
    activation : str
        One of relu, sigmoid, tanh, gelu, identity.
    batch_norm : bool, "before" or "after"
        True or "before" normalises before the activation, "after" behind it.
    kernel_size : int
        Side of the kernels, odd; the padding keeps the resolution.
    pool : int
        Factor of the pooling after each block; 1 for none.
    seed : int or None
        Seed of the initial weights, as in `mlp`.

    Returns
    -------
    Sequential
        The network; in: (n, channels, height, width), out: (n, classes).

    Raises
    ------
    ValueError
        If a size is not positive, the kernel is even, or a name is unknown.

    Examples
    --------
    >>> net = cnn((1, 8, 8), channels=[8, 16], seed=0)
    >>> net(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    depth, *sides = (_positive("shape", size) for size in shape)
    _positive("pool", pool)
    if _positive("kernel_size", kernel_size) % 2 == 0:
        msg = f"Expected `kernel_size` to be odd, but got {kernel_size}."
        raise ValueError(msg)
    order = _order(batch_norm)
    activation_named(activation)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    with drawn_from(seed):
        for i, wide in enumerate(channels, 1):
            _positive("channels", wide)
            conv = nn.Conv2d(depth, wide, kernel_size, padding=kernel_size // 2)
            norm = nn.BatchNorm2d(wide) if order else None
            block = _block("conv", conv, norm, activation, order)
            if pool > 1 and min(sides) >= pool:
                block.add_module("pool", nn.MaxPool2d(pool))
                sides = [side // pool for side in sides]
            blocks[f"hidden_{i}"] = block
            depth = wide
        linear = nn.Linear(depth * sides[0] * sides[1], _positive("classes", classes))
        head = OrderedDict[str, nn.Module](flatten=nn.Flatten(), linear=linear)
        blocks["output"] = nn.Sequential(head)
    return nn.Sequential(blocks)


def _block(
    name: str,
    weights: nn.Module,
    norm: nn.Module | None,
    activation: str,
    order: str,
) -> nn.Sequential:
    """Return one hidden block in the asked-for order."""
    block = nn.Sequential(OrderedDict({name: weights}))
    nonlinear = activation_named(activation)
    if norm is not None and order == "before":
        block.add_module("norm", norm)
    block.add_module("activation", nonlinear)
    if norm is not None and order == "after":
        block.add_module("norm", norm)
    return block


def _order(batch_norm: BatchNorm) -> str:
    """Return "before", "after" or "" for the argument `batch_norm`."""
    if isinstance(batch_norm, bool):
        return "before" if batch_norm else ""
    if batch_norm not in ("before", "after"):
        raise ValueError(
            unknown("batch_norm", batch_norm, ["True", "False", "before", "after"])
        )
    return batch_norm


def activation_named(name: str) -> nn.Module:
    """Return an activation by its name."""
    if name not in ACTIVATIONS:
        raise ValueError(unknown("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]()


def _positive(what: str, size: int) -> int:
    if size < 1:
        msg = f"Expected `{what}` to be positive, but got {size}."
        raise ValueError(msg)
    return int(size)


@contextmanager
def drawn_from(seed: int | None) -> Iterator[None]:
    """Draw initial weights from `seed` and leave the global generator as it was."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
