"""Divergences between the class distributions of student and teacher, one value per position.

All take logits [... V] on both sides, soften both by the temperature T and return [...] in fp32 (fp64 stays fp64). The
factor T² keeps the size of the gradient as T grows (Hinton et al. 2015). A logit of −inf on both sides is a class that
does not exist: it adds nothing and its gradient is 0. Shapes must be equal (ValueError); nothing is broadcast.
"""

import math

import torch
from torch import Tensor

from distill.losses.reduction import same_shape, upcast

SATURATED = 80.0
"""Log-ratio of probabilities beyond which exp leaves fp32; the smaller probability adds nothing there."""


def ce(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return T² · −Σ p_T log p_S: the soft cross entropy, which is kl plus the teacher's entropy."""
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature)
    p = teacher.exp()
    return -(temperature**2) * (p * student.masked_fill(p == 0, 0.0)).sum(-1)


def kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return T² · KL(p_T ‖ p_S) = T² · Σ p_T (log p_T − log p_S); infinite where only the student excludes a class."""
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _relative_entropy(teacher, student)


def rkl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return T² · KL(p_S ‖ p_T), the reverse kl; infinite where only the teacher excludes a class."""
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _relative_entropy(student, teacher)


def jsd(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, beta: float = 0.5) -> Tensor:
    """Return T² · (β KL(p_T ‖ m) + (1 − β) KL(p_S ‖ m)) with m = β p_T + (1 − β) p_S, 0 < β < 1 (Agarwal et al. 2024).

    Written with d = log p_S − log p_T: log p_T − log m = −log1p((1 − β) expm1(d)), which is exactly 0 for equal sides
    and finite even where one side excludes a class.
    """
    if not 0.0 < beta < 1.0:
        raise ValueError(f"beta must lie between 0 and 1, not be {beta}")
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature)
    neither = (student == -math.inf) & (teacher == -math.inf)
    ratio = (student - teacher).masked_fill(neither, 0.0).clamp(-SATURATED, SATURATED)
    from_teacher = -torch.log1p((1.0 - beta) * torch.expm1(ratio))
    from_student = -torch.log1p(beta * torch.expm1(-ratio))
    mixed = beta * teacher.exp() * from_teacher + (1.0 - beta) * student.exp() * from_student
    return temperature**2 * _never_negative(mixed.sum(-1))


def mse(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return the mean over V of (z_S − z_T)² on raw logits or scores.

    The temperature cancels: T² times the squared difference of z/T is the squared difference of z, so it has no effect.
    """
    same_shape("logits", student_logits, teacher_logits)
    student, teacher = upcast(student_logits), upcast(teacher_logits)
    neither = (student == -math.inf) & (teacher == -math.inf)
    return (student - teacher).masked_fill(neither, 0.0).square().mean(-1)


def huawei_ce(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return the mean over V of −p_T log p_S, without T²: TinyBERT's released code averages over all B·V elements."""
    return ce(student_logits, teacher_logits, temperature=temperature) / (temperature**2 * student_logits.shape[-1])


def _log_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    same_shape("logits", student, teacher)
    return (
        torch.log_softmax(upcast(student) / temperature, -1),
        torch.log_softmax(upcast(teacher) / temperature, -1),
    )


def _relative_entropy(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return Σ p (log p − log q), with 0 log 0 = 0."""
    p = log_p.exp()
    return _never_negative((p * (log_p - log_q).masked_fill(p == 0, 0.0)).sum(-1))


def _never_negative(value: Tensor) -> Tensor:
    """Lift what rounding pushed below 0 back to 0 and leave the gradient as it is."""
    return torch.where(value < 0.0, value - value.detach(), value)
