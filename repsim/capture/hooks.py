"""Forward hooks that come off again, and tell one recording from another."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from repsim.capture.selection import Choice, Found, given_tensors

recording: ContextVar[object | None] = ContextVar("repsim_recording", default=None)


class Hook:
    """A hook that a copy of the network, or a file it is saved to, does not keep.

    In its place there is a method of the standard library that does nothing.
    """

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *called: Any) -> None:
        """Do what the hook does."""
        self._call(*called)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return what stands for the hook in a copy."""
        return getattr, (nullcontext(), "__exit__")


class Hooks:
    """Forward hooks on the chosen modules; off again on leaving the block.

    `emit(name, tensor)` is called with a layer's own output (or input). Of the modules
    `around` the layers, `stack` tells at any moment which are being called, and with
    which first tensor.
    """

    def __init__(
        self,
        choices: Mapping[str, Choice],
        emit: Callable[[str, Found], None],
        around: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self._choices = choices
        self._emit = emit
        self._around = around or {}
        self._calls: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []
        self.stack: list[tuple[str, Tensor | None]] = []
        self.counting = True
        self.private = False  # part of a recording, whoever records

    def __enter__(self) -> "Hooks":
        """Put the hooks on."""
        try:
            for path, module in self._around.items():
                hook = Hook(self._entering(path))
                self._handles.append(
                    module.register_forward_pre_hook(hook, with_kwargs=True)
                )
            for path, choice in self._choices.items():
                self._handles.append(
                    choice.module.register_forward_hook(Hook(self._hook(path, choice)))
                )
                if choice.inputs:
                    before = Hook(self._before(path, choice))
                    self._handles.append(
                        choice.module.register_forward_pre_hook(
                            before, with_kwargs=True
                        )
                    )
            for module in self._around.values():
                leaving = module.register_forward_hook(
                    Hook(self._leaving), always_call=True
                )
                self._handles.append(leaving)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Take the hooks off."""
        while self._handles:
            self._handles.pop().remove()

    def begin(self) -> None:
        """Count the calls of each module anew: a pass begins."""
        self._calls.clear()
        self.stack.clear()

    def _mine(self) -> bool:
        # A recorder's private pass is not what another tap wants to see.
        return self.private or recording.get() in (None, self)

    def _failing(self, _path: str, error: Exception) -> None:
        """End the pass, or not: what a layer gave could not be taken."""
        raise error

    def _hook(self, path: str, choice: Choice) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            if not self._mine():
                return
            call = self._calls.get(path, 0) + 1 if self.counting else 1
            self._calls[path] = call
            try:
                for name, tensor in choice.take(path, call, output):
                    self._emit(name, tensor)
            except Exception as error:
                self._failing(path, error)

        return hook

    def _before(self, path: str, choice: Choice) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            if not self._mine():
                return
            call = self._calls.get(path, 0) + 1 if self.counting else 1
            try:
                for name, tensor in choice.take_inputs(path, call, args, kwargs):
                    self._emit(name, tensor)
            except Exception as error:
                self._failing(path, error)

        return hook

    def _entering(self, path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            inputs = given_tensors(args, kwargs)
            first = next((t for t in inputs.values() if isinstance(t, Tensor)), None)
            self.stack.append((path, first))

        return hook

    def _leaving(self, _module: nn.Module, _args: object, _output: object) -> None:
        if self.stack:
            self.stack.pop()
