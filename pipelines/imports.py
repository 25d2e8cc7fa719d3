"""Imports of many modules at once, as a start needs them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept() -> Iterator[None]:
    """Keep what is imported out of the search for garbage, now and later: modules stay.

    Looked through again and again while they come, they took a sixth of a process's start. What is garbage before they
    come is not kept with them.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
