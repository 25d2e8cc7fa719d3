"""What lies behind an error that ends one of several processes: the user, other processes, or a fault of its own."""

import torch.distributed as dist

from configs.errors import UserError
from distill.errors import PeerLost
from distill.files import want_of_room


def for_user(error: BaseException) -> str:
    """Return what the user is to mend, where that is why a process ends; else nothing."""
    if isinstance(error, UserError):
        return str(error)
    return "" if is_of_others(error) else want_of_room(error)


def is_of_others(error: BaseException) -> bool:
    """Whether an error only says that another process does not answer; gloo knows no type for it."""
    words = ("gloo/transport", "caused pair closure", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, dist.DistError | PeerLost) or any(word in str(error) for word in words)


def timed_out(error: BaseException) -> bool:
    """Whether such an error says that the other was waited for."""
    return any(word in str(error) for word in ("imed out", "Application timeout"))
