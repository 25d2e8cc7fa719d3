"""Which processes of this machine live, as far as this one can see."""

from pathlib import Path

import psutil

_SPACE = Path("/proc/self/ns/pid")


def space() -> str:
    """Return the name of what numbers this process: containers of one host count their processes apart. Empty where the
    system knows nothing of the kind.
    """
    try:
        return str(_SPACE.readlink())
    except OSError:
        return ""


def lives(number: int) -> bool:
    """Whether a process of this space is there and not dead already, only not taken leave of by who started it."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # it is there, and not ours to look at
        return True
