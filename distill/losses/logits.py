"""The logits term: class distributions of teacher and student."""

from typing import Protocol

from torch import Tensor

from distill.protocols import LossTerm
from distill.schedules import Value, value
from distill.types import Batch, Needs, Outputs


class Divergence(Protocol):
    """A function of `distill.losses.divergences`."""

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
        """Return one value per position [...] from logits [... V]."""


class Logits(LossTerm):
    """Sum over rows of a divergence between logits [B V]."""

    name = "logits"
    unit = "examples"
    student_needs = Needs(logits=True)
    teacher_needs = Needs(logits=True)

    def __init__(self, divergence: Divergence, temperature: Value) -> None:
        super().__init__()
        self.divergence = divergence
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over the rows, at the temperature of this point of the training."""
        if student.logits is None or teacher.logits is None:
            raise ValueError("logits: asked of both models, and one gave none")
        temperature = value(self.temperature, batch["progress"])
        return self.divergence(student.logits, teacher.logits, temperature=temperature).sum()
