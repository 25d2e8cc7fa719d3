"""The task's own loss on gold labels; rows without a label count nowhere."""

import torch.nn.functional as F
from torch import Tensor

from distill.losses.reduction import blank, same_shape, unmasked, upcast
from distill.protocols import LossTerm
from distill.types import IGNORED, Batch, Needs, Outputs


class Classification(LossTerm):
    """Sum over labelled rows of the cross entropy; smoothing moves that mass from the gold class to all classes."""

    name = "task"
    unit = "labelled"
    student_needs = Needs(logits=True)
    teacher_needs = Needs()

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over rows whose label is not −100."""
        logits = upcast(_logits(student))
        smoothing = self.label_smoothing
        return F.cross_entropy(
            logits, batch["labels"], reduction="sum", ignore_index=IGNORED, label_smoothing=smoothing
        )


class Generation(LossTerm):
    """Sum over target tokens of the cross entropy, logits [B U V]; with it alone, and a teacher's texts as targets, a
    student learns by sequence-level distillation (Kim and Rush 2016, section 3.2).

    Smoothing moves that mass from the target token to the whole vocabulary.
    """

    name = "task"
    unit = "targets"
    student_needs = Needs(logits=True)
    teacher_needs = Needs()

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over positions whose label is not −100."""
        labels = batch["labels"]
        places = unmasked(labels != IGNORED)
        logits, wanted = upcast(places.rows(_logits(student))), places.rows(labels[..., None]).squeeze(-1)
        smoothing = self.label_smoothing
        return F.cross_entropy(logits, wanted, reduction="sum", ignore_index=IGNORED, label_smoothing=smoothing)


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
