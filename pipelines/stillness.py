"""Whether a process stands still: the work of one alone, unlike a step of all, has no end that others could miss."""

import sys
from types import FrameType

import psutil

SHARE = 0.05
"""Of one processor: what a process that stands still may use, for its threads that watch and show progress."""
GAP = 10.0
"""Seconds between two looks after which a look begins anew: a process that was suspended did not stand still itself."""


class Stillness:
    """Looks at a thread, and at the time on processors of its process and of those that this one started."""

    def __init__(self, thread: int, seconds: float) -> None:
        """Look at a thread, by its number; `seconds` at one place, nearly without any work, are too long."""
        self._thread = thread
        self._seconds = seconds
        self._place: tuple[tuple[int, int], ...] = ()
        self._since = self._looked = 0.0
        self._half: tuple[float, float] | None = None
        """When half of the time was over, and the work done until then: to ask for it is dear on a busy host."""

    def moved(self) -> None:
        """Note that the thread does what it should, though it may look as if it did nothing: it waits for others."""
        self._place = ()

    def lasts(self, now: float) -> bool:
        """Whether the thread has been at one place, with nobody at work for it, for too long; to be asked often."""
        place, gap = _places(sys._current_frames().get(self._thread)), now - self._looked
        self._looked = now
        if place != self._place or gap > GAP:
            self._place, self._since, self._half = place, now, None
        if now - self._since < self._seconds / 2:
            return False
        if self._half is None:
            self._half = now, _work()
        began, worked = self._half
        if now - self._since < self._seconds or now == began:
            return False
        if abs(_work() - worked) < SHARE * (now - began):  # it sinks where a process that was started ends
            return True
        self._half = now, _work()
        self._since = now - self._seconds / 2
        return False


def _places(frame: FrameType | None) -> tuple[tuple[int, int], ...]:
    """Return which instruction of which function each frame of a stack is at."""
    found = []
    while frame is not None:
        found.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def _work() -> float:
    """Return the seconds on processors of this process and of those it started."""
    this = psutil.Process()
    total = 0.0
    for process in (this, *this.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it ends at this moment
            continue
        total += times.user + times.system
    return total
