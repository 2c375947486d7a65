"""Files on disk: where they lie, whether they are what they should be, fetching."""

import gzip
import hashlib
import logging
import os
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pooch

ROOT_VARIABLE = "REPSIM_DATA"
"""The environment variable that names the data folder where `root` is not given."""

TIMEOUT = 20
"""Seconds without an answer after which a mirror is given up."""


@cache
def registry() -> dict[str, dict[str, Any]]:
    """Return what is known of every data set that is fetched, by its name."""
    text = files("repsim.datasets.inputs").joinpath("registry.toml").read_text("utf-8")
    return tomllib.loads(text)


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds the data."""
    named = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not named:
        return Path(pooch.os_cache("repsim"))
    path = Path(named).expanduser()
    if not path.is_dir():
        msg = (
            f"Expected the data folder {str(path)!r} to exist, but it "
            f"{'is a file' if path.exists() else 'does not'}; create it, or name "
            f"another with root= or {ROOT_VARIABLE}."
        )
        raise FileNotFoundError(msg)
    return path


def at_hand(dataset: str, root: str | os.PathLike[str] | None = None) -> bool:
    """Return whether a data set's files lie on the disk, so that nothing is fetched."""
    entry = registry()[dataset]
    folder = data_root(root) / entry["folder"]
    return all(
        (folder / name).is_file() or (folder / name.removesuffix(".gz")).is_file()
        for name in entry["files"]
    )


def read(dataset: str, name: str, root: Path, entry: Mapping[str, Any]) -> bytes:
    """Return a file's content without gzip, once its hash has matched.

    An unpacked file (torchvision's layout) is taken first where its hash is
    known, then the packed one; a file that is missing is fetched into `root`.
    """
    known = entry["files"][name]
    folder = root / entry["folder"]
    unpacked = folder / name.removesuffix(".gz")
    if "unpacked_sha256" in known and unpacked.is_file():
        return _verified(unpacked, known["unpacked_sha256"])
    packed = folder / name
    if not packed.is_file():
        _fetch(dataset, packed, entry["mirrors"], known["sha256"])
    content = _verified(packed, known["sha256"])
    return content if name.endswith(".tar.gz") else gzip.decompress(content)


def _verified(path: Path, expected: str) -> bytes:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        msg = (
            f"Expected {path} to have sha256 {expected}, but got {digest}; the file is "
            "damaged or another one: delete it and load again."
        )
        raise ValueError(msg)
    return content


def _fetch(dataset: str, path: Path, mirrors: list[str], sha256: str) -> None:
    reasons = []
    for mirror in mirrors:
        try:
            _retrieve(mirror + path.name, path, sha256)
        # Whatever stops a download (no network, no server, no room, a wrong file
        # from a mirror), the user's way out is the same: put the file there.
        except (OSError, ValueError) as error:
            reasons.append(f"{mirror}: {type(error).__name__}")
        else:
            return
    msg = (
        f"Expected the file {path.name} of {dataset} at {path}, but it is not there "
        f"and could not be fetched ({'; '.join(reasons)}); put it there by hand, or "
        f"name the folder that has it with root= or {ROOT_VARIABLE}."
    )
    raise FileNotFoundError(msg)


def _retrieve(url: str, path: Path, sha256: str) -> None:
    made = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
    logger = pooch.get_logger()
    level = logger.level
    # pooch announces a download on stderr before it knows whether it will work;
    # the progress bar says the same once it does.
    logger.setLevel(logging.WARNING)
    try:
        pooch.retrieve(
            url=url,
            known_hash=f"sha256:{sha256}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(
                progressbar=sys.stderr.isatty(), timeout=TIMEOUT
            ),
        )
    finally:
        logger.setLevel(level)
        if not path.exists():
            for folder in made:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
