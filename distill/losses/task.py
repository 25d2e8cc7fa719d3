"""The task's own loss on gold labels; rows without a label count nowhere."""

from typing import Literal

from torch import Tensor

from distill.losses.reduction import blank, same_shape, unmasked, upcast, weighed
from distill.losses.vocabulary import gold_cross_entropy
from distill.protocols import LossTerm
from distill.types import IGNORED, Batch, Needs, Outputs


class CrossEntropy(LossTerm):
    """Sum over gold labels of the cross entropy: of rows or words with a class, of target or hidden tokens. With it
    alone, and a teacher's texts as targets, a student learns by sequence-level distillation (Kim and Rush 2016,
    section 3.2).

    Where rows of a generation have weights, their target tokens count by them: several texts of a teacher for one
    source are learnt from as its distribution. Smoothing moves that mass from the gold label to all of them.
    """

    name = "task"
    student_needs = Needs(logits=True)
    teacher_needs = Needs()

    def __init__(self, unit: Literal["labelled", "weighted_targets"], label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.unit = unit
        self.label_smoothing = label_smoothing

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over labels […] that are not −100, from logits [… V]."""
        places = unmasked(batch["labels"] != IGNORED)
        values = gold_cross_entropy(_logits(student), batch["labels"], places, self.label_smoothing)
        return weighed(values, places, batch).sum()


class Regression(LossTerm):
    """Sum over labelled rows of the squared error of the score."""

    name = "task"
    unit = "labelled"
    student_needs = Needs(logits=True)
    teacher_needs = Needs()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over rows whose label is not NaN; the student's logits are [B 1]."""
        labels = batch["labels"]
        scores = upcast(_logits(student))
        same_shape("scores and labels", scores, labels[:, None])
        return blank(scores.squeeze(1) - labels, ~labels.isnan()).square().sum()


def _logits(student: Outputs) -> Tensor:
    if student.logits is None:
        raise ValueError("task: logits were asked of the student, and it gave none")
    return student.logits
