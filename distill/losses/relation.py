"""Self-attention relations (MiniLM, MiniLMv2) in closed form.

Queries, keys or values of a layer, [B H T A], are joined to width H·A and cut again into R relation heads of width
d = H·A/R, so that models of any two widths and head counts compare. The relation of a and b is softmax(a·bᵀ/√d) over
the unmasked keys.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill.losses.closed_form import FLOOR, softmax_kl
from distill.losses.reduction import blank, count, upcast
from distill.protocols import LossTerm
from distill.types import Batch, Heads, Needs, Outputs

Pair = Literal["qq", "kk", "vv", "qk"]

CPU_BLOCK = 1 << 17
"""Relations computed at once, in numbers: small enough for the cache of one core."""
GPU_BLOCK = 1 << 26


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
    wanted = torch.is_grad_enabled() and any(states.requires_grad for states in student)
    total: Tensor = _RelationKL.apply(_Call(teacher, mask, cut, wanted), *student)  # type: ignore[no-untyped-call]
    return total, count(mask, mask)


class Relations(LossTerm):
    """Sum over paired layers and over kinds of relation of `relation_kl`."""

    name = "relations"
    unit = "positions"

    def __init__(self, layers: Mapping[int, int], kinds: Sequence[Pair], heads: int | None) -> None:
        super().__init__()
        self.layers = dict(layers)
        self.kinds = tuple(kinds)
        self.heads = heads
        self.student_needs = Needs(relations=frozenset(self.layers))
        self.teacher_needs = Needs(relations=frozenset(self.layers.values()))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the sum over layers, kinds and unmasked positions."""
        mask = batch["attention_mask"]
        totals = [
            relation_kl(
                *_pair(student.relations[own], kind), *_pair(teacher.relations[taught], kind), mask, self.heads
            )[0]
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


@dataclass(frozen=True)
class _Call:
    teacher: list[Tensor]
    """a and b, or a alone where b is the same tensor; so for the student's."""
    mask: Tensor
    heads: int
    gradient: bool


class _RelationKL(torch.autograd.Function):
    """Value and gradient in one pass over blocks; keeps no more than tensors of the size of the student's a and b."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *inputs: Tensor) -> Tensor:
        """Return the sum over unmasked queries of the mean over relation heads."""
        student, teacher = ([_recut(s.transpose(1, 2), call.heads) for s in sides] for sides in (inputs, call.teacher))
        scale = 1.0 / (call.heads * math.sqrt(student[0].shape[-1]))
        gradients = [torch.zeros_like(states, dtype=upcast(states[:0]).dtype) for states in student]
        total = gradients[0].new_zeros(())
        with torch.autocast(call.mask.device.type, enabled=False):
            for block in _blocks(call.mask, call.heads):
                taken = [block.take(states) for states in student]
                part, slope = softmax_kl(block.logits(taken), block.logits([block.take(states) for states in teacher]))
                total += part
                if call.gradient:
                    for states, gradient in zip(gradients, _at_inputs(slope, taken), strict=True):
                        block.give(states, gradient.mul_(scale))
        ctx.save_for_backward(*gradients)
        ctx.inputs = [(states.shape[1], states.dtype) for states in inputs]
        return total / call.heads

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients for the student's a and b."""
        kept = zip(ctx.saved_tensors, ctx.inputs, strict=True)
        return None, *(_recut(outer * gradient, heads).transpose(1, 2).to(dtype) for gradient, (heads, dtype) in kept)


def _recut(states: Tensor, heads: int) -> Tensor:
    """Return [B T H A] as [B T R d]."""
    return states.flatten(2).view(*states.shape[:2], heads, -1)


def _at_inputs(slope: Tensor, taken: list[Tensor]) -> list[Tensor]:
    """Return the gradients at a and b, or at the one tensor that is both, [P d n] from that at the logits aᵀ·b [P n n]."""
    a, b = taken[0], taken[-1]
    at_a = torch.bmm(b, slope.transpose(1, 2))
    if len(taken) == 1:
        return [at_a.baddbmm_(a, slope)]
    return [at_a, torch.bmm(a, slope)]


@dataclass(frozen=True)
class _Block:
    """E examples, n of their tokens and r of their relation heads, related at once as P = E·r products.

    Inside, states are [P d n]: with the short width d first the products with n×n matrices are several times faster.
    """

    examples: slice
    tokens: slice | Tensor
    heads: slice
    keep: Tensor | None = None
    """[E n]; None where every token counts."""

    def take(self, states: Tensor) -> Tensor:
        """Return states [B T R d] as [P d n]. Masked tokens are zero: as queries they relate alike on both sides."""
        picked = upcast(states[self.examples, self.tokens, self.heads])
        return blank(picked, self.keep).permute(0, 2, 3, 1).flatten(0, 1)

    def logits(self, taken: list[Tensor]) -> Tensor:
        """Return aᵀ·b/√d [P n n], FLOOR at masked keys."""
        a, b = taken[0], taken[-1]
        logits = torch.bmm((a * (1.0 / math.sqrt(a.shape[1]))).transpose(1, 2), b)
        if self.keep is None:
            return logits
        off = ~self.keep.bool()[:, None, None]
        return logits.view(off.shape[0], -1, *logits.shape[1:]).masked_fill(off, FLOOR).flatten(0, 1)

    def give(self, states: Tensor, gradient: Tensor) -> None:
        """Write a gradient [P d n] to its places in states [B T R d]."""
        examples = states[self.examples].shape[0]
        by_example = gradient.view(examples, -1, *gradient.shape[1:])
        states[self.examples, self.tokens, self.heads] = by_example.permute(0, 3, 1, 2)


def _blocks(mask: Tensor, heads: int) -> Iterator[_Block]:
    """Cut the work: on a CPU by runs of examples of one length, elsewhere by rows, without asking for lengths."""
    if mask.device.type != "cpu":
        yield from _cut(slice(0, len(mask)), slice(0, mask.shape[1]), heads, GPU_BLOCK, mask)
        return
    lengths = mask.bool().sum(1).tolist()
    holes = (mask.bool() != (torch.arange(mask.shape[1]) < mask.bool().sum(1, keepdim=True))).any(1).tolist()
    start = 0
    for (length, hole, _), run in groupby(zip(lengths, holes, (i if h else 0 for i, h in enumerate(holes)))):
        stop = start + len(list(run))
        if length:
            tokens = mask[start].nonzero().squeeze(1) if hole else slice(0, length)
            yield from _cut(slice(start, stop), tokens, length, heads, CPU_BLOCK)
        start = stop


def _cut(rows, tokens, length, heads, size, mask=None):
    step = min(heads, max(1, size // length**2))
    stride = max(1, size // (length**2 * step))
    for first in range(rows.start, rows.stop, stride):
        examples = slice(first, min(first + stride, rows.stop))
        for head in range(0, heads, step):
            yield _Block(examples, tokens, slice(head, head + step), None if mask is None else mask[examples])
