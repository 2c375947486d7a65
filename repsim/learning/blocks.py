"""A network as a sequence of named blocks, and the checks that it is one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from repsim.core.messages import require, unknown
from repsim.core.modes import kept_modes

Blocks = Sequence[str] | Mapping[str, nn.Module] | None


def named_blocks(network: nn.Module, blocks: Blocks = None) -> dict[str, nn.Module]:
    """Return the blocks of a network by name, in order, the output block last."""
    require(isinstance(network, nn.Module), network, "`network` to be an nn.Module")
    if blocks is None:
        named = dict(network.named_children())
    elif isinstance(blocks, Mapping):
        named = dict(blocks)
        for name, block in named.items():
            right = isinstance(block, nn.Module)
            require(right, block, f"block {name!r} to be an nn.Module")
    else:
        named = _looked_up(network, blocks)
    if len(named) < 2:
        msg = (
            "Expected a network of at least two blocks, a hidden one and the output, "
            f"but got {list(named) or 'none'}; name them with `blocks=`."
        )
        raise ValueError(msg)
    _check_parameters(network, named)
    return named


def _looked_up(network: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules of these names, or name one that is wrong."""
    right = isinstance(names, Sequence) and not isinstance(names, str)
    require(right, names, "`blocks` to be a list of names, or a mapping to modules")
    known = dict(network.named_modules())
    for name in names:
        if name not in known:
            raise ValueError(unknown("blocks", name, [n for n in known if n]))
        if names.count(name) > 1:
            msg = f"Expected each block once in `blocks`, but got {name!r} twice."
            raise ValueError(msg)
    return {name: known[name] for name in names}


def _check_parameters(network: nn.Module, blocks: Mapping[str, nn.Module]) -> None:
    """Refuse parameters in two blocks, which no error reaches, or in none."""
    owner: dict[nn.Parameter, str] = {}
    for name, block in blocks.items():
        for parameter in block.parameters():
            if parameter in owner:
                msg = (
                    f"Expected blocks without common parameters, but {name!r} shares "
                    f"one with {owner[parameter]!r}."
                )
                raise ValueError(msg)
            owner[parameter] = name
    for name, parameter in network.named_parameters():
        if is_lazy(parameter):
            msg = (
                f"Expected weights whose shapes are known, but {name!r} is lazy; run "
                "the network on some inputs first."
            )
            raise ValueError(msg)
        if parameter.requires_grad and parameter not in owner:
            msg = (
                f"Expected every trainable parameter to lie in a block, but {name!r} "
                f"lies in none of {', '.join(blocks)}; name it with `blocks=`."
            )
            raise ValueError(msg)


def trace(
    network: nn.Module, blocks: Mapping[str, nn.Module], x: Tensor
) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:
    """Return the shape of one example behind each block, or refuse the network.

    The blocks are run one after another in eval mode, without gradients, and their
    result is compared with the network's own, so that a network whose forward does
    more than call its blocks in order is refused at once and not trained wrongly.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    inputs: dict[str, Tensor] = {}
    in_place = set()
    with torch.no_grad(), kept_modes(network, training=False):
        h, before = x.clone(), "the input"
        for name, block in blocks.items():
            inputs[name], entry, version = h.clone(), h, h._version
            try:
                h = block(h)
            except Exception as error:  # whatever a user's block raises
                if isinstance(block, nn.ModuleList | nn.ModuleDict):
                    msg = (
                        f"Expected blocks that can be called, but {name!r} is a "
                        f"{type(block).__name__}; put its modules into nn.Sequential."
                    )
                    raise ValueError(msg) from error
                msg = (
                    f"Expected block {name!r} to take the output of {before}, shape "
                    f"(n, {', '.join(map(str, h.shape[1:]))}), but it raised: {error}"
                )
                raise ValueError(msg) from error
            if not isinstance(h, Tensor) or len(h) != len(x):
                got = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
                msg = (
                    f"Expected block {name!r} to return one tensor with a row for each "
                    f"of the {len(x)} examples, but got {got}."
                )
                raise ValueError(msg)
            # In eval mode dropout leaves its input alone, and in training it does not.
            if entry._version > version or any(map(_drops_in_place, block.modules())):
                in_place.add(name)
            shapes[name], before = tuple(h.shape[1:]), f"block {name!r}"
        _check_order(network, blocks, x, inputs, h)
    return shapes, frozenset(in_place)


def _drops_in_place(module: nn.Module) -> bool:
    return isinstance(module, _DropoutNd) and module.inplace


def _check_order(
    network: nn.Module,
    blocks: Mapping[str, nn.Module],
    x: Tensor,
    inputs: Mapping[str, Tensor],
    output: Tensor,
) -> None:
    """Name the first block that the network's own forward feeds with something else."""
    seen: dict[str, Tensor] = {}

    def see(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, args: tuple[object, ...]) -> None:
            if args and isinstance(args[0], Tensor):
                seen.setdefault(name, args[0].clone())

        return blocks[name].register_forward_pre_hook(hook)

    handles = [see(name) for name in blocks]
    try:
        result = network(x.clone())
    finally:
        for handle in handles:
            handle.remove()
    names = list(blocks)
    if not isinstance(result, Tensor):
        msg = (
            f"Expected the network to return one tensor, as its last block "
            f"{names[-1]!r} does, but got {type(result).__name__}."
        )
        raise ValueError(msg)
    if _same(result, output):
        return
    wrong = [n for n in names if n in seen and not _same(seen[n], inputs[n])]
    what = f"block {wrong[0]!r} gets something else" if wrong else "the result differs"
    msg = (
        "Expected the network to call its blocks one after another "
        f"({', '.join(names)}), but {what} in its own forward; name the blocks with "
        "`blocks=`, or join what belongs together in a mapping of names to modules."
    )
    raise ValueError(msg)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(
        a, b, rtol=1e-4, atol=1e-5, equal_nan=True
    )


def first_weights(blocks: Mapping[str, nn.Module]) -> nn.Module | None:
    """Return the first Linear or convolution, which says what the input looks like."""
    known = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    for block in blocks.values():
        for module in block.modules():
            if isinstance(module, known):
                return module
            if next(module.parameters(recurse=False), None) is not None:
                return None
    return None


def check_input(blocks: Mapping[str, nn.Module], x: Tensor) -> None:
    """Refuse inputs whose width is not that of the first weights."""
    first = first_weights(blocks)
    name, *_ = blocks
    if isinstance(first, nn.Linear):
        flattens = any(isinstance(m, nn.Flatten) for m in blocks[name].modules())
        got = x[0].numel() if flattens else x.shape[-1]
        if x.ndim < 2 or got != first.in_features:
            msg = (
                f"Expected `x` to have the shape (n, {first.in_features}), the input "
                f"width of block {name!r}, but got {tuple(x.shape)}."
            )
            raise ValueError(msg)
    elif isinstance(first, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        axes = len(first.kernel_size) + 2
        if x.ndim != axes or x.shape[1] != first.in_channels:
            sides = ", ".join(["depth", "height", "width"][5 - axes :])
            msg = (
                f"Expected `x` to have the shape (n, {first.in_channels}, {sides}), "
                f"the input of block {name!r}, but got {tuple(x.shape)}."
            )
            raise ValueError(msg)


def weights(block: nn.Module) -> list[nn.Parameter]:
    """Return a block's weights: parameters of two axes or more, no biases or scales."""
    return [p for p in block.parameters() if p.ndim > 1]
