"""Ctrl-C while something is under way that it must not cut in two."""

import os
import signal
from collections.abc import Iterator
from threading import Thread

import pytest

from repsim.core.interrupts import Interrupts, interrupted_later, not_for_children


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Let SIGINT raise, also where a shell in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_patient_block_notes_interrupts_and_is_not_cut_off() -> None:
    with Interrupts() as interrupts:
        interrupts.check()
        with interrupts.patient():
            _press()
            _press()  # torchrun's own, after the terminal's
            assert interrupts.pressed
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            _press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts, interrupted_later():
        _press()
    assert not interrupts.pressed
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_leaves_the_handler_alone() -> None:
    seen = []

    def work() -> None:
        with Interrupts(), interrupted_later():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_the_first_is_held_until_the_block_ends_the_second_is_not() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupted_later():
        _press()
        done.append("after the first")
    with pytest.raises(KeyboardInterrupt), interrupted_later():
        _press()
        _press()
        done.append("after the second")
    assert done == ["after the first"]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs masks")
def test_an_interrupt_while_children_start_comes_after() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), not_for_children():
        signal.raise_signal(signal.SIGINT)  # to this thread, whatever others there are
        done.append(True)
    assert done == [True]
