"""What decides a number: hashes of code, of all it imports, and of rules by name.

Followed are our own modules and a user's, not those that a package manager installs.
What a process has loaded is hashed beside a user's files, which may have been edited
since.
"""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from repsim import learning, networks, training
from repsim.datasets.inputs.loading import own_loader, own_names
from repsim.learning.factory import rules

OURS = "repsim"
INSTALLED = ("site-packages", "dist-packages", f"python3.{sys.version_info.minor}")


def rule_code(name: str) -> str:
    """Return a hash of what a rule does, and of the rooms that every rule trains with.

    Its class with every class it inherits from, the modules they stand in and what
    these import. A rule that is mended under the same name, in the same folder, also in
    a helper's file, has another.
    """
    return _rule_code(name, rules.get(name))


@cache
def _rule_code(name: str, registered: Any) -> str:
    made = registered
    while isinstance(made, partial):
        made = made.func
    kinds = inspect.getmro(made) if inspect.isclass(made) else (made,)
    parts = [repr(registered) if isinstance(registered, partial) else name]
    modules: list[ModuleType] = [learning, networks, training]
    seen: set[int] = set()
    for kind in kinds:
        home = kind.__module__
        modules += [sys.modules[home]] if home in sys.modules else []
        if _is_users(home):
            parts += [kind.__qualname__, *_loaded(kind, seen)]
    for path, module_name in sorted(_closure(modules).items()):
        if _is_users(module_name) and module_name in sys.modules:
            parts += [path, *_loaded(sys.modules[module_name], seen)]
    return sha256("\n".join([*parts, code(*modules)]).encode()).hexdigest()[:12]


def data_code(name: str) -> str:
    """Return a hash of what a user's data set is loaded by; nothing of what ships."""
    if name not in own_names():
        return ""
    loader = own_loader(name)
    home = sys.modules.get(loader.__module__)
    parts = [*_loaded(loader, set()), code(home) if home is not None else ""]
    return sha256("\n".join(parts).encode()).hexdigest()[:12]


@cache
def code(*modules: ModuleType) -> str:
    """Return a hash of modules' source files, and of all that they import."""
    paths = sorted(_closure(modules))
    return sha256("".join(_digest(*_stamp(p)) for p in paths).encode()).hexdigest()[:12]


def look_again() -> None:
    """Forget hashes: files may have changed since this process looked at them."""
    for known in (_rule_code, code):
        known.cache_clear()


def _closure(modules: Iterable[ModuleType]) -> dict[str, str]:
    """Return file → name of modules and of what they import, ours and the user's."""
    found: dict[str, str] = {}
    todo = [module.__name__ for module in modules]
    while todo:
        name = todo.pop()
        path = _file(name)
        if path is None or path in found:
            continue
        found[path] = name
        todo += _imports(*_stamp(path), name)
    return found


def _file(name: str) -> str | None:
    """Return a module's source file, if it is one that is followed."""
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if module is None and _followed(name):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        path = None if spec is None else spec.origin
    if path is None or not path.endswith(".py") or not Path(path).is_file():
        return None
    installed = not _is_ours(name) and set(INSTALLED) & set(Path(path).parts)
    return None if installed else path


def _followed(name: str) -> bool:
    top = name.partition(".")[0]
    return top not in sys.stdlib_module_names or top == "__main__"


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == OURS


@cache
def _is_users(name: str) -> bool:
    """Return whether a module is neither ours nor installed, file or not."""
    path = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    installed = path is not None and bool(set(INSTALLED) & set(Path(path).parts))
    return not _is_ours(name) and _followed(name) and not installed


def _stamp(path: str) -> tuple[str, int, int]:
    about = Path(path).stat()
    return path, about.st_mtime_ns, about.st_size


@cache
def _digest(path: str, changed: int, size: int) -> str:
    return sha256(Path(path).read_bytes()).hexdigest()


@cache
def _imports(path: str, changed: int, size: int, name: str) -> tuple[str, ...]:
    """Return names of modules that a file may import."""
    package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(ast.parse(Path(path).read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:
                dots = "." * node.level + parent
                parent = importlib.util.resolve_name(dots, package)
            for alias in node.names:
                inner = f"{parent}.{alias.name}"
                names.append(inner if _follows(inner) else parent)
    return tuple(dict.fromkeys(name for name in names if _followed(name)))


def _follows(name: str) -> bool:
    """Return whether a dotted name is a module, and not something in one."""
    return _followed(name) and _file(name) is not None


def _loaded(kind: Any, seen: set[int]) -> Iterator[str]:
    """Yield what a loaded function, class or module does, and what it calls by name."""
    if isinstance(kind, partial):
        yield repr((kind.args, kind.keywords))
        kind = kind.func
    kind = inspect.unwrap(kind) if callable(kind) else kind
    if id(kind) in seen:
        return
    seen.add(id(kind))
    if isinstance(kind, FunctionType):
        yield from _compiled(kind.__code__)
        yield repr(kind.__defaults__)
        for cell in kind.__closure__ or ():
            yield from _named(cell.cell_contents, seen)
        for name in kind.__code__.co_names:
            yield from _named(kind.__globals__.get(name), seen)
    elif inspect.isclass(kind) or isinstance(kind, ModuleType):
        for name, member in sorted(vars(kind).items()):
            if isinstance(member, property):
                member = member.fget
            member = getattr(member, "__func__", member)
            home = kind if isinstance(kind, ModuleType) else None
            if home is None or getattr(member, "__module__", None) == home.__name__:
                yield name
                yield from _named(member, seen)


def _named(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield a constant, or what a user's function or class does."""
    if isinstance(value, bool | int | float | str | tuple | None):
        yield repr(value)
    elif callable(value) and not inspect.ismodule(value):
        if _is_users(str(getattr(value, "__module__", None) or "builtins")):
            yield from _loaded(value, seen)


def _compiled(made: CodeType) -> Iterator[str]:
    """Yield byte code with its constants, nothing that is an address or an order."""
    yield made.co_code.hex()
    yield repr(made.co_names)
    for value in made.co_consts:
        if isinstance(value, CodeType):
            yield from _compiled(value)
        else:
            ordered = isinstance(value, frozenset)
            yield repr(sorted(map(repr, value)) if ordered else value)
