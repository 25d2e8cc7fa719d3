"""Losses written out as plain loops over numbers, straight from their formulas; slow, and easy to check by eye.

Numbers are 0-dimensional tensors, so that autograd gives the reference for gradients too. `relation_kl_naive` is the
usual vectorised formula, the baseline that speed is measured against.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Numbers = Sequence[Tensor]


def total(numbers: Sequence[Tensor | float]) -> Tensor:
    result = torch.zeros((), dtype=torch.float64)
    for number in numbers:
        result = result + number
    return result


def softmax(logits: Numbers) -> list[Tensor]:
    norm = total([z.exp() for z in logits])
    return [z.exp() / norm for z in logits]


def kl_of(p: Numbers, q: Numbers) -> Tensor:
    return total([a * (a / b).log() for a, b in zip(p, q, strict=True)])


def soft(student: Numbers, teacher: Numbers, temperature: float) -> tuple[list[Tensor], list[Tensor]]:
    return softmax([z / temperature for z in student]), softmax([z / temperature for z in teacher])


def ce(student: Numbers, teacher: Numbers, temperature: float = 1.0) -> Tensor:
    p_s, p_t = soft(student, teacher, temperature)
    return temperature**2 * total([-t * s.log() for s, t in zip(p_s, p_t, strict=True)])


def kl(student: Numbers, teacher: Numbers, temperature: float = 1.0) -> Tensor:
    p_s, p_t = soft(student, teacher, temperature)
    return temperature**2 * kl_of(p_t, p_s)


def rkl(student: Numbers, teacher: Numbers, temperature: float = 1.0) -> Tensor:
    p_s, p_t = soft(student, teacher, temperature)
    return temperature**2 * kl_of(p_s, p_t)


def jsd(student: Numbers, teacher: Numbers, temperature: float = 1.0, beta: float = 0.5) -> Tensor:
    p_s, p_t = soft(student, teacher, temperature)
    m = [beta * t + (1 - beta) * s for s, t in zip(p_s, p_t, strict=True)]
    return temperature**2 * (beta * kl_of(p_t, m) + (1 - beta) * kl_of(p_s, m))


def mse(student: Numbers, teacher: Numbers, temperature: float = 1.0) -> Tensor:
    return total([(s - t) ** 2 for s, t in zip(student, teacher, strict=True)]) / len(student)


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """States [B T D]."""
    return total([
        mse(student[b, t].unbind(), teacher[b, t].unbind())
        for b in range(len(mask))
        for t in range(mask.shape[1])
        if mask[b, t]
    ])  # fmt: skip


def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """States [B T D]."""

    def cosine(a: Numbers, b: Numbers) -> Tensor:
        product = total([x * y for x, y in zip(a, b, strict=True)])
        return product / (total([x * x for x in a]).sqrt() * total([y * y for y in b]).sqrt())

    return total([
        1 - cosine(student[b, t].unbind(), teacher[b, t].unbind())
        for b in range(len(mask))
        for t in range(mask.shape[1])
        if mask[b, t]
    ])  # fmt: skip


def attention_score_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Scores [B H T T]."""
    examples, heads, positions, _ = student.shape
    return total([
        (student[b, h, q, k] - teacher[b, h, q, k]) ** 2 / heads
        for b in range(examples)
        for h in range(heads)
        for q in range(positions)
        for k in range(positions)
        if mask[b, q] and mask[b, k]
    ])  # fmt: skip


def attention_probability_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Scores [B H T T]."""
    examples, heads, positions, _ = student.shape
    sums = []
    for b in range(examples):
        keys = [k for k in range(positions) if mask[b, k]]
        for h in range(heads):
            for q in keys:
                own, taught = ([scores[b, h, q, k] for k in keys] for scores in (student, teacher))
                sums.append(kl(own, taught) / heads)
    return total(sums)


def relation_kl(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor, heads: int) -> Tensor:
    """Queries, keys or values [B H T A] of both sides."""

    def vector(states: Tensor, b: int, t: int, head: int) -> list[Tensor]:
        joined = [states[b, h, t, a] for h in range(states.shape[1]) for a in range(states.shape[3])]
        width = len(joined) // heads
        return joined[head * width : (head + 1) * width]

    def logits(sides: tuple[Tensor, Tensor], b: int, query: int, keys: list[int], head: int) -> list[Tensor]:
        a = vector(sides[0], b, query, head)
        return [
            total([x * y for x, y in zip(a, vector(sides[1], b, k, head), strict=True)]) / math.sqrt(len(a))
            for k in keys
        ]

    sums = []
    for b in range(len(mask)):
        keys = [k for k in range(mask.shape[1]) if mask[b, k]]
        for head in range(heads):
            for q in keys:
                sums.append(kl(logits(student, b, q, keys, head), logits(teacher, b, q, keys, head)) / heads)
    return total(sums)


def relation_kl_naive(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor, heads: int
) -> Tensor:
    """The usual formula: whole relation maps of the padded batch, and autograd."""
    off = (mask == 0)[:, None, None, :]

    def cut(states: Tensor) -> Tensor:
        examples, _, positions, _ = states.shape
        return states.transpose(1, 2).reshape(examples, positions, heads, -1).transpose(1, 2)

    def logits(sides: tuple[Tensor, Tensor]) -> Tensor:
        a, b = cut(sides[0]), cut(sides[1])
        return (a @ b.transpose(-1, -2) / math.sqrt(a.shape[-1])).masked_fill(off, -math.inf)

    log_student = torch.log_softmax(logits(student), -1).masked_fill(off, 0.0)
    per_query = F.kl_div(log_student, torch.softmax(logits(teacher), -1), reduction="none").sum(-1).mean(1)
    return (per_query * mask).sum()


def huawei_attention(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """TinyBERT's released attention loss of one layer: masks by −10000, cuts at −100, averages all of [B H T T]."""
    examples, heads, positions, _ = student.shape

    def seen(scores: Tensor, b: int, h: int, q: int, k: int) -> Tensor | float:
        score = scores[b, h, q, k] + (0.0 if mask[b, k] else -10000.0)
        return score if score > -100.0 else 0.0

    squares = [
        (seen(student, b, h, q, k) - seen(teacher, b, h, q, k)) ** 2
        for b in range(examples)
        for h in range(heads)
        for q in range(positions)
        for k in range(positions)
    ]
    return total(squares) / len(squares)


def huawei_hidden(student: Tensor, teacher: Tensor) -> Tensor:
    """TinyBERT's released hidden-state loss of one layer: the average over all elements [B T D], padding included."""
    squares = [(s - t) ** 2 for s, t in zip(student.flatten().unbind(), teacher.flatten().unbind(), strict=True)]
    return total(squares) / len(squares)


def huawei_logits(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """TinyBERT's released soft cross entropy: the average over all elements [B V], without T²."""
    products = []
    for own, taught in zip(student, teacher, strict=True):
        p_s, p_t = soft(own.unbind(), taught.unbind(), temperature)
        products += [-t * s.log() for s, t in zip(p_s, p_t, strict=True)]
    return total(products) / len(products)
