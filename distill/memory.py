"""The memory of this process."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_M_MMAP_THRESHOLD = -3
_SMALL, _USUAL = 1 << 20, 32 << 20


@contextmanager
def given_back() -> Iterator[None]:
    """Let memory that is freed inside go back to the system at once, where the C library is glibc.

    glibc learns from the first large blocks that are freed to keep later ones for itself, up to 32 MiB each: a model
    that is loaded a weight at a time and dealt out leaves a heap as large as the whole model behind. Afterwards the
    limit is the 32 MiB it comes to by itself: blocks that come and go in every step must not cost page faults.
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
