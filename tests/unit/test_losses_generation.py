"""Losses on target tokens against their formulas written out as loops; what is no target token is inert."""

import math

import pytest
import torch
from torch import Tensor

from distill.losses import divergences
from distill.losses.logits import TokenLogits
from distill.losses.task import CrossEntropy
from distill.losses.top_k import top_k_ce, top_k_kl
from distill.types import IGNORED, Batch, Outputs
from tests.helpers import reference

LABELS = torch.tensor([[2, 0, 4, IGNORED], [IGNORED, 1, IGNORED, 3], [IGNORED] * 4])


def batch_of(labels: Tensor = LABELS) -> Batch:
    mask = torch.ones(len(labels), 3, dtype=torch.int64)
    ids = torch.zeros_like(mask)
    return Batch(
        input_ids=ids,
        attention_mask=mask,
        labels=labels,
        example_ids=torch.arange(len(labels)),
        window_counts={},
        progress=0.0,
        step=0,
    )


def logits_of(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, 5, generator=draw, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_task_is_the_cross_entropy_of_each_target_token(dtype: torch.dtype, smoothing: float) -> None:
    logits = logits_of(0, dtype)
    found = CrossEntropy("weighted_targets", smoothing)(Outputs(logits=logits), Outputs(), batch_of())
    expected = 0.0
    for row in range(3):
        for place in range(4):
            if (label := int(LABELS[row, place])) == IGNORED:
                continue
            scores = logits[row, place].double().tolist()
            total = math.log(sum(math.exp(score) for score in scores))
            gold = (1 - smoothing) * (total - scores[label])
            expected += gold + smoothing * sum(total - score for score in scores) / 5
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["ce", "kl", "rkl", "jsd", "mse"])
def test_word_level_distillation_is_the_divergence_at_each_target_token(name: str) -> None:
    student, teacher = logits_of(0), logits_of(1)
    term = TokenLogits(getattr(divergences, name), 2.0)
    found = term(Outputs(logits=student), Outputs(logits=teacher), batch_of())
    parts = [
        getattr(reference, name)(student[row, place].unbind(), teacher[row, place].unbind(), 2.0)
        for row in range(3)
        for place in range(4)
        if LABELS[row, place] != IGNORED
    ]
    torch.testing.assert_close(found, reference.total(parts))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("dense", "kept"), [(divergences.kl, top_k_kl), (divergences.ce, top_k_ce)])
def test_all_tokens_kept_are_as_good_as_logits(dense, kept, temperature: float) -> None:
    student, teacher = logits_of(0).requires_grad_(), logits_of(1)
    best = teacher.log_softmax(-1).topk(5)
    found = kept(student, best.indices, best.values, temperature=temperature)
    expected = dense(student, teacher, temperature=temperature)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(values.sum(), student)[0] for values in (found, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kept", [1, 3])
def test_the_most_likely_tokens_are_made_to_sum_to_one(kept: int) -> None:
    student, teacher = logits_of(0)[0, 0], logits_of(1)[0, 0]
    best = teacher.log_softmax(-1).topk(kept)
    total = sum(math.exp(float(value) / 2) for value in best.values)
    own = (student / 2).log_softmax(-1).tolist()
    expected_kl = expected_ce = 0.0
    for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        p = math.exp(value / 2) / total
        expected_ce -= 4 * p * own[token]
        expected_kl += 4 * p * (math.log(p) - own[token])
    assert float(top_k_kl(student, best.indices, best.values, temperature=2.0)) == pytest.approx(expected_kl)
    assert float(top_k_ce(student, best.indices, best.values, temperature=2.0)) == pytest.approx(expected_ce)


@pytest.mark.parametrize(
    "term", [CrossEntropy("weighted_targets", 0.1), TokenLogits(divergences.kl, 1.0)], ids=["task", "logits"]
)
def test_what_is_no_target_token_reaches_neither_loss_nor_gradient(term) -> None:
    clean = logits_of(0).requires_grad_()
    spoilt = logits_of(0).masked_fill((LABELS == IGNORED)[..., None], math.nan).requires_grad_()
    teacher = Outputs(logits=logits_of(1).masked_fill((LABELS == IGNORED)[..., None], math.inf))
    whole = Outputs(logits=logits_of(1))
    one = term(Outputs(logits=clean), whole, batch_of())
    other = term(Outputs(logits=spoilt), teacher, batch_of())
    torch.testing.assert_close(one, other)
    gradient = torch.autograd.grad(one, clean)[0]
    torch.testing.assert_close(torch.autograd.grad(other, spoilt)[0].nan_to_num(), gradient)
    assert gradient[LABELS == IGNORED].abs().max() == 0
