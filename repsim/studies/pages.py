"""The one writer of HTML: pages that need no other file, in one frame."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from repsim.studies.choosing import chart, vega

_KINDS = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".csv": "text/csv",
}
_EMBEDDED = 60_000
"""Bytes of a table up to which it travels in the page."""


def page(template: str, *, package: str = "repsim.studies", **content: Any) -> str:
    """Return a page from a template in `templates/` of a package.

    The template extends ``frame.html``, which is found whatever the package, and has
    the filters ``picture`` (a path as a data URI), ``small`` (so, if it is small),
    ``text`` (a value as words) and ``chart`` (heat maps to choose from, drawn by what
    ``vega()`` returns).
    """
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=ChoiceLoader(
            [PackageLoader(name) for name in dict.fromkeys((package, "repsim.studies"))]
        ),
    )
    environment.filters |= {"picture": picture, "text": as_text, "small": small}
    environment.filters["chart"] = chart
    environment.globals["vega"] = vega
    return environment.get_template(template).render(**content)


def small(path: str | Path) -> str:
    """Return a file as a data URI if it is small, else its place beside the page."""
    path = Path(path)
    if path.is_file() and path.stat().st_size <= _EMBEDDED:
        return picture(path)
    return f"{path.parent.name}/{path.name}"


def picture(path: str | Path) -> str:
    """Return a picture's file as a data URI."""
    path = Path(path)
    data = base64.b64encode(path.read_bytes()).decode()
    return f"data:{_KINDS[path.suffix.lower()]};base64,{data}"


def as_text(value: Any) -> str:
    """Return a number, a truth or a list as a reader wants it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    if isinstance(value, list | tuple):
        return ", ".join(as_text(v) for v in value)
    return str(value)
