"""Who says an error of the user's, of several processes that find it, and in which order they end."""

import signal
import sys
from contextlib import suppress
from time import sleep

from configs.errors import UserError
from distill.exit_codes import REFUSED
from pipelines.place import here, is_helper, is_started_by_us

HELPERS_WAIT, SPEAKERS_WAIT = 8.0, 3.0
"""Seconds"""


def let_rank_0_speak() -> None:
    """Wait, as one of several processes: rank 0 most likely finds the same, and whoever started all then ends them."""
    with suppress(UserError):
        if is_helper():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(REFUSED))
            sleep(HELPERS_WAIT)


def let_others_follow() -> None:
    """Wait, as rank 0 of processes that are not ours to end, until the others have found the same.

    A launcher ends all with the first. One that is ended while it starts has another exit code, which srun, if it is
    higher, takes for that of all.
    """
    with suppress(UserError):
        if here() is not None and not is_helper() and not is_started_by_us():
            sleep(SPEAKERS_WAIT)
