"""Work shared among threads is the work of one, and torch gets its threads back."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from repsim.core.threads import alone, calm, spread


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_each_item_is_done_once_by_threads_that_compute_alone(threads: int) -> None:
    done: list[int] = []
    counts: list[int] = []
    makers: list[int] = []

    def make() -> Callable[[int], None]:
        makers.append(threading.get_ident())

        def do(item: int) -> None:
            counts.append(torch.get_num_threads())
            done.append(item)

        return do

    spread(make, range(40))
    assert sorted(done) == list(range(40))
    assert set(counts) == {1}
    assert len(makers) == threads
    assert torch.get_num_threads() == threads


def test_within_alone_work_is_shared_as_outside(threads: int) -> None:
    makers: list[int] = []
    with alone(), alone():
        assert torch.get_num_threads() == 1
        spread(lambda: lambda item: makers.append(item), range(2))
    assert torch.get_num_threads() == threads
    assert sorted(makers) == [0, 1]


def test_an_error_of_any_item_is_raised_and_threads_are_given_back(
    threads: int,
) -> None:
    def fail(item: int) -> None:
        if item == 3:
            raise ValueError("the fourth one")

    with pytest.raises(ValueError, match="the fourth one"):
        spread(lambda: fail, range(8))
    assert torch.get_num_threads() == threads


def test_small_work_is_calm(threads: int) -> None:
    with calm(10):
        assert torch.get_num_threads() == 1
    with calm(1 << 20):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == threads
