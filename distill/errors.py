"""Errors that are the user's to mend; the command line prints them without a traceback and exits with 2."""

from configs.errors import UserError
from distill.exit_codes import FAILED


class UnmetNeeds(UserError):
    """An objective asks for what a teacher or student does not offer, or for layers that cannot be paired."""


class DataError(UserError):
    """Rows, columns or labels that are not as the run says."""


class ModelError(UserError):
    """A model, tokenizer or head that is missing or does not fit."""


class TeacherError(UserError):
    """A teacher behind an API that cannot be reached, refuses, or gives no text."""


class DeadLoss(UserError):
    """A loss term that is zero, constant, not a number or without gradient."""


class ResumeError(UserError):
    """A checkpoint that is damaged, or belongs to another run."""


class DiskError(UserError):
    """A disk that takes no more: it is full, or the user's part of it is."""


class Stopped(BaseException):
    """A run that was asked to stop, its training saved; the same command goes on with it.

    It is no Exception: it may be raised anywhere, and libraries that catch those would swallow it, or call it theirs.
    """

    def __init__(self, signal: int, step: int | None = None) -> None:
        """Say by which signal, and after which optimiser step; none outside of trainings."""
        after = "" if step is None else f" after step {step}"
        super().__init__(f"stopped{after}; the same command goes on from there")
        self.signal = signal


class RankError(Exception):
    """A distributed run that one of its processes ended; the text is empty where another process says it."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        """Say who did, and how to go on; leave with an exit code."""
        super().__init__(message)
        self.code = code


class PeerLost(Exception):
    """Another process that this one works with hung up, or does not answer."""
