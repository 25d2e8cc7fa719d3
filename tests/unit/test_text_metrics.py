"""Scores of texts: as sacreBLEU, torchmetrics and Google publish them, and resampled as if every sample were scored."""

import random
import re
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torchmetrics.functional.text import rouge_score

from distill.errors import DataError, ModelError
from distill.text_metrics import DECIDING, bootstrap, names, score, signature, value

# the example of sacreBLEU's own README, with what it prints
SYSTEM = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
FIRST = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
SECOND = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]
BOTH = list(zip(FIRST, SECOND, strict=True))

WORDS = ["dog", "man", "the", "a", "bites", "Berlin", "."]
lines = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join)
corpora = st.lists(st.tuples(lines, st.lists(lines, min_size=1, max_size=3)), min_size=1, max_size=6)


def direct(metric: str, texts: list[str], references: list[list[str]]) -> float:
    """The library's own corpus function."""
    if metric in ("bleu", "chrf"):
        longest = max(map(len, references))
        columns: list[Any] = [[row[i] if i < len(row) else None for row in references] for i in range(longest)]
        return (BLEU() if metric == "bleu" else CHRF()).corpus_score(texts, columns).score / 100
    return float(rouge_score(texts, references, rouge_keys=metric)[f"{metric}_fmeasure"])


def made(seed: int, rows: int) -> tuple[list[str], list[str], list[str], list[list[str]]]:
    """Two systems that scramble references more or less, those, and their numbers one to three a row."""
    draw = random.Random(seed)
    truth = [[draw.choice(WORDS) for _ in range(draw.randint(4, 12))] for _ in range(rows)]

    def worse(by: float) -> list[str]:
        return [" ".join(word if draw.random() > by else draw.choice(WORDS) for word in row) for row in truth]

    plain = [" ".join(row) for row in truth]
    several = [[line, *draw.sample(plain, draw.randint(0, 2))] for line in plain]
    return worse(0.2), worse(0.5), plain, several


def test_the_numbers_that_sacrebleu_publishes():
    found = score(SYSTEM, BOTH, ["x"] * 3)
    assert found["bleu"] == pytest.approx(0.4853, abs=5e-5)
    assert found["chrf"] == pytest.approx(0.5973, abs=5e-5)
    assert found["length_ratio"] == pytest.approx(17 / 18)


@pytest.mark.parametrize(
    ("metric", "text", "references", "expected"),
    [
        ("rouge1", "testing", ["testing one two"], 1 / 2),
        ("rouge2", "testing one", ["testing one two"], 2 / 3),
        ("rougeL", "testing two", ["testing one two"], 4 / 5),
        ("rougeL", "", ["testing one two"], 0),
        ("rouge1", "testing one two", ["testing", "two one testing"], 1),
        ("rougeL", "The quick brown fox jumps over the lazy dog", ["The quick brown dog jumps on the log."], 10 / 17),
    ],
)
def test_the_numbers_that_google_publishes(metric, text, references, expected):
    assert value(metric, [text], [references]) == pytest.approx(expected, abs=1e-7)


@settings(deadline=None)
@given(corpora)
def test_every_score_is_that_of_the_library(corpus):
    texts, references = [text for text, _ in corpus], [found for _, found in corpus]
    found = score(texts, references, texts, rouge=True)
    for metric in DECIDING:
        expected = direct(metric, texts, references)
        assert found[metric] == value(metric, texts, references) == pytest.approx(expected, abs=1e-6)
        assert 0 <= found[metric] <= 1


def test_a_row_may_have_more_references_than_another():
    ragged = [[FIRST[0], SECOND[0]], [FIRST[1]], FIRST[2]]
    assert value("bleu", SYSTEM, ragged) == value("bleu", SYSTEM, [*BOTH[:1], *FIRST[1:]])
    # "" as a filler would be a reference of no words: a text of one word is then nearer to it than to one of four
    assert score(["a"], [["a b c d"]], ["x"])["length_ratio"] == 1 / 4
    assert score(["a"], [["a b c d", ""]], ["x"])["length_ratio"] == 0


@settings(deadline=None)
@given(corpora, st.randoms())
def test_the_order_of_rows_changes_nothing(corpus, order):
    mixed = order.sample(corpus, len(corpus))
    first, second = (score([a for a, _ in rows], [b for _, b in rows], ["x"] * len(rows)) for rows in (corpus, mixed))
    assert first == pytest.approx(second, abs=1e-12)


def test_perfect_texts_score_one_and_have_no_faults():
    _, _, plain, several = made(3, 30)
    expected = dict.fromkeys((*DECIDING, "length_ratio"), pytest.approx(1, abs=1e-6))
    faults = dict.fromkeys(("repetition", "copies", "hallucinated", "empty"), 0.0)
    assert score(plain, several, plain, rouge=True) == expected | faults
    assert score(plain, several, plain)["bleu"] <= 1  # sacreBLEU itself says 100.00000000000004


def test_texts_too_short_for_a_4_gram_have_no_bleu():
    assert score(["a b c"], ["a b c"], ["x"])["bleu"] == 0 == BLEU().corpus_score(["a b c"], [["a b c"]]).score


@pytest.mark.parametrize("metric", DECIDING)
def test_an_interval_is_that_of_scoring_every_sample(metric):
    pairs = [made(seed, 25)[:2] for seed in (0, 1)]
    references = made(0, 25)[3]
    draw = np.random.default_rng(5)
    differences = []
    for _ in range(40):
        rows = draw.integers(25, size=25)
        wanted = [references[row] for row in rows]
        scores = [[direct(metric, [texts[row] for row in rows], wanted) for texts in pair] for pair in pairs]
        differences.append(np.mean([ours - theirs for ours, theirs in scores]))
    expected = np.percentile(differences, (2.5, 97.5))
    assert bootstrap(metric, pairs, references, resamples=40, seed=5) == pytest.approx(tuple(expected), abs=1e-6)


@pytest.mark.parametrize("metric", DECIDING)
def test_an_interval_is_nothing_among_equals_and_turns_with_the_sides(metric):
    ours, theirs, plain, _ = made(7, 60)
    assert bootstrap(metric, [(ours, ours), (theirs, theirs)], plain, resamples=50) == (0, 0)
    low, high = bootstrap(metric, [(ours, theirs)], plain, resamples=200)
    assert 0 < low < value(metric, ours, plain) - value(metric, theirs, plain) < high
    assert bootstrap(metric, [(theirs, ours)], plain, resamples=200) == pytest.approx((-high, -low), abs=1e-12)


def test_signatures_are_those_of_sacrebleu():
    version = sacrebleu.__version__
    assert signature("bleu") == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert signature("chrf", BOTH) == f"nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}"
    used = BLEU()
    used.corpus_score(SYSTEM, [FIRST, [SECOND[0], None, None]])
    assert signature("bleu", [*BOTH[:1], *FIRST[1:]]) == str(used.get_signature())
    ours = f"case:lc|stem:no|tok:a-z0-9|mean:f|version:torchmetrics-{torchmetrics.__version__}"
    assert signature("rougeL", FIRST) == f"nrefs:1|{ours}"
    assert signature("rouge1", [*BOTH[:1], *FIRST[1:]]) == f"nrefs:var|{ours}"


def test_names_are_those_of_the_scores_in_their_order():
    for rouge in (False, True):
        assert names(rouge=rouge) == tuple(score(SYSTEM, FIRST, ["x"] * 3, rouge=rouge))
    assert names(rouge=True)[:5] == DECIDING and names()[:3] == ("bleu", "chrf", "length_ratio")


@pytest.mark.parametrize(
    ("texts", "references", "message"),
    [
        (["a"], ["a", "b"], "metrics: 1 texts for 2 references"),
        ([], [], "metrics: there are no rows to score on"),
        (["a", "b"], ["a", []], "metrics: row 2 of 2 has no reference"),
    ],
)
def test_errors_say_what_is_wrong(texts, references, message):
    for call in (
        lambda: score(texts, references, texts),
        lambda: value("chrf", texts, references),
        lambda: bootstrap("bleu", [(texts, texts)], references),
    ):
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            call()


def test_sources_and_names_that_do_not_fit():
    with pytest.raises(DataError, match=r"^metrics: 3 texts for 1 sources$"):
        score(SYSTEM, FIRST, ["x"])
    message = "task.metric: `rouge` is no metric of a generation; did you mean `rougeL`? Choices: bleu, chrf, "
    for call in (
        lambda: value("rouge", SYSTEM, FIRST),
        lambda: signature("rouge"),
        lambda: bootstrap("rouge", [(SYSTEM, SYSTEM)], FIRST),
    ):
        with pytest.raises(ModelError, match=f"^{re.escape(message)}"):
            call()
