"""Things by name: rules, measures, networks and data sets, ours and a user's own."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from repsim.core.messages import require, unknown

T = TypeVar("T")

RESERVED = ":,=/ "
"""Characters that `--rules sg:at=every` and a store's paths give a meaning to."""


class Registry(Generic[T]):
    """Entries by name; one behaviour for every kind of thing that users may add.

    A name is taken by the function behind it (module and qualified name), so that the
    cell of a notebook may run again, while another function under the name is refused.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._made_by: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        """Return whether a name is taken."""
        return name in self._entries

    def names(self) -> list[str]:
        """Return the names, in the order in which they were registered."""
        return list(self._entries)

    def get(self, name: str) -> T:
        """Return the entry of a name."""
        if name not in self._entries:
            raise ValueError(unknown(self.kind, name, self._entries))
        return self._entries[name]

    def register(
        self,
        name: str,
        function: Callable[..., Any],
        entry: T | None = None,
        expected: str = "`function` to be callable",
    ) -> None:
        """Give a function, or the entry made of it, a name."""
        require(callable(function), function, expected)
        require(isinstance(name, str), name, f"a {self.kind}'s `name` to be a string")
        if not name or set(name) & set(RESERVED):
            msg = (
                f"Expected a {self.kind}'s `name` without any of ': , = /', "
                f"but got {name!r}."
            )
            raise ValueError(msg)
        origin = origin_of(function)
        if self._made_by.get(name, origin) != origin:
            msg = (
                f"Expected `name` to be free, but got {name!r}, which is the "
                f"{self.kind} {self._made_by[name]}; choose another name, or call "
                f"unregister({name!r}) first."
            )
            raise ValueError(msg)
        self._made_by[name] = origin
        self._entries[name] = function if entry is None else entry  # type: ignore[assignment]

    def unregister(self, name: str) -> None:
        """Forget a name."""
        self.get(name)
        del self._entries[name], self._made_by[name]


def origin_of(function: Callable[..., Any]) -> str:
    """Return where a function or class was written: module and qualified name."""
    written = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', type(function).__module__)}.{written}"
