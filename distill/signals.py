"""The signals that ask a run to stop, and who heeds them: trainings have a callback of their own."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from distill.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
AGAIN = 0.05
"""Seconds after which a stop is raised once more that came where Python drops whatever is raised."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the signals that ask for a stop raise Stopped outside of trainings: what is done is done, the rest is not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    dropped = sys.unraisablehook
    sys.unraisablehook = partial(_raise_later, dropped)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = dropped
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_later(others: Callable[["sys.UnraisableHookArgs"], Any], unraisable: "sys.UnraisableHookArgs") -> None:
    """Let no stop get lost that was raised in a finaliser or in the callback of a weak reference: Python prints what
    is raised there and goes on. `others` takes what else is.
    """
    if not isinstance(unraisable.exc_value, Stopped):
        others(unraisable)
        return
    number = unraisable.exc_value.signal
    signal.signal(signal.SIGALRM, lambda _, frame: stop(number, frame))
    signal.setitimer(signal.ITIMER_REAL, AGAIN)


class Remembered:
    """The first signal that asks for a stop, remembered and not heeded; a second of its kind acts at once."""

    def __init__(self) -> None:
        """Remember none yet."""
        self.number = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over the signals, and give them back."""
        before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, stop if number == signal.SIGINT else signal.SIG_DFL)


def deaf(worker: int) -> None:
    """Let a process that pads batches ignore signals: it gets those meant for the training, which needs it until the
    end of the step; when the training is gone, it ends by itself.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def stop(number: int, frame: FrameType | None) -> None:
    """Stop here. Handles a signal; raise Stopped."""
    raise Stopped(number)
