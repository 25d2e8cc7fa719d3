"""What errors say of other processes."""

import torch.distributed as dist

from distill.errors import PeerLost


def is_of_others(error: BaseException) -> bool:
    """Whether an error only says that another process does not answer; gloo knows no type for it."""
    words = ("gloo/transport", "caused pair closure", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, dist.DistError | PeerLost) or any(word in str(error) for word in words)


def timed_out(error: BaseException) -> bool:
    """Whether such an error says that the other was waited for."""
    return any(word in str(error) for word in ("imed out", "Application timeout"))
