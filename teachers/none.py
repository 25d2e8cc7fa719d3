"""No teacher: fine-tuning on gold labels is distillation without one."""

import torch

from distill.protocols import Teacher
from distill.types import Batch, Needs, Outputs


class NoTeacher(Teacher):
    """Offers nothing and is asked for nothing."""

    shape = None
    offers = Needs()
    fingerprint = "none"

    def __call__(self, batch: Batch, needs: Needs) -> Outputs:
        """Return nothing."""
        return Outputs()

    def to(self, device: torch.device) -> None:
        """Stay where it is."""

    def describe(self) -> str:
        """Say that there is none."""
        return "no teacher"
