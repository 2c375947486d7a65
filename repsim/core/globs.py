"""Names chosen by patterns, in one language for modules and for recorded layers."""

import re
from collections.abc import Iterable, Sequence


def glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob over dotted paths: `*` ends at a dot, `**` does not."""
    parts = re.split(r"(\*\*\.|\*\*|\*|\?|\[[^\]]+\])", pattern)
    special = {"**.": r"(?:.*\.)?", "**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    return re.compile(
        "".join(
            special.get(p) or (_choice(p) if p.startswith("[") else re.escape(p))
            for p in parts
        )
    )


def _choice(part: str) -> str:
    """Return a choice of characters, `[abc]` or `[!abc]`, as an expression has it."""
    if len(part) < 3 or not part.endswith("]"):
        return re.escape(part)
    body = part[1:-1].replace("\\", r"\\")
    return f"[{'^' + body[1:] if body.startswith('!') else body}]"


def chosen(
    patterns: Iterable[str], names: Sequence[str]
) -> tuple[list[str], str | None]:
    """Return the names that patterns choose, and the first pattern without a match.

    A name is itself before it is a pattern. Names keep the order of the patterns, those
    of one pattern their own. `!` leaves out what comes behind it.
    """
    found: list[str] = []
    asked = list(patterns)
    wanted = [p for p in asked if not p.startswith("!") or p in names]
    for pattern in wanted or ["**"]:
        matches = matching(pattern, names)
        if not matches:
            return [], pattern
        # A name given twice stays twice, as in xarray; a pattern adds what is new.
        found += [n for n in matches if n == pattern or n not in found]
    for pattern in asked:
        if pattern not in wanted:
            out = matching(pattern[1:], names)
            if not out:
                return [], pattern
            found = [name for name in found if name not in out]
    return found, None if found else " ".join(asked)


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the name of that very text, else those that the pattern matches."""
    if pattern in names:
        return [pattern]
    expression = glob(pattern)
    return [name for name in names if expression.fullmatch(name)]
