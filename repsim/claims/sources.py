"""What decides a claim's number: hashes of rules and data by name.

What a process has loaded is hashed beside a user's files, which may have been edited
since.
"""

import inspect
import sys
from functools import cache, partial
from hashlib import sha256
from types import ModuleType
from typing import Any

from repsim import learning, networks, training
from repsim.core.code_hashes import (
    is_users,
    loaded,
    loaded_module,
    source_files,
    source_hash,
)
from repsim.datasets.inputs.loading import own_loader, own_names
from repsim.learning.factory import rules

code = cache(source_hash)


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
    seen: dict[int, Any] = {}
    parts = [name, *loaded(registered, seen)]
    modules: list[ModuleType] = [learning, networks, training]
    for kind in kinds:
        home = kind.__module__
        modules += [sys.modules[home]] if home in sys.modules else []
    for path, module_name in sorted(source_files(modules).items()):
        if is_users(module_name) and module_name in sys.modules:
            parts += [path, *loaded_module(sys.modules[module_name], seen)]
    return sha256("\n".join([*parts, code(*modules)]).encode()).hexdigest()[:12]


def data_code(name: str) -> str:
    """Return a hash of what a user's data set is loaded by; nothing of what ships."""
    if name not in own_names():
        return ""
    loader = own_loader(name)
    home = sys.modules.get(loader.__module__)
    parts = [*loaded(loader, {}), code(home) if home is not None else ""]
    return sha256("\n".join(parts).encode()).hexdigest()[:12]


def look_again() -> None:
    """Forget hashes: files may have changed since this process looked at them."""
    for known in (_rule_code, code):
        known.cache_clear()
