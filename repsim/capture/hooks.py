"""Forward hooks that come off again, and tell one recording from another."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from repsim.capture.selection import Choice

recording: ContextVar[object | None] = ContextVar("repsim_recording", default=None)


class Hooks:
    """Forward hooks on the chosen modules; off again on leaving the block."""

    def __init__(
        self, choices: Mapping[str, Choice], emit: Callable[[str, Tensor], None]
    ) -> None:
        self._choices = choices
        self._emit = emit
        self._calls: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []
        self.counting = True
        self.private = False  # part of a recording, whoever records

    def __enter__(self) -> "Hooks":
        """Put the hooks on."""
        try:
            for path, choice in self._choices.items():
                hook = self._hook(path, choice)
                self._handles.append(choice.module.register_forward_hook(hook))
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

    def _hook(self, path: str, choice: Choice) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            # A recorder's private pass is not what another tap wants to see.
            if not self.private and recording.get() not in (None, self):
                return
            call = self._calls.get(path, 0) + 1 if self.counting else 1
            self._calls[path] = call
            for name, tensor in choice.take(path, call, output):
                self._emit(name, tensor)

        return hook
