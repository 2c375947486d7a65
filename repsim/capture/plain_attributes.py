"""Plain Python attributes that a `forward` changes: counters, caches, states."""

import random
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

_TORCHS = frozenset(vars(nn.Module())) | {"training", "forward"}
_FOREIGN = ("torch", "lightning", "pytorch_lightning", "accelerate", "deepspeed")
_DEEPEST = 3
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, nn.Parameter)


@contextmanager
def same_attributes(model: nn.Module) -> Iterator[None]:
    """Give back attributes that a forward pass binds anew or changes in place.

    Containers, arrays, tensors and generators are kept by copies that share their
    contents, objects by their own attributes. Iterators cannot be turned back: one that
    moved is named in a warning.
    """
    kept = _Kept()
    for path, module in model.named_modules():
        if isinstance(module, ScriptModule):  # holds no attributes of Python's
            continue
        kept.module(module, path or type(module).__name__)
    try:
        yield
    finally:
        lost = kept.restore()
    if lost:
        warnings.warn(
            f"Recording changed {', '.join(lost)}, which cannot be turned back: what "
            "the network computes from it differs from a training without a recorder.",
            UserWarning,
            stacklevel=2,
        )


class _Kept:
    """What the attributes held, and how each is given back."""

    def __init__(self) -> None:
        self._restore: list[Callable[[], None]] = []
        self._moving: list[tuple[str, Any, str]] = []
        self._seen: set[int] = set()
        self._alive: list[Any] = []  # so that no id is used twice meanwhile

    def restore(self) -> list[str]:
        """Give everything back; return the names of what cannot be."""
        lost = []
        with torch.no_grad():
            for restore in self._restore:
                try:
                    restore()
                except Exception as error:  # a user's container that refuses
                    lost.append(f"an attribute ({type(error).__name__}: {error})")
        moved = (name for name, value, before in self._moving if repr(value) != before)
        return [*moved, *dict.fromkeys(lost)]

    def module(self, module: nn.Module, name: str) -> None:
        """Keep a module's own attributes and which buffers it has."""
        if id(module) not in self._seen:
            self._seen.add(id(module))
            self._bindings(vars(module), _TORCHS)
            self._names(module._buffers)
            for key, value in vars(module).items():
                if key not in _TORCHS:
                    self._value(value, f"{name}.{key}", 0)

    def _names(self, buffers: dict[str, Any]) -> None:
        before = set(buffers)

        def restore() -> None:
            for key in set(buffers) - before:
                del buffers[key]

        self._restore.append(restore)

    def _bindings(self, held: dict[str, Any], leave: frozenset[str]) -> None:
        before = {k: v for k, v in held.items() if k not in leave}

        def restore() -> None:
            for key in [k for k in held if k not in leave and k not in before]:
                del held[key]
            for key, value in before.items():
                if key not in held or held[key] is not value:
                    held[key] = value

        self._restore.append(restore)

    def _value(self, value: Any, name: str, depth: int) -> None:
        if isinstance(value, _PLAIN):
            return
        if depth > _DEEPEST or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._alive.append(value)
        if isinstance(value, Tensor | np.ndarray):
            self._array(value)
        elif isinstance(value, list | dict | set | deque):
            self._container(value, name, depth)
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                self._value(item, f"{name}[{i}]", depth + 1)
        elif isinstance(value, random.Random):
            self._state(value.getstate, value.setstate)
        elif isinstance(value, torch.Generator):
            self._state(value.get_state, value.set_state)
        elif isinstance(value, np.random.Generator):
            bits = value.bit_generator
            self._state(lambda: bits.state, lambda s: setattr(bits, "state", s))
        elif type(value).__module__ == "itertools":
            self._moving.append((name, value, repr(value)))
        elif isinstance(value, nn.Module):
            self.module(value, name)  # in a list of its owner's, unregistered
        elif not callable(value) and not self._is_foreign(value):
            own = getattr(value, "__dict__", None)
            if isinstance(own, dict):
                self._bindings(own, frozenset())
                for key, item in own.items():
                    self._value(item, f"{name}.{key}", depth + 1)

    @staticmethod
    def _is_foreign(value: Any) -> bool:
        # A trainer, or a sharded module's state, goes on living beside the pass.
        return type(value).__module__.partition(".")[0] in _FOREIGN

    def _state(self, get: Callable[[], Any], put: Callable[[Any], Any]) -> None:
        before = get()
        self._restore.append(lambda: put(before) and None)

    def _array(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            copy = value.copy()

            def restore() -> None:
                if value.flags.writeable:
                    value[...] = copy

            self._restore.append(restore)
        elif not value.is_inference():
            version, clone = value._version, value.detach().clone()

            def back() -> None:
                if value._version != version:
                    value.detach().copy_(clone)

            self._restore.append(back)

    def _container(self, value: Any, name: str, depth: int) -> None:
        before: Any  # plain, as a user's own class may copy itself otherwise
        if isinstance(value, dict):
            before = dict(value.items())
        else:
            before = set(value) if isinstance(value, set) else list(value)

        def restore() -> None:
            same = len(value) == len(before)
            if isinstance(value, dict):
                same = same and all(
                    k in value and value[k] is v for k, v in before.items()
                )
            elif isinstance(value, set):
                same = value == before
            else:
                same = same and all(map(lambda a, b: a is b, value, before))
            if not same:
                value.clear()
                extend = getattr(value, "extend", None) or value.update
                extend(before)

        self._restore.append(restore)
        if not isinstance(value, set):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in items:
                self._value(item, f"{name}[{key!r}]", depth + 1)
