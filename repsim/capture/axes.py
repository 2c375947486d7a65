"""Which axis of a layer's output is what: said by the user, told by modules, tried."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from repsim.capture.selection import call_removed
from repsim.core.globs import glob
from repsim.core.messages import unknown

AxesSaid = Mapping[str, str] | None

INPUTS = "inputs"
"""The key of `axes` that stands for the network's inputs."""

LARGE = 1000
"""Words from which on logits for every token are said to cost."""

SHARED = -1
"""In place of an axis: the output is the same whatever the examples are."""

_FIRST = {1: ("unit",), 2: ("channel", "x"), 3: ("channel", "y", "x")}
_FIRST |= {4: ("channel", "z", "y", "x")}
_LAST = {1: ("unit",), 2: ("token", "unit"), 3: ("y", "x", "channel")}
_LAST |= {4: ("z", "y", "x", "channel")}


class UndecidedError(ValueError):
    """An output whose axes are not known; the sentence says how to say them."""


@dataclass(frozen=True)
class Order:
    """The axes of one output: which holds the examples, and the others by name."""

    example: int
    rest: tuple[str, ...]

    @classmethod
    def of(cls, dims: tuple[str, ...]) -> "Order":
        """Return the order that the names of all axes give."""
        rest = tuple(d for d in dims if d != "example")
        return cls(dims.index("example"), rest)


def parsed(axes: AxesSaid) -> dict[str, tuple[str, ...]]:
    """Return `axes` with its names apart, each checked."""
    if axes is None:
        return {}
    if not isinstance(axes, Mapping):
        msg = (
            "Expected `axes` to be a mapping from layer patterns to the names of axes, "
            f"as {{'layers.*': 'token example unit'}}, but got {type(axes).__name__}."
        )
        raise TypeError(msg)
    said = {}
    for pattern, names in axes.items():
        dims = tuple(names.split()) if isinstance(names, str) else tuple(names)
        if (
            dims.count("example") != 1
            or len(set(dims)) < len(dims)
            or not all(isinstance(d, str) and d.isidentifier() for d in dims)
        ):
            msg = (
                "Expected `axes` to name every axis once and `example` among them, as "
                f"in 'token example unit', but got {names!r} for {pattern!r}."
            )
            raise ValueError(msg)
        said[str(pattern)] = dims
    return said


class Axes:
    """Decides the axes of every output, and remembers what was decided."""

    def __init__(
        self,
        axes: AxesSaid,
        modules: Mapping[str, nn.Module],
        chosen: Mapping[str, Any],
    ) -> None:
        self._said = parsed(axes)
        self.inputs = self._said.pop(INPUTS, None) if INPUTS not in modules else None
        self._patterns = {p: glob(p) for p in self._said}
        self.modules = modules
        for pattern, regex in self._patterns.items():
            bare = glob(pattern.partition("@")[0])
            if not any(bare.fullmatch(p) or regex.fullmatch(p) for p in chosen):
                raise ValueError(unknown("axes", pattern, [*chosen, INPUTS]))
        self.known: dict[str, Order] = {}
        self.doubtful: dict[str, tuple[str, ...]] = {}
        self._evidence: dict[tuple[str, int], tuple[set[int], set[int]]] = {}

    @cached_property
    def vocabularies(self) -> set[int]:
        """How many words the embeddings of the network tell apart, large ones alone."""
        sizes = {
            m.num_embeddings
            for m in self.modules.values()
            if isinstance(m, nn.Embedding)
        }
        return {n for n in sizes if n >= LARGE}

    def said(self, name: str) -> tuple[str, ...] | None:
        """Return the axes that the user gave this output; the last pattern wins."""
        bare = call_removed(name)
        axes = None
        for pattern, regex in self._patterns.items():
            if regex.fullmatch(bare):
                axes = self._said[pattern]
        return axes

    def decide(self, name: str, shape: tuple[int, ...], size: int) -> Order | None:
        """Return the order of an output for so many examples; None if unclear."""
        if name in self.known and len(self.known[name].rest) == max(0, len(shape) - 1):
            order = self.known[name]
        elif (dims := self.said(name)) is not None:
            if len(dims) != len(shape):
                msg = (
                    f"Expected layer {name!r} to have the axes ({', '.join(dims)}) "
                    f"that `axes` says, but its output has shape {shape}; correct "
                    "its entry in `axes`."
                )
                raise ValueError(msg)
            order = Order.of(dims)
        elif (dims := self._told(name, len(shape))) is not None:
            order = Order.of(dims)
        elif self._first_is_examples(name, shape, size):
            order = self.with_example(name, shape, 0)
        else:
            return None
        if order.example != SHARED and shape[order.example] != size:
            raise ValueError(misfit(name, shape, size, order.example))
        self.known[name] = order
        return order

    def with_example(self, name: str, shape: tuple[int, ...], axis: int) -> Order:
        """Name the other axes once that of the examples is known."""
        inner = shape[1:] if axis == SHARED else shape[:axis] + shape[axis + 1 :]
        self.known[name] = Order(axis, self._rest(name, inner))
        return self.known[name]

    def _first_is_examples(self, name: str, shape: tuple[int, ...], size: int) -> bool:
        if not shape or shape[0] != size:
            return False
        if size == 1 or size not in shape[1:]:
            return True
        # An axis that this very module has its features on is not the examples'.
        first, last = self._features(_path(name), len(shape) - 1, own=True)
        features = {1} if shape[1] in first else set()
        features |= {len(shape) - 1} if shape[-1] in last else set()
        return all(
            axis in features for axis, n in enumerate(shape) if axis and n == size
        )

    def _told(self, name: str, ndim: int) -> tuple[str, ...] | None:
        """Return the axes that the module, or one around it, tells."""
        path, key = _path(name), call_removed(name).partition("@")[2]
        module = self.modules.get(path)
        other = key not in ("", "0")
        if isinstance(module, nn.RNNBase) and other and key != "input":
            return ("layer", "example", "unit") if ndim == 3 else None
        if isinstance(module, nn.MultiheadAttention) and key == "1":
            heads = ("head",) if ndim == 4 else ()
            return ("example", *heads, "query", "key") if ndim > 2 else None
        if not other and (dims := _own_axes(module)) is not None:
            return dims if len(dims) == ndim else None
        if other and key.partition(".")[0] != "input":
            return None
        around = [self.modules[p] for p in _around(path) if p in self.modules]
        if ndim == 3:
            for owner in around:
                first = batch_first(owner)
                if first is not None:
                    lead = ("example", "token") if first else ("token", "example")
                    return (*lead, "unit")
        return None

    def _rest(self, name: str, inner: tuple[int, ...]) -> tuple[str, ...]:
        """Name the axes beside the examples from what the modules say of features."""
        path, key = _path(name), call_removed(name).partition("@")[2]
        count = len(inner)
        if count < 2:
            return _FIRST[1][:count]
        if count not in _FIRST:
            return tuple(f"axis{i}" for i in range(1, count + 1))
        kind = type(self.modules.get(path)).__name__.lower()
        if key not in ("", "0", "input") and ("attention" in kind or "attn" in kind):
            return {2: ("query", "key"), 3: ("head", "query", "key")}.get(
                count, _FIRST[count]
            )
        around = list(_around(path))
        for p in around:
            told = str(getattr(self.modules.get(p), "output_fmt", None) or "")
            if told.rpartition(".")[2] in ("NHWC", "NCHW") and count == 3:
                return (_LAST if told.endswith("NHWC") else _FIRST)[3]
        for p in around:
            first, last = self._features(p, count)
            channels, units = inner[0] in first, inner[-1] in last
            if channels != units:
                return (_FIRST if channels else _LAST)[count]
        first, last = self._features("", count)
        guess = _LAST if count == 2 else _FIRST
        if (first and last) or (first if count == 2 else last):
            self.doubtful[name] = guess[count]
        return guess[count]

    def _features(
        self, path: str, count: int, own: bool = False
    ) -> tuple[set[int], set[int]]:
        """Return the numbers of features that modules here have first, and last."""
        if own:
            module = self.modules.get(path)
            return (set(), set()) if module is None else _features(module, count)
        if (path, count) not in self._evidence:
            first: set[int] = set()
            last: set[int] = set()
            flattened: set[int] = set()
            lead = f"{path}." if path else ""
            for name, module in self.modules.items():
                if name == path or name.startswith(lead):
                    if isinstance(module, _ConvNd) and _has_more_axes(module, count):
                        flattened = {module.out_channels}
                    more_first, more_last = _features(module, count)
                    first |= more_first
                    last |= more_last
            # Where the channels of maps went that were flattened is not known.
            self._evidence[path, count] = first | flattened, last | flattened
        return self._evidence[path, count]


def told_axis(axes: Axes, name: str) -> int | None:
    """Return where an output of three axes has its examples, by user or module."""
    said = axes.said(name)
    if said is not None:
        return said.index("example")
    module = axes.modules[name]
    dims = _own_axes(module)
    if dims is not None and len(dims) == 3:
        return dims.index("example")
    own = batch_first(module)
    return None if own is None else 0 if own else 1


def _path(name: str) -> str:
    return name.partition("@")[0]


def _around(path: str) -> Iterator[str]:
    """Yield a path, those around it, and the network's own, the empty one."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def misfit(name: str, shape: tuple[int, ...], size: int, axis: int | None) -> str:
    """Return the sentence for rows that are not the examples."""
    assumed = (
        "no axis of it follows the examples"
        if axis is None
        else f"axis {axis} was taken for them"
    )
    names = ["example", "unit"] if len(shape) < 3 else ["token", "example", "unit"]
    example = " ".join([*names, "y", "x"][: max(2, len(shape))])
    return (
        f"Expected layer {name!r} to give one row for each of {size} examples, but its "
        f"output has shape {shape} ({assumed}); say which axis is what, as in "
        f"axes={{{name!r}: {example!r}}}, leave it out with "
        f"layers=[…, '!{_path(name)}'], or pass on_error='skip'."
    )


def _own_axes(module: nn.Module | None) -> tuple[str, ...] | None:
    """Return what a module, or the last one of a sequence, says of its output's axes.

    In the words of `axes`, as its attribute: `output_axes = "example token unit"`.
    """
    while isinstance(module, nn.Sequential) and len(module):
        if hasattr(module, "output_axes"):
            break
        module = module[-1]
    said = getattr(module, "output_axes", None)
    if not isinstance(said, str):
        return None
    return parsed({type(module).__name__: said})[type(module).__name__]


def batch_first(module: nn.Module) -> bool | None:
    """Return whether a module says that its batch comes first; None if it does not."""
    if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        return bool(module.self_attn.batch_first)
    if isinstance(module, nn.TransformerEncoder | nn.TransformerDecoder):
        return batch_first(module.layers[0]) if len(module.layers) else None
    told = getattr(module, "batch_first", None)
    return told if isinstance(told, bool) else None


def _has_more_axes(module: _ConvNd, count: int) -> bool:
    return len(module.kernel_size) >= count


def _features(module: nn.Module, count: int) -> tuple[set[int], set[int]]:
    """Return the numbers of features that a module has on axis 1, and on the last.

    Of an output with `count` axes beside the examples.
    """
    kind = type(module).__name__
    first: set[Any] = set()
    last: set[Any] = set()
    if isinstance(module, _ConvNd):
        if not _has_more_axes(module, count):
            first = {module.out_channels, module.in_channels}
    elif isinstance(module, _NormBase):
        if count > 2 or not kind.endswith(("2d", "3d")):
            first = {module.num_features}
    elif isinstance(module, nn.GroupNorm):
        first = {module.num_channels}
    elif isinstance(module, nn.RNNBase):
        last = {module.hidden_size * (2 if module.bidirectional else 1)}
        last |= {module.input_size}
    elif isinstance(module, nn.MultiheadAttention):
        last = {module.embed_dim}
    elif (shape := getattr(module, "normalized_shape", None)) is not None:
        sizes = {shape if isinstance(shape, int) else tuple(shape)[-1]}
        first, last = (sizes, last) if "2d" in kind else (first, sizes)
    elif kind.endswith("RMSNorm"):
        weight = getattr(module, "weight", None)
        last = {len(weight)} if isinstance(weight, Tensor) and weight.ndim else set()
    else:
        last = {
            getattr(module, attribute, None)
            for attribute in ("out_features", "in_features", "embedding_dim", "nf")
        }
    return (
        {n for n in first if isinstance(n, int)},
        {n for n in last if isinstance(n, int)},
    )
