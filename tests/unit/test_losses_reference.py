"""Every loss against its formula written out as loops: value, gradient and count."""

from functools import partial

import pytest
import torch
from torch import Tensor

from distill.losses import divergences
from distill.losses.attention import attention_probability_kl, attention_score_huawei, attention_score_mse
from distill.losses.hidden import hidden_cosine, hidden_mse
from distill.losses.relation import relation_kl
from tests.helpers import reference

MASKS = {
    "no padding": [[1, 1, 1], [1, 1, 1]],
    "padded": [[1, 1, 0], [1, 1, 1]],
    "padded on the left": [[0, 1, 1], [0, 0, 1]],
    "with a hole": [[1, 0, 1], [1, 1, 0]],
    "with an empty row": [[0, 0, 0], [1, 1, 0]],
}
TYPES = [torch.float64, torch.float32, torch.bfloat16]


def sides(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for _ in range(2))
    return student.requires_grad_(), teacher


def check(loss, formula, students: list[Tensor], teachers: list[Tensor]) -> None:
    """Compare a loss on given types with its formula on the same numbers in fp64."""
    exact = [student.detach().double().requires_grad_() for student in students]
    value, expected = loss(*students, *teachers), formula(*exact, *(teacher.double() for teacher in teachers))
    dtype = students[0].dtype
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(value, students)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    for gradient, right in zip(gradients, torch.autograd.grad(expected, exact), strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.double(), right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("name", ["ce", "kl", "rkl", "jsd", "mse"])
def test_divergences(name, temperature, dtype):
    def formula(student: Tensor, teacher: Tensor) -> Tensor:
        rows = zip(student, teacher, strict=True)
        return reference.total([getattr(reference, name)(s.unbind(), t.unbind(), temperature) for s, t in rows])

    student, teacher = sides(3, 5, dtype=dtype)
    loss = getattr(divergences, name)
    check(lambda s, t: loss(s, t, temperature=temperature).sum(), formula, [student], [teacher])


def test_jsd_with_a_weight():
    student, teacher = sides(4)
    expected = reference.jsd(student.unbind(), teacher.unbind(), 2.0, beta=0.2)
    torch.testing.assert_close(divergences.jsd(student, teacher, temperature=2.0, beta=0.2), expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("loss", [hidden_mse, hidden_cosine])
def test_hidden_states(loss, mask, dtype):
    keep = torch.tensor(mask)
    student, teacher = sides(2, 3, 4, dtype=dtype)
    formula = partial(getattr(reference, loss.__name__), mask=keep)
    check(lambda s, t: loss(s, t, keep)[0], formula, [student], [teacher])
    assert loss(student, teacher, keep)[1] == keep.sum()
    assert loss(student, teacher, None)[1] == 6


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("loss", [attention_score_mse, attention_probability_kl])
def test_attention(loss, mask, dtype):
    keep = torch.tensor(mask)
    student, teacher = sides(2, 2, 3, 3, dtype=dtype)
    formula = partial(getattr(reference, loss.__name__), mask=keep)
    check(lambda s, t: loss(s, t, keep)[0], formula, [student], [teacher])
    positions = keep.sum(1)
    expected = positions.square().sum() if loss is attention_score_mse else positions.sum()
    assert loss(student, teacher, keep)[1] == expected


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_relations(heads, mask, dtype):
    """Student 2 heads of 4, teacher 4 heads of 3: other head counts and widths on either side."""
    keep = torch.tensor(mask)
    students = [sides(2, 2, 3, 4, dtype=dtype, seed=seed)[0] for seed in (0, 1)]
    teachers = [sides(2, 4, 3, 3, dtype=dtype, seed=seed)[1] for seed in (2, 3)]
    check(
        lambda a, b, x, y: relation_kl(a, b, x, y, keep, heads)[0],
        lambda a, b, x, y: reference.relation_kl((a, b), (x, y), keep, heads),
        students,
        teachers,
    )
    assert relation_kl(*students, *teachers, keep, heads)[1] == keep.sum()


@pytest.mark.parametrize("dtype", TYPES)
def test_a_relation_of_states_with_themselves(dtype):
    keep = torch.tensor(MASKS["padded"])
    student, teacher = sides(2, 2, 3, 4, dtype=dtype)
    check(
        lambda a, x: relation_kl(a, a, x, x, keep)[0],
        lambda a, x: reference.relation_kl((a, a), (x, x), keep, 2),
        [student],
        [teacher],
    )


def huawei_hidden(student: Tensor, teacher: Tensor) -> Tensor:
    return hidden_mse(student, teacher, None)[0] / (student.shape[0] * student.shape[1])


def test_huawei_hidden_states():
    student, teacher = sides(2, 3, 4, dtype=torch.float32)
    check(huawei_hidden, reference.huawei_hidden, [student], [teacher])


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_huawei_attention(mask):
    """Scores far below −100 are cut even where no key is masked."""
    keep = torch.tensor(mask)
    student, teacher = sides(2, 2, 3, 3, dtype=torch.float32)
    with torch.no_grad():
        student[0, 0, 0, 0], teacher[1, 0, 1, 0] = -150.0, -101.0

    def loss(s: Tensor, t: Tensor) -> Tensor:
        total, count = attention_score_huawei(s, t, keep)
        assert count == 2 * 3 * 3
        return total / count

    check(loss, partial(reference.huawei_attention, mask=keep), [student], [teacher])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_huawei_logits(temperature):
    student, teacher = sides(4, 3, dtype=torch.float32)
    check(
        lambda s, t: divergences.huawei_ce(s, t, temperature=temperature).sum() / len(s),
        partial(reference.huawei_logits, temperature=temperature),
        [student],
        [teacher],
    )
