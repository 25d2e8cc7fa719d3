"""A thread that stands still is told from one that works, waits for what it started, or was suspended."""

import subprocess
import sys
import threading
import time

import pytest

from pipelines.stillness import GAP, Stillness

SECONDS = 1.0


def _looks(stillness: Stillness, seconds: float = 2.5 * SECONDS) -> bool:
    """Look often for a while; return whether the thread stood still."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if stillness.lasts(time.monotonic()):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def waiting():
    """A thread that waits."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield thread
    over.set()
    thread.join()


def _number(thread: threading.Thread) -> int:
    assert thread.ident is not None
    return thread.ident


def test_a_thread_that_waits_for_nothing_stands_still(waiting):
    began = time.monotonic()
    assert _looks(Stillness(_number(waiting), SECONDS))
    assert time.monotonic() - began >= SECONDS


def test_one_that_waits_for_a_process_that_works_does_not(waiting):
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            assert not _looks(Stillness(_number(waiting), SECONDS))
        finally:
            child.kill()


def test_one_that_goes_from_place_to_place_does_not():
    over = threading.Event()

    def wander() -> None:
        while not over.wait(0.2):
            time.sleep(0.2)

    thread = threading.Thread(target=wander)
    thread.start()
    assert not _looks(Stillness(_number(thread), SECONDS))
    over.set()
    thread.join()


def test_one_that_says_it_waits_for_others_does_not(waiting):
    stillness, until = Stillness(_number(waiting), SECONDS), time.monotonic() + 2 * SECONDS
    while time.monotonic() < until:
        assert not stillness.lasts(time.monotonic())
        stillness.moved()
        time.sleep(0.05)


def test_one_that_was_suspended_has_its_time_again(waiting):
    stillness, now = Stillness(_number(waiting), SECONDS), time.monotonic()
    asked = [now, now + SECONDS / 2, now + 2 * GAP, now + 2 * GAP + SECONDS / 2, now + 2 * GAP + SECONDS]
    assert [stillness.lasts(when) for when in asked] == [False, False, False, False, True]
