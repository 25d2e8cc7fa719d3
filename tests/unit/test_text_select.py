"""Which texts are picked: as sacreBLEU has it, and by a plain count of n-grams."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import sentence_bleu, sentence_chrf

from teachers.text.select import oracle, scorer, weights

REFERENCE = "two dogs are running through the snow ."
TEXTS = [
    "two dogs run in snow .",
    "two dogs are running in the snow .",
    "a dog is running through the snow .",
    "two dogs are running through the snow .",
]


def plain_bleu_plus_one(text: str, reference: str) -> float:
    """Lin and Och's smoothed sentence BLEU, word for word."""
    ours, theirs = text.split(), reference.split()
    logs = []
    for n in range(1, 5):
        found = Counter(tuple(ours[i : i + n]) for i in range(len(ours) - n + 1))
        wanted = Counter(tuple(theirs[i : i + n]) for i in range(len(theirs) - n + 1))
        plus = int(n > 1)
        hits, total = sum((found & wanted).values()) + plus, sum(found.values()) + plus
        logs.append(math.log(hits / total))
    penalty = min(0.0, 1 - len(theirs) / len(ours))
    return 100 * math.exp(penalty + sum(logs) / 4)


@pytest.mark.parametrize("text", TEXTS)
def test_bleu_plus_one_equals_the_plain_count_and_sacrebleu(text):
    found = scorer("bleu")(text, REFERENCE)
    assert found == pytest.approx(plain_bleu_plus_one(text, REFERENCE), abs=1e-9)
    assert found == pytest.approx(
        sentence_bleu(text, [REFERENCE], smooth_method="add-k", smooth_value=1, use_effective_order=True).score
    )
    assert scorer("chrf")(text, REFERENCE) == pytest.approx(sentence_chrf(text, [REFERENCE]).score)


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_the_oracle_is_the_text_most_like_the_reference(metric):
    assert oracle(TEXTS, REFERENCE, scorer(metric)) == (3, pytest.approx(100.0))
    scores = [scorer(metric)(text, REFERENCE) for text in TEXTS[:3]]
    assert oracle(TEXTS[:3], REFERENCE, scorer(metric))[0] == scores.index(max(scores))


def test_of_equals_the_teachers_own_order_decides():
    assert oracle([TEXTS[1], TEXTS[1]], REFERENCE, scorer("bleu"))[0] == 0


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=8), st.floats(0.1, 5))
def test_weights_are_a_distribution_in_the_order_of_the_scores(scores, temperature):
    found = weights(scores, temperature)
    assert found.sum() == pytest.approx(1.0) and (found >= 0).all()
    assert (np.diff(found[np.argsort(scores)]) >= -1e-12).all()


def test_weights_by_the_formula_and_its_limits():
    assert weights([-1.0, -2.0], 0.5) == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))])
    assert weights([-1.0, -2.0], 1e6) == pytest.approx([0.5, 0.5], abs=1e-6)
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        weights([-1.0], 0.0)
