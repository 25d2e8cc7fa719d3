"""Errors that are the user's to mend; the command line prints them without a traceback and exits with 2."""

from configs.errors import UserError


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


class Stopped(Exception):
    """A training that was asked to stop and saved itself; the same command goes on with it."""

    def __init__(self, signal: int, step: int) -> None:
        """Say by which signal, and after which optimiser step."""
        super().__init__(f"stopped after step {step}; the same command goes on from there")
        self.signal = signal
