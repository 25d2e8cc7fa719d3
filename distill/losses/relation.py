"""Self-attention relations (MiniLM, MiniLMv2) in closed form.

Queries, keys or values of a layer, [B H T A], are joined to width H·A and cut again into R relation heads of width
d = H·A/R, so that models of any two widths and head counts compare. The relation of a and b is softmax(a·bᵀ/√d) over
the unmasked keys.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill.losses.blocks import Block, blocks
from distill.losses.closed_form import softmax_kl
from distill.losses.reduction import count, named, places_of, upcast
from distill.protocols import LossTerm
from distill.types import Batch, Heads, Layers, Needs, Outputs, Side

Pair = Literal["qq", "kk", "vv", "qk"]


def relation_kl(
    student_a: Tensor,
    student_b: Tensor,
    teacher_a: Tensor,
    teacher_b: Tensor,
    mask: Tensor,
    heads: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (Σ over unmasked queries of the mean over relation heads of KL(teacher ‖ student), unmasked positions).

    MiniLMv2 (Wang et al. 2021) with `heads` relation heads; None keeps the heads of the models, which must then agree.
    MiniLM's value relation has the values as both a and b (Wang et al. 2020). Tensors [B H T A], mask [B T].

    The gradient of the KL at the relation logits is p_S − p_T. So value and gradient come from one pass over blocks of
    unmasked tokens: the relations are never all in memory, and on a CPU no softmax runs over padding. Raises ValueError
    for sides that cannot be compared.
    """
    cut = _relation_heads((student_a, student_b, teacher_a, teacher_b), mask, heads)
    student = [student_a] if student_b is student_a else [student_a, student_b]
    teacher = [teacher_a] if teacher_b is teacher_a else [teacher_a, teacher_b]
    total: Tensor = _RelationKL.apply(teacher, mask, cut, *student)  # type: ignore[no-untyped-call]
    return total, count(mask, mask)


class Relations(LossTerm):
    """Sum over paired layers and over kinds of relation of `relation_kl`."""

    def __init__(
        self, layers: Mapping[int, int], kinds: Sequence[Pair], heads: int | None, side: Side = "encoder"
    ) -> None:
        super().__init__()
        self.name = named("relations", side)
        self.unit = "positions" if side == "encoder" else "targets"
        self.side = side
        self.layers = dict(layers)
        self.kinds = tuple(kinds)
        self.heads = heads
        self.student_needs = Needs.of(side, Layers(relations=frozenset(self.layers)))
        self.teacher_needs = Needs.of(side, Layers(relations=frozenset(self.layers.values())))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over layers, kinds and unmasked positions."""
        mask = places_of(batch, self.side)
        ours, theirs = student.on(self.side).relations, teacher.on(self.side).relations
        totals = [
            relation_kl(*_pair(ours[own], kind), *_pair(theirs[taught], kind), mask, self.heads)[0]
            for own, taught in self.layers.items()
            for kind in self.kinds
        ]
        return torch.stack(totals).sum()


def _pair(heads: Heads, kind: Pair) -> tuple[Tensor, Tensor]:
    sides = {"q": heads.query, "k": heads.key, "v": heads.value}
    return sides[kind[0]], sides[kind[1]]


def _relation_heads(tensors: tuple[Tensor, Tensor, Tensor, Tensor], mask: Tensor, heads: int | None) -> int:
    """Return the number of relation heads, or raise ValueError naming the shapes that cannot be compared."""
    student_a, student_b, teacher_a, teacher_b = tensors
    shapes = f"student {[*student_a.shape]}, {[*student_b.shape]}; teacher {[*teacher_a.shape]}, {[*teacher_b.shape]}"
    if student_a.shape != student_b.shape or teacher_a.shape != teacher_b.shape:
        raise ValueError(f"relations: both sides of a relation must have one shape; {shapes}")
    if {(t.shape[0], t.shape[2]) for t in tensors} != {tuple(mask.shape)}:
        raise ValueError(f"relations: batch and positions must be those of the mask {[*mask.shape]}; {shapes}")
    if heads is None and student_a.shape[1] != teacher_a.shape[1]:
        raise ValueError(f"relations: without a number of relation heads both models must have as many heads; {shapes}")
    cut = student_a.shape[1] if heads is None else heads
    if any((t.shape[1] * t.shape[3]) % cut for t in tensors):
        raise ValueError(f"relations: {cut} relation heads do not divide both widths; {shapes}")
    return cut


class _RelationKL(torch.autograd.Function):
    """`sum_and_gradients` for autograd: keeps no more than tensors of the size of the student's a and b."""

    @staticmethod
    def forward(ctx: Any, teacher: list[Tensor], mask: Tensor, heads: int, *student: Tensor) -> Tensor:
        """Return the sum over unmasked queries of the mean over relation heads."""
        own, taught = ([_recut(states.transpose(1, 2), heads) for states in side] for side in (student, teacher))
        with torch.autocast(mask.device.type, enabled=False):
            total, gradients = sum_and_gradients(own, taught, blocks(mask, heads))
        ctx.save_for_backward(*gradients)
        ctx.inputs = [(states.shape[1], states.dtype) for states in student]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients for the student's a and b."""
        kept = zip(ctx.saved_tensors, ctx.inputs, strict=True)
        at_student = (_recut(outer * gradient, heads).transpose(1, 2).to(dtype) for gradient, (heads, dtype) in kept)
        return None, None, None, *at_student


def sum_and_gradients(
    student: list[Tensor], teacher: list[Tensor], work: Iterable[Block]
) -> tuple[Tensor, list[Tensor]]:
    """Return the sum over queries of the mean over heads of the KL, and its gradients at the student's tensors.

    Each side is [a, b], or [a] where one tensor is both; all are [B T R d].
    """
    heads, width = student[0].shape[2:]
    scale = 1.0 / (heads * math.sqrt(width))
    gradients = [torch.zeros_like(states, dtype=upcast(states[:0]).dtype) for states in student]
    total = gradients[0].new_zeros(())
    for block in work:
        own = [block.take(states) for states in student]
        taught = [block.take(states) for states in teacher]
        part, slope = softmax_kl(block.logits(own), block.logits(taught))
        total += part
        for states, gradient in zip(gradients, _at_inputs(slope, own), strict=True):
            block.give(states, gradient.mul_(scale))
    return total / heads, gradients


def _at_inputs(slope: Tensor, taken: list[Tensor]) -> list[Tensor]:
    """Return the gradients at a and b, or at the one tensor that is both, [P d n], from that at aᵀ·b [P n n]."""
    a, b = taken[0], taken[-1]
    at_a = torch.bmm(b, slope.transpose(1, 2))
    if len(taken) == 1:
        return [at_a.baddbmm_(a, slope)]
    return [at_a, torch.bmm(a, slope)]


def _recut(states: Tensor, heads: int) -> Tensor:
    """Return [B T H A] as [B T R d]."""
    return states.flatten(2).view(*states.shape[:2], heads, -1)
