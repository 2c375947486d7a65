"""Switches of the process are given back, whoever leaves first."""

from collections.abc import Iterator
from contextlib import contextmanager

from repsim.core.switches import Shared


def test_the_last_one_out_gives_it_back() -> None:
    told = []

    @contextmanager
    def turned() -> Iterator[None]:
        told.append("on")
        yield
        told.append("off")

    switch = Shared(turned)
    for _ in range(2):
        switch.__enter__()
        switch.__enter__()
        switch.__exit__()
        assert told == ["on"]
        switch.__exit__()
        assert told == ["on", "off"]
        told.clear()
