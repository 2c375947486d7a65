"""What code does: of source files with all they import, and of what is loaded.

Followed is what a user wrote, not what a package manager installs. Of what is loaded
byte code is hashed, not text: a notebook's function has it too, a comment does not
change it, and a file may have been edited since.
"""

import ast
import dis
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, cached_property, partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

OURS = "repsim"
INSTALLED = ("site-packages", "dist-packages", f"python3.{sys.version_info.minor}")
PLAIN = (
    bool, int, float, complex, str, bytes, range, slice, type(None), type(...),
    np.generic, np.dtype, torch.dtype, torch.device,
)  # fmt: skip
"""What `repr` says all of, the same in every process."""


def loaded_hash(thing: Any) -> str:
    """Return a hash of what a loaded function, class or object does.

    Of another version of Python it says nothing, whose byte code is another: it begins
    with the version.
    """
    text = "\n".join(loaded(thing, {}))
    return f"{sys.implementation.cache_tag}:{sha256(text.encode()).hexdigest()[:12]}"


def ships(thing: Any) -> bool:
    """Return whether something is ours."""
    return _is_ours(str(getattr(thing, "__module__", "")))


def source_hash(*modules: ModuleType) -> str:
    """Return a hash of modules' source files, and of all that they import."""
    paths = sorted(source_files(modules))
    return sha256("".join(_digest(*_stamp(p)) for p in paths).encode()).hexdigest()[:12]


def source_files(modules: Iterable[ModuleType]) -> dict[str, str]:
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


def is_users(name: str) -> bool:
    """Return whether a module is neither ours nor installed, file or not."""
    if name == "__main__":  # of `python -m` an installed file, of a notebook none
        return True
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


def loaded(thing: Any, seen: dict[int, Any]) -> Iterator[str]:
    """Yield what something loaded does or holds, and what it names in turn.

    `seen` keeps what was met: an address that is free again would be taken for it.
    """
    if isinstance(thing, PLAIN):
        yield repr(thing)
        return
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    if isinstance(thing, FunctionType):
        yield from _function(thing, seen)
    elif inspect.isclass(thing):
        yield from _class(thing, seen)
    elif isinstance(thing, ModuleType):
        yield thing.__name__
    elif (parts := _parts(thing)) is not None:
        for part in parts:
            yield from loaded(part, seen)
    elif isinstance(thing, dict) or _from(thing, "xarray", Mapping):
        by_name = {repr(key): thing[key] for key in thing if isinstance(key, PLAIN)}
        for name in sorted(by_name):
            yield f"{name} is"
            yield from loaded(by_name[name], seen)
    elif isinstance(thing, list | tuple):
        yield f"{len(thing)} in order"
        for one in thing:
            yield from loaded(one, seen)
    elif isinstance(thing, set | frozenset):
        plain = sorted(repr(one) for one in thing if isinstance(one, PLAIN))
        yield f"a set {plain}"
    else:
        yield from _object(thing, seen)


def loaded_module(module: ModuleType, seen: dict[int, Any]) -> Iterator[str]:
    """Yield what all does that a module defines itself."""
    for name, member in sorted(vars(module).items()):
        if getattr(member, "__module__", None) == module.__name__:
            yield name
            yield from loaded(member, seen)


def _parts(thing: Any) -> tuple[Any, ...] | None:
    """Return what a wrapper of functions wraps; None for what is no wrapper."""
    if isinstance(thing, partial):
        return (thing.func, thing.args, thing.keywords)
    if isinstance(thing, MethodType):
        return (thing.__func__, thing.__self__)
    if isinstance(thing, staticmethod | classmethod):
        return (thing.__func__,)
    if isinstance(thing, property):
        return (thing.fget, thing.fset)
    if isinstance(thing, cached_property):
        return (thing.func,)
    if is_users(type(thing).__module__):
        return None
    wrapped = inspect.getattr_static(thing, "__wrapped__", None)
    return None if wrapped is None else (wrapped,)  # functools.cache, for one


def _function(made: FunctionType, seen: dict[int, Any]) -> Iterator[str]:
    space = made.__globals__
    # Not `made.__module__`: a library's wrapper calls itself what it wraps.
    if is_users(str(space.get("__name__") or "")):
        codes = list(_codes(made.__code__))
        for code in codes:
            yield from _compiled(code, made.__doc__)
        listed = dict.fromkeys(name for code in codes for name in code.co_names)
        written = {name for code in codes for name in _written(code)}
        for name in listed:
            # What the code itself counts up, and what says where a file lies.
            if name in space and name not in written and not name.startswith("__"):
                yield name
                yield from _named(space[name], listed, seen)
        package = str(space.get("__package__") or "")
        for module in dict.fromkeys(m for c in codes for m in _inner(c, package)):
            yield from _named(module, listed, seen)
    else:
        yield _origin(made)
        if not hasattr(made, "__wrapped__"):
            return
        yield from loaded(made.__wrapped__, seen)
    yield from loaded(made.__defaults__, seen)
    yield from loaded(made.__kwdefaults__, seen)
    for cell in made.__closure__ or ():
        with suppress(ValueError):  # an empty one
            yield from loaded(cell.cell_contents, seen)


def _named(value: Any, names: Iterable[str], seen: dict[int, Any]) -> Iterator[str]:
    """Yield what a global is; of a user's module, what of it is named."""
    todo, passed = [value], set()
    while todo:
        one = todo.pop()
        if not isinstance(one, ModuleType):
            yield from loaded(one, seen)
            continue
        yield one.__name__
        if one.__name__ not in passed and is_users(one.__name__):
            passed.add(one.__name__)
            held = [n for n in names if n in vars(one) and not n.startswith("__")]
            todo += [vars(one)[n] for n in held]


def _class(kind: type, seen: dict[int, Any]) -> Iterator[str]:
    if not is_users(kind.__module__):
        yield _origin(kind)
        return
    for base in kind.__bases__:
        yield from loaded(base, seen)
    for name, member in sorted(vars(kind).items()):
        dunder = name.startswith("__") and name.endswith("__")
        # Not its text, its line or its attributes in some order.
        if not dunder or isinstance(member, FunctionType | staticmethod | classmethod):
            yield name
            yield from loaded(member, seen)


def _object(thing: Any, seen: dict[int, Any]) -> Iterator[str]:
    """Yield what an object holds: numbers, and what a user's own class keeps.

    Of a library's other objects it is the kind: their state may be of this process.
    """
    yield from loaded(type(thing), seen)
    if isinstance(thing, torch.Tensor):
        with suppress(RuntimeError, TypeError):  # sparse ones, and such
            flat = thing.detach().cpu().reshape(-1).contiguous()
            yield f"{tuple(thing.shape)} {thing.dtype}"
            yield sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()
    elif isinstance(thing, np.ndarray):
        yield f"{thing.shape} {thing.dtype}"
        held = repr(thing.tolist()).encode() if thing.dtype.hasobject else bytes(thing)
        yield sha256(held).hexdigest()
    elif _from(thing, "xarray") or _from(thing, "pandas"):
        yield from loaded(getattr(thing, "values", None), seen)
    elif isinstance(thing, torch.nn.Module) or (
        is_users(type(thing).__module__) and hasattr(thing, "__dict__")
    ):
        yield from loaded(vars(thing), seen)
    elif callable(thing):
        yield str(getattr(thing, "__qualname__", getattr(thing, "__name__", "")))


def _from(thing: Any, library: str, kind: type = object) -> bool:
    home = type(thing).__module__.partition(".")[0]
    return home == library and isinstance(thing, kind)


def _origin(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code and that of the functions in it."""
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _codes(value)


def _compiled(code: CodeType, doc: str | None) -> Iterator[str]:
    """Yield byte code with its constants, nothing that is an address or an order."""
    yield code.co_code.hex()
    yield repr(code.co_names)
    for value in code.co_consts:
        if not isinstance(value, CodeType) and not (doc and value == doc):
            ordered = isinstance(value, frozenset)
            yield repr(sorted(map(repr, value)) if ordered else value)


def _written(code: CodeType) -> Iterator[str]:
    """Yield names of globals that code sets."""
    for one in dis.get_instructions(code):
        if one.opname == "STORE_GLOBAL":
            yield str(one.argval)


def _inner(code: CodeType, package: str) -> Iterator[ModuleType]:
    """Yield a user's modules that code imports when it is called.

    They are imported here, or the first call would have another hash than the second.
    """
    steps = [s for s in dis.get_instructions(code) if s.opname != "EXTENDED_ARG"]
    for i, one in enumerate(steps):
        if one.opname != "IMPORT_NAME":
            continue
        name, level, wanted = one.argval, steps[i - 2].argval, steps[i - 1].argval
        with suppress(Exception):  # whatever a user's module raises: so will the call
            if level:
                name = importlib.util.resolve_name("." * level + name, package)
            for inner in (name, *(f"{name}.{part}" for part in wanted or ())):
                if not _is_ours(inner) and _follows(inner):
                    yield import_module(inner)
