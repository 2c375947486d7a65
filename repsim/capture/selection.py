"""Which modules of a network are recorded, and under which names."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.loss import _Loss
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from repsim.core.messages import unknown

Layers = str | Iterable[str] | Callable[[str, nn.Module], bool]

_INNER = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
_NO_LAYER = (_Loss, nn.ModuleList, nn.ModuleDict)
_CALL = re.compile(r"call([1-9][0-9]*)")


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside `DataParallel`, DDP, `torch.compile` and the like."""
    while (inner := _inner(model)) is not None:
        model = inner
    return model


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

    def take(
        self, path: str, call: int, output: object
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the (name, tensor) pairs that this call's output gives."""
        again = "" if call == 1 else f"@call{call}"
        if not self.first and not self.keys and call not in self.calls:
            return
        found = tensors(output)
        if (self.first or call in self.calls) and found:
            yield f"{path}{again}", next(iter(found.values()))
        for key in self.keys:
            if key not in found:
                known = [f"{path}@{k}" for k in found]
                raise ValueError(unknown("layers", f"{path}@{key}", known))
            yield f"{path}@{key}{again}", found[key]


def tensors(output: object) -> dict[str, Tensor]:
    """Return the tensors of an output by key: "" for one alone, "1.0" for nested."""
    return {".".join(key): value for key, value in _tensors(output)}


def _tensors(output: object) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(output, Tensor):
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
    chosen: dict[str, Choice] = {}
    if callable(layers):
        for path, module in modules.items():
            if layers(path, module):
                chosen[path] = Choice(module, first=True)
        if not chosen:
            msg = f"{unknown('layers', 'the predicate', modules)} It took none of them."
            raise ValueError(msg)
        return _watchable(chosen)
    for pattern in _patterns(layers):
        _choose(chosen, pattern, modules, aliases)
    return _watchable({path: chosen[path] for path in modules if path in chosen})


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
    if not matches:
        raise ValueError(unknown("layers", pattern, modules))
    for name in matches:
        choice = chosen.setdefault(name, Choice(modules[name]))
        call = _CALL.fullmatch(key)
        if not key:
            choice.first = True
        elif call:
            choice.calls.add(int(call[1]))
        elif key not in choice.keys:
            choice.keys.append(key)


def glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob over dotted paths."""
    parts = re.split(r"(\*\*\.|\*\*|\*|\?|\[[^\]]+\])", pattern)
    special = {"**.": r"(?:.*\.)?", "**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    return re.compile(
        "".join(
            special.get(p) or (_choice(p) if p.startswith("[") else re.escape(p))
            for p in parts
        )
    )


def _choice(part: str) -> str:
    if len(part) < 3 or not part.endswith("]"):
        return re.escape(part)
    body = part[1:-1].replace("\\", r"\\")
    return f"[{'^' + body[1:] if body.startswith('!') else body}]"
