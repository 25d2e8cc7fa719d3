"""What lies behind an error that ends one of several processes: the user, other processes, or a fault of its own."""

from configs.errors import UserError
from distill.files import want_of_room
from distill.peers import is_of_others


def for_user(error: BaseException) -> str:
    """Return what the user is to mend, where that is why a process ends; else nothing."""
    if isinstance(error, UserError):
        return str(error)
    return "" if is_of_others(error) else want_of_room(error)
