"""The logits terms: what teacher and student expect, as distributions over classes or over the vocabulary."""

from typing import Protocol

from torch import Tensor

from distill.losses.reduction import blank, unmasked, weighed
from distill.losses.vocabulary import divergence_of_rows
from distill.protocols import LossTerm
from distill.schedules import Value, value
from distill.types import IGNORED, Batch, Needs, Outputs


class Divergence(Protocol):
    """A function of `distill.losses.divergences`."""

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
        """Return one value per position [...] from logits [... V]."""


class TopKDivergence(Protocol):
    """A function of `distill.losses.top_k`."""

    def __call__(self, student_logits: Tensor, indices: Tensor, log_probs: Tensor, *, temperature: float) -> Tensor:
        """Return one value per position [...] from logits [... V], indices and log-probabilities [... K]."""


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
        own, taught = _both(student, teacher)
        return self.divergence(own, taught, temperature=value(self.temperature, batch["progress"])).sum()


class TokenLogits(LossTerm):
    """Sum over target tokens of a divergence between logits [B U V]: word-level distillation (Kim and Rush 2016,
    section 3.1); of a tagging over words, of a masked language model over hidden tokens (Sanh et al. 2019), [B T V].
    They count by the weights of their rows, where these have any."""

    name = "logits"
    unit = "weighted_targets"
    student_needs = Needs(logits=True)
    teacher_needs = Needs(logits=True)

    def __init__(self, divergence: Divergence, temperature: Value, top_k: TopKDivergence | None = None) -> None:
        """Take a divergence, and the one in its place for a teacher that gives its K most likely tokens."""
        super().__init__()
        self.divergence = divergence
        self.temperature = temperature
        self.top_k = top_k

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over positions that have a target token, at the temperature of this point of the training."""
        places = unmasked(batch["labels"] != IGNORED)
        temperature = value(self.temperature, batch["progress"])
        if teacher.top_k is not None and student.logits is not None and self.top_k is not None:
            kept = (teacher.top_k.indices, teacher.top_k.log_probs)
            values = divergence_of_rows(self.top_k, student.logits, kept, places, temperature)
        else:
            own, taught = _both(student, teacher)
            values = divergence_of_rows(self.divergence, own, (taught,), places, temperature)
        return weighed(blank(values, places.keep), places, batch).sum()


def _both(student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    if student.logits is None or teacher.logits is None:
        raise ValueError("logits: asked of both models, and one gave none")
    return student.logits, teacher.logits
