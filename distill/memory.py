"""The memory of a device: how much of it is in use, and what a process keeps back."""

import ctypes
import platform
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

_M_MMAP_THRESHOLD = -3
_SMALL, _USUAL = 1 << 20, 32 << 20
_SPARE = 256 << 20
"""What may lie in holes anyway."""
_REST = 60.0
"""Seconds between two times that holes are given back."""
_MAPS = Path("/proc/self/maps")
_SIZES = Path("/proc/self/statm")
_WEIGHTS = ".safetensors"


class _Mallinfo2(ctypes.Structure):
    """What glibc tells of its heaps, in bytes (mallinfo(3))."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def in_use(device: torch.device) -> int | None:
    """Return the bytes in use of a device: what torch gave out of a GPU; of a process, blocks that the C library gave
    out and has not got back, and weights that are read through a map of their file; none where the system does not
    tell. What is kept for later does not count: holes of the heap, code.
    """
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    blocks = _blocks()
    return None if blocks is None else blocks + _mapped()


class Highest:
    """Finds the most bytes that are in use of a device while it is open.

    On a GPU torch counts them. Of a process a thread looks every 2 ms, or more rarely where to look takes long, so that
    looking takes at most 1 % of a core; weights are mapped before.
    """

    PAUSE = 0.002
    SHARE = 100

    def __init__(self, device: torch.device) -> None:
        """Look at nothing yet."""
        self._device = device
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="highest", daemon=True)
        self._mapped = 0
        self.bytes: int | None = None
        """The most bytes that were in use; none where the system does not tell."""

    def __enter__(self) -> Self:
        """Begin to look."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._mapped = _mapped()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End looking."""
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self._over.set()
            self._thread.join()

    def _look(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            began = time.perf_counter()
            blocks = _blocks()
            if blocks is None:
                return
            self.bytes = max(self.bytes or 0, blocks + self._mapped)
            pause = max(self.PAUSE, self.SHARE * (time.perf_counter() - began))


def _blocks() -> int | None:
    ask = _mallinfo2()
    if ask is None:
        return None
    found = ask()
    return int(found.uordblks + found.hblkhd)


@cache
def _mallinfo2() -> Any:
    """Return glibc's function; none elsewhere, and where another allocator stands before glibc's."""
    if platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        return None
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes, libc.mallinfo2.restype = [ctypes.c_void_p], _Mallinfo2
    before = libc.mallinfo2()
    block = libc.malloc(2 * _USUAL)
    after = libc.mallinfo2()
    libc.free(block)
    return libc.mallinfo2 if after.hblkhd - before.hblkhd >= 2 * _USUAL else None


def _mapped() -> int:
    if not _MAPS.is_file():
        return 0
    ranges = [line.split(maxsplit=1)[0] for line in _MAPS.read_text(encoding="utf-8").splitlines() if _WEIGHTS in line]
    ends = [tuple(int(end, 16) for end in each.split("-")) for each in ranges]
    return sum(last - first for first, last in ends)


@contextmanager
def few_holes() -> Iterator[None]:
    """Give back the holes of the heap where they take half as much as has been in use inside, once a minute at most,
    where the C library is glibc.

    Rows of many lengths leave holes of as many sizes, and the heap grows for as long as a training lasts: it stood at
    9.7 GB after 1,200 steps that had 2.6 in use at most. Pages that are given back have to be found again: each second,
    that took a training an eighth of its time.
    """
    if _mallinfo2() is None:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_fill_holes, args=(over,), name="holes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _fill_holes(over: threading.Event) -> None:
    highest, pause = 0, 1.0
    while not over.wait(pause):
        used = _blocks() or 0
        highest, pause = max(highest, used), 1.0
        if _private() - used > highest / 2 + _SPARE:
            give_back()
            pause = _REST


def _private() -> int:
    """Return the bytes of memory that are this process's alone: of its heaps and of what it mapped without a file."""
    _, resident, shared, *_ = map(int, _SIZES.read_text(encoding="ascii").split())
    return (resident - shared) * resource.getpagesize()


def give_back() -> None:
    """Give freed memory that glibc keeps for later back to the system."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def given_back() -> Iterator[None]:
    """Let memory that is freed inside go back to the system at once, where the C library is glibc.

    glibc learns from the first large blocks that are freed to keep later ones for itself, up to 32 MiB each: a model
    that is loaded a weight at a time and dealt out leaves a heap as large as the whole model behind, and a training one
    up to twice as large as all it holds (LoRA on 25 M weights: 788 MB for 411): moments are made in the holes of the
    first step's activations, and so on. The page faults cost a training some 2 to 4 % of its time. Afterwards the
    limit is the 32 MiB it comes to by itself.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _SMALL)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _USUAL)
        libc.malloc_trim(0)
