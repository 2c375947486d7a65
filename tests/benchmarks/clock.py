"""One clock for all tables: CPU time on one thread, wall time on several.

CPU time of one thread repeats on a busy machine; what several threads save, only the
wall clock sees, and only on a machine without other work.
"""

import argparse
import platform
import time
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

_threads = 1


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark be asked for more than one thread."""
    text = "1: CPU time; more: wall time (a machine without other work)"
    parser.add_argument("--threads", type=int, default=1, help=text)


def use(threads: int) -> None:
    """Give torch and every BLAS so many threads from here on, and choose the clock."""
    global _threads
    _threads = threads
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def now() -> float:
    """Return seconds of the chosen clock."""
    return time.process_time() if _threads == 1 else time.perf_counter()


def words() -> str:
    """Return what the seconds are."""
    return "CPU s, one thread" if _threads == 1 else f"wall s, {_threads} threads"


def processor() -> str:
    """Return the processor's name."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()
