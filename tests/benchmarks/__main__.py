"""Every table of `docs/performance.md`, at one thread and at the default threads.

    python -m tests.benchmarks --list
    python -m tests.benchmarks --into docs/performance.md --out benchmarks.json
    python -m tests.benchmarks --only rdms cka --threads 1
    python -m tests.benchmarks --short

Each table is made by a script of this folder in a process of its own, interleaved with
its named peers: at one thread by CPU time, at more by wall time, which means something
on a machine without other work only. `--out` keeps what was printed with machine,
versions and commit; `--into` writes each table between the marks of its name. `--short`
checks a few ratios with wide margins, in a minute; it is what CI runs. The exit status
is 1 if a script failed or a ratio of the short form is below its bound.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from repsim.claims.render import replaced
from repsim.core.provenance import versions

# Beside this file, also where Python is told not to look there.
sys.path.insert(0, str(Path(__file__).parent))

import clock

FOLDER = Path(__file__).parent
OUT = "OUT"
"""Stands for a file or folder that the script may keep what it needs in."""

TABLES: dict[str, list[str]] = {
    "cka": ["cka_pairs.py", "2000x50", "5000x512", "10000x512", "2000x4096",
            "--out", OUT],
    "rdms": ["rdm_speed.py", "--only", "rdms", "--n", "1000"],
    "rdms of 3,000": ["rdm_speed.py", "--only", "rdms", "--n", "3000",
                      "--layers", "1", "--repeats", "2"],
    "rdm sizes": ["rdm_speed.py", "--only", "sizes"],
    "rdm comparisons": ["rdm_speed.py", "--only", "comparisons", "--tau", "2"],
    "sketch": ["sketched.py"],
    "overlap": ["overlap.py", "--folder", OUT],
    "probes": ["probes.py", "--repeats", "3"],
    "steps": ["learning_steps.py"],
}  # fmt: skip
"""Name of a table -> the script that makes it at any number of threads."""

ONCE: dict[str, list[str]] = {
    "threads": ["threads.py", "--rounds", "9"],
    "recording": ["capture.py", "overhead"],
    "tokens": ["capture.py", "tokens"],
    "asynchronous": ["asynchronous.py"],
    "costs": ["costs.py"],
}
"""Tables whose scripts choose their threads themselves."""


def machine() -> dict[str, str | int | None]:
    """Return what the numbers depend on."""
    return {
        "processor": clock.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def commit() -> str:
    """Return the commit that is checked out, with a mark where files differ."""
    words = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def run(words: list[str], threads: int | None) -> tuple[int, str]:
    """Run a script, showing what it prints; return its status and that."""
    environment = dict(os.environ)
    environment.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        words = [*words, "--threads", str(threads)]
        environment["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        words = [str(Path(folder) / "kept.json") if w == OUT else w for w in words]
        command = [sys.executable, "-P", str(FOLDER / words[0]), *words[1:]]
        started = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert started.stdout is not None
        said = []
        for line in started.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            said.append(line)
        return started.wait(), "".join(said)


def plan(
    only: list[str], threads: list[int]
) -> list[tuple[str, list[str], int | None]]:
    """Return the runs that are asked for: title, script with options, threads."""

    def asked(name: str) -> bool:
        return not only or any(part in name for part in only)

    kinds = [(n, "one thread" if n == 1 else "default threads") for n in threads]
    several = [
        (f"{name}, {kind}", words, count)
        for name, words in TABLES.items()
        if asked(name)
        for count, kind in kinds
    ]
    return several + [
        (name, words, None) for name, words in ONCE.items() if asked(name)
    ]


def main() -> None:
    """Make the tables that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    most = cores or os.cpu_count() or 1
    parser.add_argument("--only", nargs="+", default=[], help="parts of tables' names")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, most}))
    parser.add_argument("--into", type=Path, help="a Markdown page")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--list", action="store_true", help="say what would be run")
    parser.add_argument("--short", action="store_true", help="ratios, in a minute")
    asked = parser.parse_args()
    if asked.short:
        counts = asked.threads if "--threads" in sys.argv else [1]
        sys.exit(max(run(["ratios.py"], count)[0] for count in counts))
    runs = plan(asked.only, asked.threads)
    if not runs:
        names = ", ".join([*TABLES, *ONCE])
        parser.error(f"expected --only to be parts of {names}; got {asked.only}")
    if asked.list:
        print("\n".join(f"{title}: {' '.join(words)}" for title, words, _ in runs))
        return
    made = {"machine": machine(), "versions": versions(), "commit": commit()}
    tables: dict[str, dict[str, str | int]] = {}
    for title, words, threads in runs:
        print(f"\n{title}: {' '.join(words)}", flush=True)
        began = time.time()
        status, text = run(words, threads)
        tables[title] = {"status": status, "text": text}
        tables[title]["seconds"] = round(time.time() - began)
        if asked.out:
            asked.out.write_text(json.dumps({**made, "tables": tables}, indent=1))
        if asked.into and not status:
            page = asked.into.read_text()
            asked.into.write_text(replaced(page, title, text))
    failed = [title for title, table in tables.items() if table["status"]]
    sys.exit(f"Expected these to end well: {', '.join(failed)}." if failed else 0)


if __name__ == "__main__":
    main()
