"""How long processes wait for each other, and what errors say of those that do not answer."""

from datetime import timedelta

import torch.distributed as dist

from distill.errors import PeerLost

MARGIN = 60.0
"""Seconds by which a group on GPUs outlives the watch over its processes."""


def is_of_others(error: BaseException) -> bool:
    """Whether an error only says that another process does not answer; gloo knows no type for it."""
    words = ("gloo/transport", "caused pair closure", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, dist.DistError | PeerLost) or any(word in str(error) for word in words)


def how(error: BaseException) -> str:
    """Return what such an error says: all waited for each other in a collective (`timeout`), one left a call
    `unanswered`, or is `gone`.
    """
    if not any(word in str(error) for word in ("imed out", "Application timeout")):
        return "gone"
    return "unanswered" if isinstance(error, PeerLost) else "timeout"


def patience(seconds: float, *, gpu: bool) -> timedelta:
    """Return the time-out of a group of processes. Gloo raises an error then. NCCL ends the process, without a word of
    whom it waited for: there the watch over all processes, whose time-out it is, has to come first.
    """
    return timedelta(seconds=seconds + (MARGIN if gpu else 0.0))
