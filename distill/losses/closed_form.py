"""KL between softmaxes in closed form: the gradient comes with the value, without a graph in between."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FLOOR = -1e30
"""Logit of a masked key on both sides: its probability is 0 and its log-ratio exactly 0, where −inf would give NaN."""


def softmax_kl(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ KL(softmax teacher ‖ softmax student) over all rows of logits [... V], and its gradient p_S − p_T."""
    log_s, log_t = torch.log_softmax(student, -1), torch.log_softmax(teacher, -1)
    p_t = log_t.exp()
    total = torch.dot(p_t.flatten(), log_t.sub_(log_s).flatten())
    return total.clamp_min_(0.0), log_s.exp_().sub_(p_t)


class SoftmaxKL(torch.autograd.Function):
    """`softmax_kl` for autograd: keeps only the gradient, one tensor of the size of the logits."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the sum over all rows."""
        total, gradient = softmax_kl(student, teacher)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        """Return the gradient for the student's logits; the teacher's are constants."""
        (gradient,) = ctx.saved_tensors
        return outer * gradient, None
