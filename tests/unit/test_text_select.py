"""Which texts are picked: as sacreBLEU has it, and by a plain count of n-grams."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import sentence_bleu, sentence_chrf

from configs.stages import SelectStage
from distill.data.rows import Row, Rows
from distill.errors import DataError
from pipelines.select import choose, learnt
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


ROWS = Rows.of([Row("a", None, None, 1), Row("b", None, None, 2)])
WRITTEN = {
    1: {"texts": ["p", "q", "r"], "scores": [-0.1, -0.3, -0.9], "ended": [True, True, False]},
    2: {"texts": ["s", "t"], "scores": [-0.2, -0.4], "ended": [True, True]},
}
SEVERAL = SelectStage(kind="select", generated="texts", hypotheses=3, temperature=0.5)


def test_several_texts_of_a_source_are_chosen_best_first() -> None:
    found = choose(ROWS, WRITTEN, SEVERAL)
    assert [(one.row.id, one.number, one.text) for one in found] == [
        (1, 0, "p"), (1, 1, "q"), (1, 2, "r"), (2, 0, "s"), (2, 1, "t"),
    ]  # fmt: skip
    best = choose(ROWS, WRITTEN, SelectStage(kind="select", generated="texts"))
    assert [one.text for one in best] == ["p", "s"]
    assert [row.weight for row in learnt(best, SelectStage(kind="select", generated="texts"))] == [None, None]


def test_what_is_kept_of_a_source_shares_a_weight_of_one() -> None:
    kept = [one for one in choose(ROWS, WRITTEN, SEVERAL) if one.ended and one.text != "s"]
    rows = learnt(kept, SEVERAL)
    first = math.exp(-0.1 / 0.5) / (math.exp(-0.1 / 0.5) + math.exp(-0.3 / 0.5))
    assert [(row.text, row.target) for row in rows] == [("a", "p"), ("a", "q"), ("b", "t")]
    assert [row.weight for row in rows] == pytest.approx([first, 1 - first, 1.0])


def test_a_text_without_a_score_cannot_be_weighted() -> None:
    unscored = {1: {**WRITTEN[1], "scores": [None] * 3}, 2: WRITTEN[2]}
    with pytest.raises(DataError, match="hypotheses: 'p' has no score to be weighted by; keep 1 of each source"):
        learnt(choose(ROWS, unscored, SEVERAL), SEVERAL)
