"""What each part of a report was made of; nothing is computed or drawn here."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.analyses import sources
from repsim.core.files import (
    DOCUMENT,
    RUNS,
    SUMMARY,
    address_of_runs,
    is_address,
    local_folder,
)
from repsim.core.provenance import repsim_version
from repsim.studies.facts import Facts, study_facts

SECTIONS, TABLES, PAGE = "sections", "tables", "report.html"


def current_page(path: Path) -> Path | None:
    """Return a study's page where everything it shows is as it was made, else None."""
    store, out = places(path, None)
    facts = study_facts(store)
    marks = section_marks(facts)
    whole = all(kept(out, name, mark[1]) for name, mark in marks.items())
    return out / PAGE if whole and page_is(out, page_mark(out, marks)) else None


def section_marks(facts: Facts) -> dict[str, tuple[str, str]]:
    """Return what each result and each section depends on, by analysis."""
    return {name: _fingerprints(facts, source) for name, source in sources().items()}


def page_mark(out: Path, marks: dict[str, tuple[str, str]]) -> str:
    """Return what the page depends on."""
    return _digest(*(m for of in marks.values() for m in of), *_code(), _asked(out))


def places(
    path: str | Path,
    out: str | Path | None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Return the store of recordings, and the folder to write."""
    store, own = _store_of(path, storage_options)
    if out is not None:
        return store, local_folder(out, "out")
    if own is None:
        msg = (
            f"Expected `out`, a folder of this machine, for the report of {path}, but "
            "got none; name one (--out)."
        )
        raise ValueError(msg)
    return store, own


def _store_of(
    path: str | Path, storage_options: Mapping[str, Any] | None
) -> tuple[Path, Path | None]:
    """Return the store of recordings, and the folder that its report belongs into."""
    if is_address(path):
        from repsim.datasets.store.places import place_of

        path = place_of(str(path), storage_options)
        storage_options = None if not isinstance(path, Path) else storage_options
    elif isinstance(path, str):
        path = Path(path)
    own: Path | None = path if isinstance(path, Path) else None
    if own is None or storage_options or address_of_runs(own):
        from repsim.datasets.store.elsewhere import is_file
        from repsim.datasets.store.places import study_at

        store = study_at(path, storage_options)
        found = is_file(store / DOCUMENT)
    else:  # told without xarray
        inner = path / RUNS
        store = inner if (inner / DOCUMENT).is_file() else path
        found = (store / DOCUMENT).is_file()
        own = path if store == inner else path.with_name(f"{path.stem}_report")
    if not found:
        msg = (
            f"Expected a study at {path}, but found none; run `repsim study`, or name "
            "a store with recordings at /<condition>/<seed>."
        )
        raise FileNotFoundError(msg)
    return store, own


def _digest(*parts: str | bytes) -> str:
    """Return one digest of several."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode() if isinstance(part, str) else part)
        whole.update(b"\0")
    return whole.hexdigest()


def _fingerprints(facts: Facts, source: Path) -> tuple[str, str]:
    """Return what a result and what a section depends on."""
    code = source.read_bytes()
    result = _digest(facts.mark, repsim_version(), code)
    shared = sorted((source.parents[1] / "plot").glob("*.py"))
    shared += [source.parent / "_study.py"]
    return result, _digest(result, *(path.read_bytes() for path in shared))


def _code() -> list[bytes]:
    """Return the code that makes the page from its sections."""
    here = Path(__file__).parent
    pages = sorted(p for p in here.glob("templates/*") if p.is_file())
    return [p.read_bytes() for p in (*pages, here / "pages.py", here / "report.py")]


def _asked(out: Path) -> str:
    """Return what of study.json the page shows."""
    held = content(out)
    shown = ("spec", "versions", "learning_rates", "tuning")
    return json.dumps({k: held.get(k) for k in shown}, sort_keys=True)


def content(out: Path) -> dict[str, Any]:
    """Return study.json; nothing where there is none."""
    path = out / SUMMARY
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def kept(out: Path, name: str, mark: str) -> dict[str, Any] | None:
    """Return a section that the same things made, with its figures still there."""
    path = out / SECTIONS / f"{name}.json"
    if not path.is_file():
        return None
    section: dict[str, Any] = json.loads(path.read_text())
    files = [
        f[kind] for f in section["figures"] for kind in ("file", "narrow") if kind in f
    ]
    there = all((out / "figures" / file).is_file() for file in files)
    return section if section["fingerprint"] == mark and there else None


def page_is(out: Path, made: str) -> bool:
    """Return whether the page is the one that these things make."""
    path = out / SECTIONS / "page.txt"
    return (out / PAGE).is_file() and path.is_file() and path.read_text() == made
