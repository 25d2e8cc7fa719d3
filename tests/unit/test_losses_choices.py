"""T-Few's losses against their formulas written out as loops."""

import math

import pytest
import torch

from distill.losses import choices
from distill.losses.choices import LengthNormalised, Unlikelihood, answer_scores
from distill.losses.reduction import Positions
from distill.types import IGNORED, Outputs
from tests.helpers.choices import VOCABULARY, batch_of, outputs_of

ROWS = [(3, (2, 4)), (1, (1,)), (2, ()), (4, (3, 1, 2))]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def token_probabilities(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """p of each token of one answer."""
    found = []
    for scores, label in zip(logits.detach().double().tolist(), labels.tolist(), strict=True):
        if label != IGNORED:
            found.append(math.exp(scores[label]) / sum(math.exp(score) for score in scores))
    return found


def mean_log(logits: torch.Tensor, labels: torch.Tensor) -> float:
    found = [math.log(p) for p in token_probabilities(logits, labels)]
    return sum(found) / len(found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unlikelihood_is_minus_log_of_all_but_the_tokens_of_wrong_answers(dtype: torch.dtype) -> None:
    batch = batch_of(ROWS)
    student = outputs_of(batch, dtype=dtype)
    expected, tokens = 0.0, 0
    for logits, labels in zip(student.choices, batch["choices"]["labels"], strict=True):
        for p in token_probabilities(logits, labels):
            expected -= math.log(1 - p)
            tokens += 1
    assert tokens == sum(length for _, wrong in ROWS for length in wrong)
    assert float(Unlikelihood()(student, Outputs(), batch).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_length_normalised_is_a_cross_entropy_over_the_answers_of_a_row(dtype: torch.dtype) -> None:
    batch = batch_of(ROWS)
    student, wrong_ones = outputs_of(batch, dtype=dtype), batch["choices"]
    expected = 0.0
    for row in range(len(ROWS)):
        right = mean_log(student.logits[row], batch["labels"][row])
        mine = [number for number, other in enumerate(wrong_ones["rows"].tolist()) if other == row]
        wrong = [mean_log(student.choices[number], wrong_ones["labels"][number]) for number in mine]
        expected += math.log(sum(math.exp(score) for score in (right, *wrong))) - right
    assert float(LengthNormalised()(student, Outputs(), batch).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("term", [Unlikelihood(), LengthNormalised()], ids=["unlikelihood", "length_normalised"])
def test_what_is_no_token_of_an_answer_reaches_neither_loss_nor_gradient(term) -> None:
    batch = batch_of(ROWS)
    clean, spoilt = outputs_of(batch), outputs_of(batch)
    with torch.no_grad():
        spoilt.choices.masked_fill_((batch["choices"]["labels"] == IGNORED)[..., None], math.nan)
        spoilt.logits.masked_fill_((batch["labels"] == IGNORED)[..., None], math.inf)
    one, other = (term(side, Outputs(), batch) for side in (clean, spoilt))
    torch.testing.assert_close(one, other)
    gradients = [torch.autograd.grad(loss, side.choices)[0] for loss, side in ((one, clean), (other, spoilt))]
    torch.testing.assert_close(*gradients)
    assert gradients[0][batch["choices"]["labels"] == IGNORED].abs().max() == 0


def test_a_wrong_answer_that_is_certain_has_a_finite_loss_and_gradient() -> None:
    batch = batch_of([(1, (2,))])
    labels = batch["choices"]["labels"]
    sure = 200.0 * torch.nn.functional.one_hot(labels, VOCABULARY).float()
    logits = sure.requires_grad_()
    loss = Unlikelihood()(Outputs(choices=logits), Outputs(), batch)
    gradient = torch.autograd.grad(loss, logits)[0]
    expected = 2 * (200.0 - math.log(VOCABULARY - 1))  # −log((V − 1) / e^200) for each of two tokens
    assert float(loss.detach()) == pytest.approx(expected) and gradient.isfinite().all()
    assert gradient.gather(-1, labels[..., None]).min() == pytest.approx(1.0)


@pytest.mark.parametrize("term", [Unlikelihood(), LengthNormalised()], ids=["unlikelihood", "length_normalised"])
def test_a_batch_without_wrong_answers_adds_nothing_and_has_a_gradient_of_nothing(term) -> None:
    batch = batch_of([(2, ()), (3, ())])
    student = outputs_of(batch)
    loss = term(student, Outputs(), batch)
    assert float(loss.detach()) == 0 and loss.requires_grad


def test_ranking_takes_the_likeliest_by_its_mean_and_a_tie_is_wrong() -> None:
    batch = batch_of(ROWS)
    student, wrong_ones = outputs_of(batch), batch["choices"]
    scores = answer_scores(student, batch["labels"], wrong_ones, 4)
    assert scores.shape == (4, 5)
    for row, (_, wrong) in enumerate(ROWS):
        mine = [number for number, other in enumerate(wrong_ones["rows"].tolist()) if other == row]
        expected = [mean_log(student.choices[number], wrong_ones["labels"][number]) for number in mine]
        assert scores[row, : len(wrong)].detach().tolist() == pytest.approx(expected)
        assert (scores[row, len(wrong) : -1] < -1e30).all()
        assert float(scores[row, -1].detach()) == pytest.approx(mean_log(student.logits[row], batch["labels"][row]))
    even = Outputs(logits=torch.zeros(4, 4, VOCABULARY), choices=torch.zeros(6, 4, VOCABULARY))
    found = answer_scores(even, batch["labels"], wrong_ones, 4).argmax(-1)
    assert found.tolist() == [0, 0, 4, 0]  # the row with one answer alone is right


@pytest.mark.parametrize("term", [Unlikelihood(), LengthNormalised()], ids=["unlikelihood", "length_normalised"])
def test_a_device_that_takes_all_positions_and_a_mask_computes_the_same(term, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(ROWS)
    picked, masked = outputs_of(batch), outputs_of(batch)
    one = term(picked, Outputs(), batch)
    monkeypatch.setattr(choices, "unmasked", lambda mask: Positions(keep=mask.flatten()))
    other = term(masked, Outputs(), batch)
    torch.testing.assert_close(one, other)
    gradients = [torch.autograd.grad(*pair)[0] for pair in ((one, picked.choices), (other, masked.choices))]
    torch.testing.assert_close(*gradients)
