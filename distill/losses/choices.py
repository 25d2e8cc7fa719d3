"""Losses about answers that are wrong, beside the right one (T-Few; Liu et al. 2022, section 3.2)."""

import math

import torch
from torch import Tensor

from distill.losses.reduction import unmasked, upcast
from distill.losses.vocabulary import gold_cross_entropy
from distill.protocols import LossTerm
from distill.types import IGNORED, Batch, Choices, Needs, Outputs


class Unlikelihood(LossTerm):
    """Sum over the tokens of wrong answers of −log(1 − p(token)) (Welleck et al. 2020).

    From the logits, 1 − p is what the other tokens have of the whole: neither it nor its gradient ends where p is 1.
    """

    name = "unlikelihood"
    unit = "wrong_tokens"
    student_needs = Needs(choices=True)
    teacher_needs = Needs()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over labels [C U] of the wrong answers that are not −100, from logits [C U V]."""
        logits = _wrong(student)
        if "choices" not in batch:
            return upcast(logits).sum()  # of nothing: 0, with a gradient of 0
        labels = batch["choices"]["labels"]
        places = unmasked(labels != IGNORED)
        scores, wrong = upcast(places.rows(logits)), places.rows(labels[..., None])
        others = scores.scatter(-1, wrong.clamp(min=0), -math.inf)
        values = scores.logsumexp(-1) - others.logsumexp(-1)
        return values.masked_fill(wrong.squeeze(-1) == IGNORED, 0.0).sum()


class LengthNormalised(LossTerm):
    """Sum over rows of −log softmax over their answers of β = (1/T) Σ log p(token), at the right one.

    A row without wrong answers adds 0.
    """

    name = "length_normalised"
    unit = "choice_rows"
    student_needs = Needs(logits=True, choices=True)
    teacher_needs = Needs()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over rows, from logits [B U V] of the right and [C U V] of the wrong answers."""
        logits, own = _wrong(student), student.logits
        if own is None:
            raise ValueError("length_normalised: logits were asked of the student, and it gave none")
        if "choices" not in batch:
            return upcast(logits).sum()
        rows = batch["choices"]["rows"]
        right, wrong = mean_log_prob(own, batch["labels"]), mean_log_prob(logits, batch["choices"]["labels"])
        top = right.detach().scatter_reduce(0, rows, wrong.detach(), "amax")
        total = (right - top).exp().index_add(0, rows, (wrong - top[rows]).exp())
        return (top + total.log() - right).sum()


def mean_log_prob(logits: Tensor, labels: Tensor) -> Tensor:
    """Return β [R], the mean of log p over the tokens of each answer, from logits [R U V] and labels [R U]."""
    keep = labels != IGNORED
    places = unmasked(keep)
    values = gold_cross_entropy(logits, labels, places)
    answers = torch.arange(len(labels), device=labels.device)[:, None, None].expand(*labels.shape, 1)
    sums = values.new_zeros(len(labels)).index_add(0, places.rows(answers).squeeze(-1), values)
    return -sums / keep.sum(-1).clamp(min=1)


def answer_scores(outputs: Outputs, labels: Tensor, choices: Choices | None, width: int) -> Tensor:
    """Return β [B W+1] of each row's answers, W wrong ones at most, then the right one; rank classification takes the
    highest (Liu et al. 2022, section 3.1).

    Behind a row's wrong answers stands the lowest number. Of equal scores `argmax` takes the first: a tie is wrong.
    """
    if outputs.logits is None:
        raise ValueError("logits were asked of the model, and it gave none")
    right = mean_log_prob(outputs.logits, labels)
    scores = right.new_full((len(right), width), torch.finfo(right.dtype).min)
    if choices is not None:
        rows = choices["rows"]
        counts = rows.bincount(minlength=len(right))
        places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        scores[rows, places] = mean_log_prob(_wrong(outputs), choices["labels"])
    return torch.cat([scores, right[:, None]], 1)


def _wrong(student: Outputs) -> Tensor:
    if student.choices is None:
        raise ValueError("logits of wrong answers were asked of the student, and it gave none")
    return student.choices
