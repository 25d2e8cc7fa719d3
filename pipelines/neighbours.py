"""The processes of a start that are on this host: a thread can see that one is dead where the main thread, waiting for
it inside of NCCL, is only told by a time-out.
"""

import platform
import time
from collections.abc import Callable

from pipelines.blame import Word
from pipelines.processes import lives, space

LOOK = 5.0
"""Seconds between two looks for processes that are not known yet."""


class Neighbours:
    """Knows processes by the word they leave, from the moment they were seen alive."""

    def __init__(self, rank: int, world: int, word: Callable[[int], Word | None]) -> None:
        """Know none yet; `word` reads what a rank said last."""
        self._unknown = set(range(world)) - {rank}
        self._word = word
        self._numbers: dict[int, int] = {}
        self._missed: set[int] = set()
        self._looked = -LOOK

    def missing(self) -> bool:
        """Whether one died without a word. Asked twice before it is believed: its last word may be on its way."""
        self._look()
        dead = {rank for rank, number in self._numbers.items() if not lives(number)}
        for rank in dead:
            word = self._word(rank)
            if word is None or word.state == "ended":
                del self._numbers[rank]
            elif word.process != self._numbers[rank]:  # it was somebody else's number, of an earlier start
                del self._numbers[rank]
                self._unknown.add(rank)
        missed, self._missed = self._missed, dead & self._numbers.keys()
        return bool(missed & self._missed)

    def _look(self) -> None:
        """Get to know those who have come. The word of a dead one may be of an earlier start: it is passed over."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        for rank in sorted(self._unknown):
            word = self._word(rank)
            if word is None or word.state == "ended":
                continue
            if (word.host, word.space) != (platform.node(), space()):
                self._unknown.discard(rank)
            elif lives(word.process):
                self._unknown.discard(rank)
                self._numbers[rank] = word.process
