"""Divergences from the most likely K of a teacher's tokens to all of a student's.

The teacher's probabilities are those of its K tokens, softened by the temperature T and made to sum to 1: with K = V
they are its whole distribution. The student's softmax runs over the whole vocabulary. Values carry the factor T².
"""

import torch
from torch import Tensor

from distill.losses.reduction import upcast


def top_k_ce(student_logits: Tensor, indices: Tensor, log_probs: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return T² · −Σ p̃_T log p_S over the K tokens, [...]; logits [... V], indices and log-probabilities [... K]."""
    teacher, student = _both(student_logits, indices, log_probs, temperature)
    return -(temperature**2) * (teacher.exp() * student).sum(-1)


def top_k_kl(student_logits: Tensor, indices: Tensor, log_probs: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return T² · Σ p̃_T (log p̃_T − log p_S) over the K tokens; shapes as in `top_k_ce`."""
    teacher, student = _both(student_logits, indices, log_probs, temperature)
    p = teacher.exp()
    return temperature**2 * (p * (teacher - student).masked_fill(p == 0, 0.0)).sum(-1)


def _both(logits: Tensor, indices: Tensor, log_probs: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    student = (upcast(logits) / temperature).log_softmax(-1).gather(-1, indices)
    return torch.log_softmax(upcast(log_probs) / temperature, -1), student
