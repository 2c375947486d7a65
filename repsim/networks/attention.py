"""Vision transformers as sequences of named blocks."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from repsim.core.messages import whole
from repsim.networks.feedforward import activation_named, drawn_from


class Patches(nn.Module):
    """Cut maps into patches and make a token of each, its place added."""

    output_axes = "example token unit"

    def __init__(self, shape: Sequence[int], width: int, patch: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(shape[0], width, patch, patch)
        tokens = (shape[1] // patch) * (shape[2] // patch)
        # Fixed waves (Vaswani et al. 2017): nothing that an error would have to reach.
        place = torch.arange(tokens)[:, None] / 10_000 ** (torch.arange(width) / width)
        waves = torch.where(torch.arange(width) % 2 == 0, place.sin(), place.cos())
        self.register_buffer("place", waves)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens, (n, tokens, units)."""
        output: Tensor = self.project(x).flatten(2).transpose(1, 2) + self.place
        return output


class TransformerBlock(nn.Module):
    """Attention among tokens and two layers on each, both beside a way around."""

    output_axes = "example token unit"

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.gather = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.activation = activation_named(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens, (n, tokens, units)."""
        n, tokens, width = x.shape
        mixed = self.mix(self.attention_norm(x)).reshape(n, tokens, 3, self.heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value)
        x = x + self.gather(seen.transpose(1, 2).reshape(n, tokens, width))
        output: Tensor = x + self.down(self.activation(self.up(self.norm(x))))
        return output


class MeanOverTokens(nn.Module):
    """Average a sequence."""

    output_axes = "example unit"

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of the tokens, (n, units)."""
        return x.mean(1)


def vit(
    shape: Sequence[int],
    classes: int = 10,
    *,
    depth: int = 4,
    width: int = 32,
    activation: str = "gelu",
    patch: int | None = None,
    seed: int | None = None,
) -> nn.Sequential:
    """Return a vision transformer with the children `hidden_1` … and `output`.

    `hidden_1` begins with the patches, every hidden block is a transformer block with
    normalisation in front, and `output` reads the mean over the tokens. Places are
    fixed waves.

    Parameters
    ----------
    shape : sequence of int
        Shape of one input: channels, height, width.
    classes : int
        Number of outputs.
    depth : int
        Number of transformer blocks.
    width : int
        Units of a token; four heads where it divides by four, else one.
    activation : str
        As in `mlp`.
    patch : int or None
        Side of a patch, which divides height and width; None is the largest that gives
        at least seven patches a side, or two pixels.
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
        If a size is not positive, the patch does not divide the sides, or a name is
        unknown.

    References
    ----------
    Dosovitskiy et al. 2021, arXiv:2010.11929.

    Examples
    --------
    >>> net = vit((1, 8, 8), depth=2, width=8, seed=0)
    >>> net[0](torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 16, 8])
    """
    channels, *sides = (whole(size, "shape", 1) for size in shape)
    whole(depth, "depth", 1)
    whole(width, "width", 1)
    if patch is None:
        most = max(2, min(sides) // 7)
        fitting = (p for p in range(most, 0, -1) if not any(s % p for s in sides))
        patch = next(fitting)
    if any(side % whole(patch, "patch", 1) for side in sides):
        msg = f"Expected `patch` to divide the sides {sides}, but got {patch}."
        raise ValueError(msg)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    with drawn_from(seed):
        first = Patches((channels, *sides), width, patch)
        for i in range(depth):
            block = TransformerBlock(width, 1 if width % 4 else 4, activation)
            parts = OrderedDict[str, nn.Module](patches=first, transformer=block)
            blocks[f"hidden_{i + 1}"] = nn.Sequential(parts) if i == 0 else block
        head = nn.Linear(width, whole(classes, "classes", 1))
        blocks["output"] = nn.Sequential(nn.LayerNorm(width), MeanOverTokens(), head)
    return nn.Sequential(blocks)
