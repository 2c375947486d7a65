"""What made a reproduction: settings, versions, and the commit."""

import json
import platform
import subprocess
import time
from dataclasses import asdict
from importlib.metadata import distribution, version
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch

from repsim.claims.settings import Settings


def about(settings: Settings, notes: list[str]) -> dict[str, Any]:
    """Return what is written to about.json."""
    return {
        "settings": asdict(settings),
        "notes": notes,
        "repsim_version": version("repsim"),
        "commit": _commit(),
        "torch_version": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _commit() -> str | None:
    """Return the commit the package was installed from, if it came from one.

    pip notes it for a package from a repository; for one from a folder (also an
    editable one) git is asked, and says with "+" that files have changed since.
    """
    origin = json.loads(distribution("repsim").read_text("direct_url.json") or "{}")
    if "vcs_info" in origin:
        return str(origin["vcs_info"]["commit_id"])
    if "dir_info" not in origin:
        return None
    folder = url2pathname(urlparse(origin["url"]).path)
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", folder, *words],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed)
