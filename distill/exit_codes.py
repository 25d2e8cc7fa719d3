"""What a process of a run ends with; the table in docs/clusters.md is of these."""

import signal

FAILED = 1
REFUSED = 2
"""Something that is the user's to mend."""
STOPPED = 75
"""On SIGTERM or SIGUSR1; the same command goes on."""
INTERRUPTED = 130
"""By Ctrl-C; the same command goes on."""


def of_stop(number: int) -> int:
    """Return the exit code of a run that was stopped in order by a signal."""
    return INTERRUPTED if number == signal.SIGINT else STOPPED


def of_death(number: int) -> int:
    """Return what a shell calls the exit code of a process that a signal ended."""
    return 128 + number
