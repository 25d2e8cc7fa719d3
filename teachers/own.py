"""A teacher that is the student's own frozen model: its adapter is off while it teaches."""

import torch

from distill.protocols import Teacher, TrainedModel
from distill.types import Batch, Needs, Outputs, Shape


class OwnTeacher(Teacher):
    """The model inside a student's adapter; it takes no memory of its own."""

    def __init__(self, student: TrainedModel, shape: Shape, offers: Needs, fingerprint: str) -> None:
        """Take the student. `shape` and `offers` are the student's own: adapters change no sizes."""
        self._student = student
        self.shape = shape
        self.offers = offers
        self.fingerprint = fingerprint

    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Run the frozen model on a batch."""
        return self._student.frozen(batch, needs)

    def to(self, device: torch.device) -> None:
        """Stay with the student, which is moved by its training."""

    def describe(self) -> str:
        """Say what it is."""
        return "the student's own frozen model"
