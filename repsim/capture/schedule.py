"""Which updates are recorded."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from repsim.core.messages import whole


class Schedule:
    """Decide whether the network is recorded after so many updates."""

    def __init__(
        self,
        every: int = 100,
        steps: Iterable[int] | Callable[[int], bool] | None = None,
    ) -> None:
        self.due: Callable[[int], bool]
        if steps is None:
            period = whole(every, "every", 1)
            self.due = lambda step: step % period == 0
        elif callable(steps):
            wanted = steps
            self.due = lambda step: bool(wanted(step))
        elif isinstance(steps, Collection) and not isinstance(steps, str):
            known = {_step(s) for s in steps}
            self.due = known.__contains__
        elif isinstance(steps, Iterable) and not isinstance(steps, str):
            self.due = _Increasing(iter(steps)).due
        else:
            msg = (
                "Expected `steps` to be an iterable of integers or a predicate, but "
                f"got {type(steps).__name__}."
            )
            raise TypeError(msg)


class _Increasing:
    """Membership in an increasing iterator, read only as far as needed."""

    def __init__(self, steps: Iterator[int]) -> None:
        self._steps = steps
        self._next: int | None = -1

    def due(self, step: int) -> bool:
        while self._next is not None and self._next < step:
            value = next(self._steps, None)
            if value is None:
                self._next = None
            else:
                following = _step(value)
                if following <= self._next:
                    msg = (
                        "Expected an iterator given as `steps` to increase, but got "
                        f"{following} after {self._next}; give a list instead."
                    )
                    raise ValueError(msg)
                self._next = following
        return self._next == step


def _step(value: Any) -> int:
    try:
        step = int(value.__index__())
    except (AttributeError, TypeError):
        step = -1
    if step < 0:
        msg = f"Expected `steps` to hold integers from 0 on, but got {value!r}."
        raise ValueError(msg)
    return step
