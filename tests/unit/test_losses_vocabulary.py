"""Losses over a vocabulary, computed in blocks of rows, against the formulas in one piece."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distill.losses import divergences, vocabulary
from distill.losses.reduction import Positions
from distill.losses.top_k import top_k_ce, top_k_kl
from distill.losses.vocabulary import divergence_of_rows, gold_cross_entropy
from distill.types import IGNORED

ROWS, CLASSES = (5, 7), 11
KEPT = torch.tensor([0, 3, 4, 10, 11, 12, 29, 34])


@pytest.fixture(params=[1, 3 * CLASSES, 1 << 20], ids=["a row", "three rows", "at once"])
def block(request, monkeypatch):
    monkeypatch.setattr(vocabulary, "CPU_BLOCK", request.param)


def draw(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*ROWS, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def both(found, expected, student: Tensor) -> None:
    """Hold values, and gradients under weights of each row and under one weight, against one another."""
    own, other = found(student), expected(student)
    assert own.dtype == other.dtype
    close = partial(torch.testing.assert_close, equal_nan=False)
    close(own, other)
    for weights in (torch.linspace(-1.0, 2.0, len(own)), torch.full((len(own),), 0.3)):
        sums = (values @ weights.to(own.dtype) for values in (own, other))
        close(*(torch.autograd.grad(total, student, retain_graph=True)[0] for total in sums))


@pytest.mark.parametrize("places", [Positions(), Positions(KEPT)], ids=["all", "some"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_cross_entropy_in_blocks_is_the_one_of_torch(block, places, smoothing, dtype):
    labels = torch.randint(0, CLASSES, ROWS, generator=torch.Generator().manual_seed(2))
    labels[0, 3:5] = IGNORED

    def whole(logits):
        rows, wanted = places.rows(logits), places.rows(labels[..., None]).squeeze(-1)
        rows = rows.float() if dtype == torch.bfloat16 else rows
        return F.cross_entropy(rows, wanted, reduction="none", ignore_index=IGNORED, label_smoothing=smoothing)

    both(lambda logits: gold_cross_entropy(logits, labels, places, smoothing), whole, draw(0, dtype).requires_grad_())


@pytest.mark.parametrize("places", [Positions(), Positions(KEPT)], ids=["all", "some"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("name", ["ce", "kl", "rkl", "jsd", "mse"])
@pytest.mark.parametrize("missing", [False, True], ids=["every class", "a class less"])
def test_divergences_in_blocks_are_those_in_one_piece(block, places, temperature, name, missing):
    divergence = getattr(divergences, name)
    student, teacher = draw(0), draw(1)
    if missing:
        student[..., 4], teacher[..., 4] = -math.inf, -math.inf
    both(
        lambda logits: divergence_of_rows(divergence, logits, (teacher,), places, temperature),
        lambda logits: divergence(places.rows(logits), places.rows(teacher), temperature=temperature),
        student.requires_grad_(),
    )


@pytest.mark.parametrize("places", [Positions(), Positions(KEPT)], ids=["all", "some"])
@pytest.mark.parametrize("divergence", [top_k_ce, top_k_kl])
@pytest.mark.parametrize("kept", [1, 3, CLASSES])
def test_the_most_likely_tokens_in_blocks_are_those_in_one_piece(block, places, divergence, kept):
    best = draw(1).log_softmax(-1).topk(kept)
    parts = (best.indices, best.values)
    both(
        lambda logits: divergence_of_rows(divergence, logits, parts, places, 2.0),
        lambda logits: divergence(places.rows(logits), *map(places.rows, parts), temperature=2.0),
        draw(0).requires_grad_(),
    )


@pytest.mark.parametrize("name", ["kl", "jsd"])
def test_half_precision_gradients_are_those_in_one_piece(block, name):
    student, teacher = draw(0, torch.bfloat16).requires_grad_(), draw(1, torch.bfloat16)
    both(
        lambda logits: divergence_of_rows(getattr(divergences, name), logits, (teacher,), Positions(), 2.0),
        lambda logits: getattr(divergences, name)(logits.flatten(0, 1), teacher.flatten(0, 1), temperature=2.0),
        student,
    )


@pytest.mark.parametrize("rows", ["alike", "apart"])
def test_what_comes_back_to_a_half_gradient_is_not_rounded_itself(rows):
    logits, labels = draw(0, torch.bfloat16).requires_grad_(), torch.zeros(ROWS, dtype=torch.int64)
    outer = torch.full((35,), 0.37129) if rows == "alike" else torch.linspace(0.1, 0.9, 35)
    values = gold_cross_entropy(logits, labels, Positions())
    own, found = (torch.autograd.grad(values, logits, given, retain_graph=True)[0] for given in (values * 0 + 1, outer))
    assert torch.equal(found, (own.float() * outer.reshape(*ROWS, 1)).bfloat16())


def test_nothing_that_counts_is_no_error():
    logits = draw(0).requires_grad_()
    none = gold_cross_entropy(logits, torch.full(ROWS, IGNORED), Positions(KEPT[:0]))
    assert none.shape == (0,)
    assert torch.autograd.grad(none.sum(), logits)[0].abs().max() == 0


def test_rows_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"\[5, 7, 11\] stand beside \[5, 6, 11\]"):
        divergence_of_rows(divergences.kl, draw(0), (draw(1)[:, :6],), Positions(), 1.0)


class Largest(TorchDispatchMode):
    """Notes the memory that operations made, in numbers of a floating type; not what only views the given ones."""

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.made: list[tuple[torch.dtype, int]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        fresh = isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in self.known
        if fresh and result.is_floating_point():
            self.made.append((result.dtype, result.untyped_storage().nbytes() // result.element_size()))
        return result


@pytest.mark.parametrize("name", ["gold", "kl", "rkl", "jsd", "mse"])
def test_whole_there_is_only_the_gradient_in_the_type_of_the_logits(name, monkeypatch):
    monkeypatch.setattr(vocabulary, "CPU_BLOCK", 4 * CLASSES)
    logits, teacher = draw(0, torch.bfloat16).requires_grad_(), draw(1, torch.bfloat16)
    labels = torch.zeros(ROWS, dtype=torch.int64)
    with Largest(logits, teacher) as largest:
        if name == "gold":
            values = gold_cross_entropy(logits, labels, Positions(), 0.1)
        else:
            values = divergence_of_rows(getattr(divergences, name), logits, (teacher,), Positions(), 2.0)
        torch.autograd.grad(values.sum(), logits)
    assert {dtype for dtype, size in largest.made if size > 4 * CLASSES} == {torch.bfloat16}
