"""Every docstring that a user can reach, held to numpydoc: run by `tox -e lint`.

python -P tests/validate_docstrings.py
"""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from numpydoc.validate import validate

import repsim
from repsim import (
    callbacks,
    datasets,
    inference,
    learning,
    measures,
    networks,
    plot,
    probes,
)

ROOMS = (callbacks, datasets, inference, learning, measures, networks, plot, probes)

# Not asked for: extended summaries, See Also, sections in a fixed number of words; and
# types in the words that readers use ("Dataset, dims (layer)"), not as paths.
UNASKED = {
    "ES01",  # no extended summary
    "SA01",  # no See Also
    "SS06",  # summary longer than a line: ruff holds the lines' length
    "RT02",  # one unnamed return value per line of type: ours say dims there
    "RT03",  # return description: the type line says it ("Axes")
    "GL01",  # summary on the line after the quotes: we begin at once
    "GL02",  # closing quotes: ruff's D holds them
    "PR06",  # types written as in a library's reference
    "PR08",  # a description may begin with a symbol or a name
    "PR09",  # a description may end with a formula
    "YD01",
    "EX01",  # properties and trivial methods have no example
}


def reachable() -> Iterator[tuple[str, Any]]:
    """Yield name and object of all that a user can reach from the documentation."""
    seen: set[int] = set()
    for room in (repsim, *ROOMS):
        for name in sorted(getattr(room, "__all__", None) or vars(room)):
            thing = getattr(room, name)
            if name.startswith("_") or not callable(thing) or id(thing) in seen:
                continue
            if not str(getattr(thing, "__module__", "")).startswith("repsim"):
                continue
            seen.add(id(thing))
            path = f"{room.__name__}.{name}"
            yield path, thing
            if inspect.isclass(thing):
                for method, value in vars(thing).items():
                    ours = not method.startswith(("_", "on_"))  # on_…: a trainer's
                    if ours and callable(value):
                        yield f"{path}.{method}", value


def main() -> int:
    """Print what is wrong; return how many things are."""
    wrong = 0
    for path, thing in reachable():
        # A dataclass says under Attributes what its parameters are.
        unasked = UNASKED | ({"PR01"} if is_dataclass(thing) else set())
        for code, message in validate(path)["errors"]:
            if code not in unasked:
                wrong += 1
                sys.stdout.write(f"{path}: {code} {message}\n")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main()))
