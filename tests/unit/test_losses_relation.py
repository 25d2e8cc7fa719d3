"""Relations in closed form: the same number however the work is cut, and clear refusals."""

import math

import pytest
import torch
from torch import Tensor

from distill.losses.blocks import Block, by_length, by_rows
from distill.losses.closed_form import softmax_kl
from distill.losses.relation import relation_kl, sum_and_gradients
from tests.helpers import reference

MASK = torch.tensor(
    [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 0, 1, 1]]
)


def states(seed: int, heads: int = 4, width: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*MASK.shape, heads, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def attended(*tensors: Tensor) -> tuple[Tensor, ...]:
    """[B T R d] as [B H T A]."""
    return tuple(tensor.transpose(1, 2) for tensor in tensors)


@pytest.mark.parametrize("cut", [by_length, by_rows])
@pytest.mark.parametrize("size", [1, 20, 75, 10_000])
def test_any_cut_of_the_work_gives_the_same(cut, size):
    a, b, x, y = (states(seed) for seed in range(4))
    total, gradients = sum_and_gradients([a, b], [x, y], cut(MASK, 4, size))
    rows = MASK.any(1)  # the naive formula knows no rows without tokens
    leaves = [t[rows].requires_grad_() for t in (a, b)]
    expected = reference.relation_kl_naive(attended(*leaves), attended(x[rows], y[rows]), MASK[rows], 4)
    torch.testing.assert_close(total, expected.detach())
    for gradient, right in zip(gradients, torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(gradient[rows], right)
        assert gradient[MASK == 0].eq(0).all()


@pytest.mark.parametrize("cut", [by_length, by_rows])
@pytest.mark.parametrize("size", [1, 20, 75, 10_000])
def test_a_cut_covers_every_relation_once_and_is_as_small_as_asked(cut, size):
    seen = torch.zeros(*MASK.shape, 4)
    for block in cut(MASK, 4, size):
        taken = seen[block.examples, block.tokens, block.heads]
        assert taken.shape[0] * taken.shape[2] * taken.shape[1] ** 2 <= max(size, taken.shape[1] ** 2)
        seen[block.examples, block.tokens, block.heads] += 1
    assert seen[MASK == 1].eq(1).all()
    assert cut is by_rows or seen[MASK == 0].eq(0).all()


def test_rows_of_one_length_are_taken_together():
    blocks: list[Block] = list(by_length(MASK, 4, 10_000))
    assert [block.examples for block in blocks] == [slice(0, 2), slice(3, 4), slice(4, 5), slice(5, 6)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_relations_differ_by_nothing(dtype):
    a, b = attended(states(0, dtype=dtype), states(1, dtype=dtype))
    student = [t.clone().requires_grad_() for t in (a, b)]
    total, _ = relation_kl(*student, a, b, MASK)
    assert total == 0
    assert all(gradient.eq(0).all() for gradient in torch.autograd.grad(total, student))


def test_never_negative_where_rounding_decides():
    a = attended(states(0))[0]
    for seed in range(20):
        near = a + 1e-7 * attended(states(seed + 1))[0]
        assert relation_kl(near, near, a, a, MASK)[0] >= 0


def test_the_gradient_is_scaled_by_what_comes_after():
    a, x = attended(states(0), states(1))
    student = a.clone().requires_grad_()
    (once,) = torch.autograd.grad(relation_kl(student, student, x, x, MASK)[0], student)
    (thrice,) = torch.autograd.grad(3 * relation_kl(student, student, x, x, MASK)[0], student)
    torch.testing.assert_close(thrice, 3 * once)


def test_only_one_side_may_take_gradients():
    a, b, x, y = attended(*(states(seed) for seed in range(4)))
    both = [t.clone().requires_grad_() for t in (a, b)]
    expected = torch.autograd.grad(relation_kl(*both, x, y, MASK)[0], both)
    (at_b,) = torch.autograd.grad(relation_kl(a, both[1], x, y, MASK)[0], both[1])
    torch.testing.assert_close(at_b, expected[1])


def test_gradients_are_those_of_the_value():
    a, b, x, y = (t.double() for t in attended(*(states(seed, heads=2, width=3) for seed in range(4))))
    inputs = (a.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(lambda s, t: relation_kl(s, t, x, y, MASK, 3)[0], inputs)


def test_the_closed_form_is_the_gradient_of_the_kl():
    student, teacher = states(0).double().requires_grad_(), states(1).double()
    value = torch.nn.functional.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="sum")
    total, slope = softmax_kl(student.detach(), teacher)
    torch.testing.assert_close(total, value.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(value, student)[0])


def test_autocast_does_not_round_relations():
    a, x = attended(states(0), states(1))
    exact = relation_kl(a, a, x, x, MASK)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(relation_kl(a, a, x, x, MASK)[0], exact)


def test_large_logits_stay_finite():
    a, x = attended(1e4 * states(0), 1e4 * states(1))
    student = a.requires_grad_()
    total, _ = relation_kl(student, student, x, x, MASK)
    assert total.isfinite() and torch.autograd.grad(total, student)[0].isfinite().all()


@pytest.mark.parametrize(
    ("student", "teacher", "heads", "message"),
    [
        (((2, 2, 3, 4), (2, 2, 3, 4)), ((2, 3, 3, 4), (2, 3, 3, 4)), None, "must have as many heads"),
        (((2, 2, 3, 4), (2, 2, 3, 4)), ((2, 2, 3, 4), (2, 2, 3, 4)), 3, "3 relation heads do not divide both widths"),
        (((2, 2, 3, 4), (2, 1, 3, 4)), ((2, 2, 3, 4), (2, 2, 3, 4)), None, "must have one shape"),
        (((2, 2, 3, 4), (2, 2, 3, 4)), ((2, 2, 5, 4), (2, 2, 5, 4)), None, r"those of the mask \[2, 3\]"),
    ],
)
def test_sides_that_cannot_be_compared_are_named(student, teacher, heads, message):
    tensors = [torch.zeros(shape) for shape in (*student, *teacher)]
    with pytest.raises(ValueError, match=message) as caught:
        relation_kl(*tensors, torch.ones(2, 3), heads)
    assert all(str([*shape]) in str(caught.value) for shape in (student[0], teacher[0]))


def test_a_relation_without_scale_would_show():
    """One query, two keys, by hand: logits a·b/√d."""
    a = torch.tensor([[[[2.0, 0.0], [0.0, 0.0]]]])
    x = torch.zeros(1, 1, 2, 2)
    total, _ = relation_kl(a, a, x, x, torch.ones(1, 2))
    p = torch.softmax(torch.tensor([4 / math.sqrt(2), 0.0]), 0)
    assert total.item() == pytest.approx((0.5 * (0.5 / p).log()).sum().item(), rel=1e-5)
