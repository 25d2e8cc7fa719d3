"""Work in parts that any number of processes share, whoever makes a part, however often they are killed.

What the parts are is a pure function of the work, so that no process has to ask another: any number of ranks or array
jobs may work on one folder, and another number may go on. Who makes a part holds a lock on it, which the system gives
back when its holder dies: a claim is never stale. Where a file system keeps no locks between hosts, workers begin at
different parts; two that meet write the same bytes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

CLAIMS = ".claims"
"""Folder of the locks, beside the parts."""
_POLL_SECONDS = 0.2
"""Between two looks at parts that others are making."""


@dataclass(frozen=True)
class Parts:
    """What there is to be made in a folder, by numbers from 0."""

    folder: Path
    count: int
    is_there: Callable[[int], bool]
    """Whether a part is there, whole and as it should be."""
    make: Callable[[int], object]
    """Makes a part, so that at any moment it is whole or not there."""


def share_out(
    parts: Parts,
    *,
    rank: int = 0,
    ranks: int = 1,
    progress: Callable[[int, int], None] | None = None,
    waiting: Callable[[], object] | None = None,
) -> None:
    """Have all parts made that are not there.

    A rank that is through with its own parts helps the others; what others are making it waits for, and takes over if
    they die. `progress` is told how many of how many parts are there; `waiting` is called before each wait.
    """
    wanted, there = list(_turn(parts.count, rank, ranks)), 0
    while wanted:
        held = []
        for number in wanted:
            if not _have(parts, number):
                held.append(number)
                continue
            there += 1
            if progress is not None:
                progress(there, parts.count)
        wanted = held
        if held:
            if waiting is not None:
                waiting()
            time.sleep(_POLL_SECONDS)


def _turn(count: int, rank: int, ranks: int) -> Iterator[int]:
    """Yield the parts in the order a rank takes them: its own, then those of the others, the last ones first."""
    own = range(rank, count, ranks)
    yield from own
    yield from (number for number in reversed(range(count)) if number not in own)


def _have(parts: Parts, number: int) -> bool:
    """Return whether a part is there, once it is made if nobody else is at it."""
    if parts.is_there(number):
        return True
    with _claim(parts.folder / CLAIMS / f"{number}.lock") as mine:
        if mine and not parts.is_there(number):  # whoever held the claim may just have made it
            parts.make(number)
    return mine


@contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """Hold a lock, and say so; say that it is not ours where somebody else holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
