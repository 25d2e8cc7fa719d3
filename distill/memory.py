"""The memory of this process."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_M_MMAP_THRESHOLD = -3
_SMALL, _USUAL = 1 << 20, 32 << 20


_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK = "5"
"""What the kernel wants to hear to forget the largest size a process had (proc(5))."""


def resident() -> int | None:
    """Return the bytes of this process that lie in memory now; none where the system does not tell."""
    return _told("VmRSS")


def highest() -> int | None:
    """Return the most bytes that lay in memory since `forget_highest`."""
    return _told("VmHWM")


def forget_highest() -> bool:
    """Begin to look for the highest anew, and say whether that is allowed."""
    with suppress(OSError):
        _FORGET.write_text(_PEAK, encoding="ascii")
        return True
    return False


def give_back() -> None:
    """Give freed memory that glibc keeps for later back to the system."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _told(name: str) -> int | None:
    if not _STATUS.is_file():
        return None
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


@contextmanager
def given_back() -> Iterator[None]:
    """Let memory that is freed inside go back to the system at once, where the C library is glibc.

    glibc learns from the first large blocks that are freed to keep later ones for itself, up to 32 MiB each: a model
    that is loaded a weight at a time and dealt out leaves a heap as large as the whole model behind, and a training one
    up to twice as large as all it holds (LoRA on 25 M weights: 788 MB for 411): moments are made in the holes of the
    first step's activations, and so on. The page faults cost a training some 2 % of its time. Afterwards the limit is
    the 32 MiB it comes to by itself.
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
