"""A signal that asks for a stop is heeded wherever it comes."""

import os
import signal
import sys
import time
import weakref

import pytest

from distill.errors import Stopped
from distill.signals import SIGNALS, stoppable


class Thing:
    """Something to refer to."""


class Dying:
    """Sends a signal while it is taken away."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        _ask(self.number)


def _ask(number: int) -> None:
    os.kill(os.getpid(), number)
    for _ in range(1000):
        time.sleep(0)  # here at the latest Python runs the handler


def _wait() -> None:
    time.sleep(5)


@pytest.mark.parametrize("number", SIGNALS)
def test_one_that_comes_in_the_callback_of_a_weak_reference_is_raised_after_it(number):
    thing = Thing()
    reference = weakref.ref(thing, lambda _: _ask(number))
    with pytest.raises(Stopped) as stopped, stoppable():
        del thing
        _wait()
    assert stopped.value.signal == number and reference() is None


def test_one_that_comes_in_a_finaliser_is_raised_after_it():
    with pytest.raises(Stopped), stoppable():
        dying = Dying(signal.SIGTERM)
        del dying
        _wait()


def test_what_else_goes_wrong_there_is_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    thing = Thing()
    reference = weakref.ref(thing, lambda _: 1 / 0)
    with stoppable():
        del thing
    assert reference() is None and [type(found.exc_value) for found in told] == [ZeroDivisionError]
    assert sys.unraisablehook == told.append
