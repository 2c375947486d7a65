"""What a folder of this machine and a prefix of an object store do in different ways.

A place is a `pathlib.Path`, or, elsewhere, a `upath.UPath`: the same interface over
fsspec. What differs is here alone: an object store has no renames, links, locks or
empty folders, but an object appears in it whole or not at all.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from repsim.core.files import write_whole

SCHEMES = ("memory", "s3", "s3a", "gs", "gcs", "az", "abfs")


def is_elsewhere(path: Path) -> bool:
    """Whether a place lies in an object store, and not on this machine's disks."""
    return not isinstance(path, Path)


def place_elsewhere(url: str, options: Mapping[str, Any]) -> Path:
    """Return the place that a URL names, its file system opened."""
    try:
        from upath import UPath
    except ImportError as error:
        msg = (
            f"Expected fsspec and universal_pathlib for {url}, but they cannot be "
            "imported; run `pip install repsim-toolkit[cloud]`."
        )
        raise ImportError(msg) from error
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        msg = (
            f"Expected a path, or an address that begins with one of "
            f"{', '.join(f'{s}://' for s in SCHEMES)}, but got {url!r}."
        )
        raise ValueError(msg)
    # A list of what lay there a minute ago would hide what others have written since.
    kept = {} if scheme == "memory" else {"use_listings_cache": False}
    try:
        path = UPath(url, **{**kept, **options})
        _ = path.fs
    except ImportError as error:
        msg = (
            f"Expected what fsspec needs for {scheme}://, but it cannot be imported "
            f"({error}); run `pip install repsim-toolkit[cloud]`."
        )
        raise ImportError(msg) from error
    except (TypeError, ValueError) as error:
        msg = (
            f"Expected `storage_options` that fsspec takes for {scheme}://, but got "
            f"{sorted(options)} ({error})."
        )
        raise ValueError(msg) from error
    return cast(Path, path)


def put(path: Path, data: bytes) -> None:
    """Write a file or an object; elsewhere it appears whole."""
    if is_elsewhere(path):
        path.fs.pipe_file(path.path, data)  # type: ignore[attr-defined]
    else:
        path.write_bytes(data)


def put_whole(path: Path, data: bytes) -> None:
    """Write a file so that others see the old content or the new, never a part."""
    if is_elsewhere(path):
        put(path, data)
    else:
        write_whole(path, data)


def put_new(path: Path, data: bytes) -> None:
    """Write an object of an object store unless there is one."""
    fs, where = path.fs, path.path  # type: ignore[attr-defined]
    try:
        fs.pipe_file(where, data, mode="create")
    except FileExistsError:
        pass
    except (NotImplementedError, TypeError, ValueError):  # not all know conditions
        if not path.exists():
            fs.pipe_file(where, data)


def make_folder(path: Path) -> None:
    """Make a folder; an object store has none."""
    if not is_elsewhere(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_tree(path: Path, *, missing_ok: bool = False) -> None:
    """Remove a folder, or all objects below a prefix."""
    if not is_elsewhere(path):
        shutil.rmtree(path, ignore_errors=missing_ok)
    elif path.exists():
        path.fs.rm(path.path, recursive=True)  # type: ignore[attr-defined]


def fetch(path: Path, most: int | None = None) -> bytes:
    """Return what a file or object holds, or its first so many bytes."""
    if is_elsewhere(path):
        fs, where = path.fs, path.path  # type: ignore[attr-defined]
        span = {} if most is None else {"start": 0, "end": most}
        return bytes(fs.cat_file(where, **span))
    expect_file(path)
    if most is None:
        return path.read_bytes()
    with path.open("rb") as opened:  # `read` makes room for all that it is asked for
        return opened.read(min(most, os.fstat(opened.fileno()).st_size))


def expect_file(path: str | Path) -> None:
    """Raise where a path leads to a pipe or a device, which have no end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{os.path.basename(path)} is a pipe or a device, no file")


def reader_of(
    folder: Path, *, missing_ok: bool = False
) -> Callable[[str], bytes | None]:
    """Return what reads the files of a folder by name, many of them; None for none.

    Without a `Path` for each, which costs as much as reading a small file does.
    """
    place, elsewhere = str(folder), is_elsewhere(folder)

    def read(name: str) -> bytes | None:
        try:
            if elsewhere:
                return fetch(folder / name)
            with open(f"{place}{os.sep}{name}", "rb", buffering=0) as opened:
                return opened.readall()
        except FileNotFoundError:
            if missing_ok:
                return None
            raise

    return read


def remove_files(folder: Path, prefix: str) -> None:
    """Remove the files of a folder whose names begin so."""
    if is_elsewhere(folder):
        for path in folder.glob(f"{prefix}*"):
            path.unlink()
        return
    for name in os.listdir(folder):
        if name.startswith(prefix):
            os.unlink(f"{folder}{os.sep}{name}")


def head_of(path: Path, length: int) -> bytes | None:
    """Return the first bytes of a file or object, or None where there is none."""
    try:
        return fetch(path, length)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        if not is_elsewhere(path) or path.stat().st_size:
            raise
        return b""  # S3 finds no range in nothing


def stamp(path: Path) -> tuple[Any, ...]:
    """Return what changes when a file or object is replaced."""
    if is_elsewhere(path):
        return (path.fs.ukey(path.path),)  # type: ignore[attr-defined]
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns


def for_zarr(path: Path) -> Any:
    """Return what zarr opens: a path as text, or a store."""
    if not is_elsewhere(path):
        return str(path)
    from zarr.storage import FsspecStore

    options = dict(path.storage_options)  # type: ignore[attr-defined]
    return FsspecStore.from_url(str(path), storage_options=options)


def is_file(path: Path) -> bool:
    """Whether there is a file or object; elsewhere an OSError where nobody answers."""
    if not is_elsewhere(path):
        return path.is_file()
    with reaching(path):
        try:  # `path.is_file()` would say no to every error
            path.stat()
        except FileNotFoundError:
            return False
    return True


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Say in one sentence that an object store cannot be reached, or may not be."""
    try:
        yield
    except TypeError as error:
        # Of some file systems options reach what takes them at the first request.
        if not is_elsewhere(path) or "unexpected keyword argument" not in str(error):
            raise
        msg = f"Expected `storage_options` that {path} takes, but got others ({error})."
        raise ValueError(msg) from error
    except (FileNotFoundError, FileExistsError, ValueError, ImportError):
        raise
    except Exception as error:
        # PermissionError, and what botocore, aiohttp and google.auth raise.
        if not is_elsewhere(path):
            raise
        msg = (
            f"Expected to reach {path}, but got {type(error).__name__}: {error}; "
            "check the address, `storage_options` and your credentials."
        )
        raise OSError(msg) from error


def told(path: Path, job: Callable[[], None]) -> Callable[[], None]:
    """Return a job whose failure is an OSError, whatever an object store raises."""
    if not is_elsewhere(path):
        return job

    def run() -> None:
        try:
            job()
        except (OSError, ValueError):
            raise
        except Exception as error:  # of botocore, aiohttp, google.auth: no OSErrors
            raise OSError(f"{type(error).__name__}: {error}") from error

    return run
