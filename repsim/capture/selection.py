"""Which modules of a network are recorded, and under which names."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.loss import _Loss
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence
from torch.optim.swa_utils import AveragedModel

from repsim.core.globs import glob
from repsim.core.messages import unknown

Found = Tensor | PackedSequence
Layers = str | Iterable[str] | Callable[[str, nn.Module], bool]

_INNER = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
_LISTS = (nn.ModuleList, nn.ModuleDict)
_NO_LAYER = (_Loss, *_LISTS)
_CALL = re.compile(r"call([1-9][0-9]*)")
_INPUT = re.compile(r"input(\..+)?")


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside `DataParallel`, DDP, `torch.compile` and the like."""
    while (inner := _inner(model)) is not None:
        model = inner
    return model


def wrappers(model: Any) -> Iterator[nn.Module]:
    """Yield a model and what it wraps, down to the network."""
    inner: nn.Module | None = model if isinstance(model, nn.Module) else None
    while inner is not None:
        yield inner
        inner = _inner(inner)


def _inner(module: nn.Module) -> nn.Module | None:
    for name in _INNER:
        if name in module._modules and module._modules[name] is not None:
            return module._modules[name]
    if isinstance(module, DataParallel | DistributedDataParallel | AveragedModel):
        inner: nn.Module = module.module
        return inner
    return None


def named_layers(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return a network's modules by path, wrappers' prefixes left out."""
    modules: dict[str, nn.Module] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}

    def walk(module: nn.Module, prefix: str) -> None:
        for name, wrapped in module._modules.items():
            if wrapped is None:
                continue
            child, path = unwrap(wrapped), f"{prefix}{name}"
            if is_parametrized(module) and name == "parametrizations":
                continue  # computes weights, no activations
            if id(child) in first:
                aliases[path] = first[id(child)]
                continue
            first[id(child)] = path
            modules[path] = child
            walk(child, f"{path}.")

    walk(unwrap(model), "")
    return modules, aliases


@dataclass
class Choice:
    """What is wanted of one module."""

    module: nn.Module
    first: bool = False  # the first tensor of each call, under the layer's name
    keys: list[str] = field(default_factory=list)
    calls: set[int] = field(default_factory=set)  # only those calls; empty is all
    inputs: list[str] = field(default_factory=list)  # "input", "input.1", …
    named: bool = False  # not by a glob alone

    def take_inputs(
        self, path: str, call: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[str, Found]]:
        """Yield the (name, tensor) pairs of what this call was given."""
        again = "" if call == 1 else f"@call{call}"
        arguments = given_tensors(args, kwargs) if self.inputs else {}
        for key in self.inputs:
            wanted = key.partition(".")[2] or next(iter(arguments), "0")
            if wanted not in arguments:
                known = [f"{path}@input.{k}" for k in arguments]
                raise ValueError(unknown("layers", f"{path}@{key}", known))
            yield f"{path}@{key}{again}", arguments[wanted]

    def take(self, path: str, call: int, output: object) -> Iterator[tuple[str, Found]]:
        """Yield the (name, tensor) pairs that this call's output gives."""
        again = "" if call == 1 else f"@call{call}"
        if not self.first and not self.keys and call not in self.calls:
            return
        outputs = tensors(output)
        if (self.first or call in self.calls) and outputs:
            yield f"{path}{again}", next(iter(outputs.values()))
        fields = getattr(output, "_fields", ())  # of a named tuple, "state" is "1", too
        for key in self.keys:
            place = str(fields.index(key)) if key in fields else key
            if place not in outputs:
                known = [f"{path}@{k}" for k in (*outputs, *fields)]
                raise ValueError(unknown("layers", f"{path}@{key}", known))
            yield f"{path}@{key}{again}", outputs[place]


def tensors(output: object) -> dict[str, Found]:
    """Return the tensors of an output by key: "" for one alone, "1.0" for nested."""
    return {".".join(key): value for key, value in _tensors(output)}


def given_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Found]:
    """Return the tensors that a module is called with, by place or name."""
    return tensors({**{str(i): a for i, a in enumerate(args)}, **kwargs})


def call_removed(name: str) -> str:
    """Return a name without the number of the call, "relu" of "relu@call2"."""
    layer, _, end = name.rpartition("@")
    return layer if layer and _CALL.fullmatch(end) else name


def _tensors(output: object) -> Iterator[tuple[tuple[str, ...], Found]]:
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(output, Tensor | PackedSequence):
        yield (), output
    elif isinstance(output, Mapping):
        items = output.items()
    elif isinstance(output, tuple | list):
        items = enumerate(output)
    elif is_dataclass(output):
        items = vars(output).items()
    for key, value in items:
        for rest, tensor in _tensors(value):
            yield (str(key), *rest), tensor


def select(model: nn.Module, layers: Layers = "*") -> dict[str, Choice]:
    """Return the chosen modules, in network order."""
    modules, aliases = named_layers(model)
    if not modules:
        msg = (
            "Expected a network with modules inside, which are its layers, but got a "
            f"{type(model).__name__} without; record it as nn.Sequential(model)."
        )
        raise ValueError(msg)
    chosen: dict[str, Choice] = {}
    if callable(layers):
        for path, module in modules.items():
            if layers(path, module):
                chosen[path] = Choice(module, first=True)
        if not chosen:
            msg = f"{_unmatched('the predicate', '', modules)} It took none of them."
            raise ValueError(msg)
        return _watchable(chosen)
    patterns = _patterns(layers)
    if all(p.startswith("!") for p in patterns):
        patterns = ["*", *patterns]
    for pattern in patterns:
        if not pattern.startswith("!"):
            _choose(chosen, pattern, modules, aliases)
    for pattern in patterns:
        if pattern.startswith("!"):
            _leave_out(chosen, pattern, modules)
    _tell_lists(chosen, patterns, modules)
    return _watchable({path: chosen[path] for path in modules if path in chosen})


def _lists(modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the lists of modules that have members, which alone are called."""
    return [n for n, m in modules.items() if isinstance(m, _LISTS) and len(m)]


def _tell_lists(
    chosen: Mapping[str, Choice], patterns: list[str], modules: Mapping[str, nn.Module]
) -> None:
    """Say which lists of modules globs have met, whose members none has chosen."""
    globs = [glob(p.partition("@")[0]) for p in patterns if not p.startswith("!")]
    out = [glob(p[1:].partition("@")[0]) for p in patterns if p.startswith("!")]
    left = []
    for name in _lists(modules):
        inner = [path for path in modules if path.startswith(f"{name}.")]
        met = any(regex.fullmatch(name) for regex in globs)
        # What is left out by a pattern, itself or a member, is left out knowingly.
        known = any(regex.fullmatch(n) for regex in out for n in (name, *inner))
        if met and not known and not any(n in chosen for n in (name, *inner)):
            left.append(name)
    if left:
        members = [f"{name}.*" for name in left]
        warnings.warn(
            f"Lists of modules are not called themselves, so nothing of "
            f"{', '.join(left)} is recorded; layers={[*patterns, *members]} takes "
            f"their members, layers={[*patterns, *(f'!{n}' for n in left)]} leaves "
            "them out unsaid.",
            stacklevel=4,
        )


def _leave_out(
    chosen: dict[str, Choice], pattern: str, modules: Mapping[str, nn.Module]
) -> None:
    """Take back what a pattern behind "!" matches."""
    path, _, key = pattern[1:].partition("@")
    regex = glob(path)
    if not any(regex.fullmatch(name) for name in modules):
        raise ValueError(_unmatched(pattern, path, modules))
    for name in [n for n in chosen if regex.fullmatch(n)]:
        if key:
            chosen[name].keys = [k for k in chosen[name].keys if k != key]
            chosen[name].inputs = [k for k in chosen[name].inputs if k != key]
        else:
            del chosen[name]
    if not chosen:
        msg = (
            f"Expected `layers` to leave something to record, but {pattern!r} leaves "
            "out all that was chosen."
        )
        raise ValueError(msg)


def _unmatched(pattern: str, path: str, modules: Mapping[str, nn.Module]) -> str:
    """Return the sentence for a pattern without a match: the nearest layers."""
    if len(modules) <= 12:
        return unknown("layers", pattern, modules)
    near = get_close_matches(path, modules, n=5, cutoff=0.3)
    end = path.rpartition(".")[2].strip("*")
    near += [n for n in modules if end and end in n and n not in near][:3]
    children = [n for n in modules if "." not in n]
    shown = ", ".join((near or children)[:8])
    return (
        f"Expected `layers` to match some of the network's {len(modules)} modules, but "
        f"{pattern!r} matches none; the nearest are {shown} (`*` stays within one "
        "path segment, `**` crosses dots)."
    )


def _watchable(chosen: dict[str, Choice]) -> dict[str, Choice]:
    for path, choice in chosen.items():
        if isinstance(choice.module, ScriptModule):
            msg = (
                f"Expected layers that Python runs, but {path!r} is scripted or traced "
                "and cannot be watched; leave it out with `layers`, or give the module "
                "it was made from."
            )
            raise TypeError(msg)
    return chosen


def _patterns(layers: object) -> list[str]:
    if isinstance(layers, str):
        return [layers]
    patterns = list(layers) if isinstance(layers, Iterable) else []
    names = [p for p in patterns if isinstance(p, str)]
    if not names or len(names) < len(patterns):
        msg = (
            "Expected `layers` to be a glob, a list of names or a predicate "
            f"f(name, module), but got {layers!r}."
        )
        raise TypeError(msg)
    return names


def _choose(
    chosen: dict[str, Choice],
    pattern: str,
    modules: Mapping[str, nn.Module],
    aliases: Mapping[str, str],
) -> None:
    path, _, key = pattern.partition("@")
    if path in aliases:
        msg = (
            f"Expected `layers` to name each module once, but {path!r} is the same "
            f"module as {aliases[path]!r}; ask for that (its second call in a pass "
            f"is '{aliases[path]}@call2')."
        )
        raise ValueError(msg)
    matches = [path] if path in modules else []
    if not matches:
        regex = glob(path)
        # Left out of globs, recorded when named: a loss, and lists, never called.
        matches = [
            name
            for name, module in modules.items()
            if regex.fullmatch(name) and not isinstance(module, _NO_LAYER)
        ]
        lists = [n for n in _lists(modules) if regex.fullmatch(n)]
        if lists and not matches:
            msg = (
                f"Expected `layers` to match modules that are called, but {pattern!r} "
                f"matches only lists of modules ({', '.join(lists)}), which are not; "
                f"take their members, as in layers={[f'{n}.*' for n in lists]}."
            )
            raise ValueError(msg)
    if not matches:
        raise ValueError(_unmatched(pattern, path, modules))
    for name in matches:
        choice = chosen.setdefault(name, Choice(modules[name]))
        choice.named = choice.named or path in modules
        call = _CALL.fullmatch(key)
        if not key:
            choice.first = True
        elif call:
            choice.calls.add(int(call[1]))
        elif _INPUT.fullmatch(key):
            choice.inputs += [key] if key not in choice.inputs else []
        elif key not in choice.keys:
            choice.keys.append(key)
