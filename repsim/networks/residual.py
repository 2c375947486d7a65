"""Residual networks as sequences of named blocks."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from repsim.core.messages import whole
from repsim.networks.feedforward import activation_named, drawn_from


class Residual(nn.Module):
    """Two convolutions beside a way around them, and the activation of their sum."""

    def __init__(self, a: int, b: int, stride: int, activation: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(a, b, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(b)
        self.inner = activation_named(activation)
        self.second = nn.Conv2d(b, b, 3, padding=1, bias=False)
        self.last_norm = nn.BatchNorm2d(b)
        same = a == b and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(a, b, 1, stride, bias=False)
        self.activation = activation_named(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        h = self.inner(self.norm(self.first(x)))
        h = self.last_norm(self.second(h)) + self.around(x)
        output: Tensor = self.activation(h)
        return output


def resnet(
    shape: Sequence[int],
    classes: int = 10,
    *,
    depth: int = 6,
    width: int = 16,
    activation: str = "relu",
    seed: int | None = None,
) -> nn.Sequential:
    """Return a residual network with the children `hidden_1` … and `output`.

    Blocks fall into three stages of equal length; from one to the next the side is
    halved and the channels doubled. `hidden_1` begins with a convolution of its own,
    `output` averages over space.

    Parameters
    ----------
    shape : sequence of int
        Shape of one input: channels, height, width.
    classes : int
        Number of outputs.
    depth : int
        Number of residual blocks.
    width : int
        Channels of the first stage.
    activation : str
        As in `mlp`.
    seed : int or None
        Seed of the initial weights, as in `mlp`.

    Returns
    -------
    Sequential
        The network; in: (n, channels, height, width), out: (n, classes).

    Raises
    ------
    TypeError
        If a size is no whole number.
    ValueError
        If a size is not positive, or a name is unknown.

    References
    ----------
    He et al. 2016, doi:10.1109/CVPR.2016.90.

    Examples
    --------
    >>> import torch
    >>> net = resnet((1, 8, 8), depth=3, width=4, seed=0)
    >>> net(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    channels, *_ = (whole(size, "shape", 1) for size in shape)
    whole(depth, "depth", 1)
    wide = whole(width, "width", 1)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    with drawn_from(seed):
        stem = nn.Sequential(
            nn.Conv2d(channels, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            activation_named(activation),
        )
        for i in range(depth):
            before, stage = (3 * max(i - 1, 0) // depth, 3 * i // depth)
            a, b = wide * 2**before, wide * 2**stage
            block = Residual(a, b, 1 + (stage > before), activation)
            name = f"hidden_{i + 1}"
            parts = OrderedDict[str, nn.Module](stem=stem, residual=block)
            blocks[name] = nn.Sequential(parts) if i == 0 else block
        head = nn.Linear(b, whole(classes, "classes", 1))
        blocks["output"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return nn.Sequential(blocks)
