"""Laws of the divergences between class distributions, in fp32 and bf16."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.losses.divergences import ce, huawei_ce, jsd, kl, mse, rkl

DIVERGENCES = [kl, rkl, jsd, partial(jsd, beta=0.1), partial(jsd, beta=0.9)]
DISTANCES = [*DIVERGENCES, mse]
ALL = [*DISTANCES, ce, huawei_ce]
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0, 8.0, 50.0])
fast = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def logits(draw: st.DrawFn, count: int = 2) -> list[Tensor]:
    """Logits of one shape and type, from nearly flat to nearly certain."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = draw(st.sampled_from([(2,), (1, 3), (2, 3, 5), (4, 101)]))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    scale = draw(st.sampled_from([0.01, 1.0, 10.0, 1000.0]))
    return [(scale * torch.randn(shape, generator=generator)).to(dtype) for _ in range(count)]


def gradient(divergence, student: Tensor, teacher: Tensor, **options) -> Tensor:
    leaf = student.clone().requires_grad_()
    (found,) = torch.autograd.grad(divergence(leaf, teacher, **options).sum(), leaf)
    return found


def near_pair(seed: int, distance: float) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    teacher = 3 * torch.randn(64, 30, generator=draw)
    return teacher + distance * torch.randn(64, 30, generator=draw), teacher


@pytest.mark.parametrize("divergence", DISTANCES)
@fast
@given(logits(1), TEMPERATURES)
def test_zero_for_equal_sides(divergence, given_logits, temperature):
    (p,) = given_logits
    assert divergence(p, p, temperature=temperature).eq(0).all()
    torch.testing.assert_close(
        gradient(divergence, p, p, temperature=temperature), torch.zeros_like(p), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("divergence", ALL)
@fast
@given(logits(), TEMPERATURES)
def test_one_finite_value_in_fp32_per_position_and_never_below_zero(divergence, given_logits, temperature):
    student, teacher = given_logits
    value = divergence(student, teacher, temperature=temperature)
    assert value.shape == student.shape[:-1] and value.dtype == torch.float32
    assert value.ge(0).all() and value.isfinite().all()
    assert gradient(divergence, student, teacher, temperature=temperature).isfinite().all()


@pytest.mark.parametrize("divergence", DISTANCES)
@fast
@given(st.integers(0, 2**31), st.sampled_from([1e-7, 1e-6, 1e-5, 1e-4]), TEMPERATURES)
def test_rounding_near_equality_gives_no_negative_value(divergence, seed, distance, temperature):
    student, teacher = near_pair(seed, distance)
    assert divergence(student, teacher, temperature=temperature).ge(0).all()


@pytest.mark.parametrize("divergence", DISTANCES)
def test_rounding_near_equality_loses_no_gradient(divergence):
    student, teacher = near_pair(0, 3e-6)
    assert gradient(divergence, student, teacher).abs().sum(-1).gt(0).all()


@fast
@given(logits(), TEMPERATURES, st.sampled_from([0.1, 0.3, 0.5]))
def test_jsd_is_symmetric(given_logits, temperature, beta):
    student, teacher = given_logits
    one = jsd(student, teacher, temperature=temperature, beta=beta)
    other = jsd(teacher, student, temperature=temperature, beta=1 - beta)
    torch.testing.assert_close(one, other, atol=1e-6 * temperature**2, rtol=1e-4)


@fast
@given(logits(), TEMPERATURES)
def test_jsd_is_bounded_by_log_two(given_logits, temperature):
    assert jsd(*given_logits, temperature=temperature).le(temperature**2 * math.log(2) * (1 + 1e-6)).all()


@pytest.mark.parametrize(("beta", "limit"), [(1e-4, kl), (1 - 1e-4, rkl)])
def test_jsd_goes_over_into_kl_and_rkl(beta, limit):
    """For β → 0 the mixture is the student and jsd/β is kl(teacher‖student); for β → 1 jsd/(1 − β) is the reverse."""
    student, teacher = torch.randn(2, 40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    scaled = jsd(student, teacher, beta=beta) / min(beta, 1 - beta)
    torch.testing.assert_close(scaled, limit(student, teacher), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("divergence", [kl, rkl, jsd])
@fast
@given(logits(), st.sampled_from([1.0, 3.0]), st.floats(-20, 20))
def test_constants_added_to_logits_change_nothing(divergence, given_logits, temperature, shift):
    student, teacher = (z.double() for z in given_logits)
    moved = divergence(student + shift, teacher - shift, temperature=temperature)
    torch.testing.assert_close(moved, divergence(student, teacher, temperature=temperature), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("divergence", ALL)
@fast
@given(logits(), TEMPERATURES)
def test_half_types_are_computed_in_fp32(divergence, given_logits, temperature):
    student, teacher = (z.bfloat16() for z in given_logits)
    half = divergence(student, teacher, temperature=temperature)
    assert torch.equal(half, divergence(student.float(), teacher.float(), temperature=temperature))


@pytest.mark.parametrize(("divergence", "factor"), [(kl, 1.0), (rkl, 1.0), (jsd, 0.25), (partial(jsd, beta=0.2), 0.16)])
def test_limit_of_high_temperature(divergence, factor):
    """T² KL → Σ (Δ − mean Δ)² / 2V with Δ = z_S − z_T (Hinton et al. 2015, eq. 4); jsd → β(1 − β) times that."""
    student, teacher = torch.randn(2, 16, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gap = student - teacher
    expected = factor * (gap - gap.mean(-1, keepdim=True)).square().sum(-1) / (2 * gap.shape[-1])
    torch.testing.assert_close(divergence(student, teacher, temperature=1e3), expected, rtol=5e-3, atol=0)
    in_fp32 = divergence(student.float(), teacher.float(), temperature=50.0)
    torch.testing.assert_close(in_fp32, expected.float(), rtol=0.1, atol=1e-2)


def test_gradient_keeps_its_size_as_the_temperature_grows():
    student, teacher = torch.randn(2, 64, 10, generator=torch.Generator().manual_seed(1))
    sizes = [gradient(kl, student, teacher, temperature=t).norm().item() for t in (1.0, 8.0, 64.0)]
    assert max(sizes) / min(sizes) < 3


@fast
@given(logits(), TEMPERATURES)
def test_gradient_of_kl_is_the_difference_of_probabilities(given_logits, temperature):
    student, teacher = (z.float() for z in given_logits)
    p_s, p_t = (torch.softmax(z / temperature, -1) for z in (student, teacher))
    for divergence in (kl, ce):
        found = gradient(divergence, student, teacher, temperature=temperature)
        torch.testing.assert_close(found, temperature * (p_s - p_t), atol=1e-5 * temperature, rtol=1e-4)


@pytest.mark.parametrize("divergence", ALL)
def test_gradients_are_those_of_the_value(divergence):
    draw = torch.Generator().manual_seed(2)
    student = torch.randn(3, 4, dtype=torch.float64, generator=draw, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64, generator=draw)
    assert torch.autograd.gradcheck(lambda z: divergence(z, teacher, temperature=2.0), student)


@pytest.mark.parametrize("divergence", [kl, rkl, jsd, ce, partial(jsd, beta=0.1)])
@fast
@given(logits(), TEMPERATURES, st.integers(1, 5))
def test_classes_masked_on_both_sides_do_not_exist(divergence, given_logits, temperature, masked):
    student, teacher = given_logits
    wall = torch.full((*student.shape[:-1], masked), -math.inf, dtype=student.dtype)
    wide = [torch.cat((z, wall), -1) for z in (student, teacher)]
    value = divergence(*wide, temperature=temperature)
    rounding = max(1e-5, 4e-7 * temperature**2)  # that of a log-probability in fp32, times T²
    torch.testing.assert_close(value, divergence(student, teacher, temperature=temperature), rtol=1e-5, atol=rounding)
    found = gradient(divergence, *wide, temperature=temperature)
    assert found[..., -masked:].eq(0).all() and found.isfinite().all()


def test_mse_ignores_classes_masked_on_both_sides():
    student = torch.tensor([1.0, 2.0, -math.inf])
    teacher = torch.tensor([1.0, 4.0, -math.inf])
    assert mse(student, teacher).item() == pytest.approx(4 / 3)
    assert gradient(mse, student, teacher).isfinite().all()


def test_a_class_only_one_side_excludes():
    open_, closed = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, -math.inf])
    assert kl(closed, open_).item() == math.inf
    assert rkl(open_, closed).item() == math.inf
    assert kl(open_, closed).isfinite() and rkl(closed, open_).isfinite()
    for student, teacher in ((open_, closed), (closed, open_)):
        assert jsd(student, teacher).isfinite() and gradient(jsd, student, teacher).isfinite().all()


@pytest.mark.parametrize("divergence", ALL)
def test_a_broken_side_is_not_hidden(divergence):
    good, broken = torch.zeros(2, 3), torch.tensor([[0.0, 1.0, math.nan], [0.0, 1.0, 2.0]])
    for sides in ((good, broken), (broken, good)):
        assert divergence(*sides).isnan().tolist() == [True, False]


@pytest.mark.parametrize("divergence", ALL)
def test_sides_are_never_broadcast(divergence):
    with pytest.raises(ValueError, match=r"student's shape \[4, 1\] is not the teacher's \[4, 3\]"):
        divergence(torch.zeros(4, 1), torch.zeros(4, 3))


@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5])
def test_beta_outside_its_range_is_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        jsd(torch.zeros(3), torch.zeros(3), beta=beta)


def test_mse_does_not_depend_on_the_temperature():
    student, teacher = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(4))
    assert torch.equal(mse(student, teacher, temperature=8.0), mse(student, teacher))
