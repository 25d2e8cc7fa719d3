"""Scores of words and of hidden tokens, against plain loops, torchmetrics, and what seqeval 1.2.2 says."""

import random

import pytest
import torch
from torchmetrics.functional import classification

from distill.entities import entity_counts, is_iob2
from distill.errors import DataError
from distill.token_metrics import TokenMetrics, from_counts, labelled_places, names, row_counts, score, told
from distill.types import IGNORED

CLASSES = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")


def _spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """Names of one sentence, word by word, as the program of CoNLL 2003 tells them."""
    found, start = set(), None
    for place, tag in enumerate([*tags, "O"]):
        before = tags[place - 1] if place else "O"
        goes_on = tag.startswith("I-") and before != "O" and before[2:] == tag[2:]
        if start is not None and not goes_on:
            found.add((start, place - 1, before[2:]))
            start = None
        if tag != "O" and not goes_on:
            start = place
    return found


def _drawn(count: int, seed: int) -> list[list[str]]:
    draw = random.Random(seed)
    return [[draw.choice(CLASSES) for _ in range(draw.randint(1, 9))] for _ in range(count)]


def _padded(sentences: list[list[str]]) -> torch.Tensor:
    width = max(map(len, sentences)) + 1
    return torch.tensor([[*map(CLASSES.index, s), *[IGNORED] * (width - len(s))] for s in sentences])


def _noisy(sentences: list[list[str]], seed: int) -> list[list[str]]:
    draw = random.Random(seed)
    return [[tag if draw.random() < 0.7 else draw.choice(CLASSES) for tag in sentence] for sentence in sentences]


@pytest.mark.parametrize("seed", range(20))
def test_names_are_counted_as_word_by_word(seed):
    gold = _drawn(30, seed)
    said = _noisy(gold, seed + 100)
    counts = entity_counts(_padded(said).clamp_min(0), _padded(gold), CLASSES)
    for found, own, wanted in zip(counts.tolist(), map(_spans, said), map(_spans, gold), strict=True):
        assert found == [len(own & wanted), len(own), len(wanted)]


def test_f1_of_names_is_that_of_seqeval():
    """seqeval 1.2.2: `f1_score(gold, said)` of these sentences, and of 500 that are drawn."""
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["I-LOC", "I-LOC", "B-LOC", "O"], ["O", "B-PER", "I-LOC"]]
    said = [["B-PER", "I-PER", "O", "I-LOC"], ["B-LOC", "I-LOC", "I-LOC", "O"], ["O", "B-PER", "I-PER"]]
    few = entity_counts(_padded(said).clamp_min(0), _padded(gold), CLASSES).sum(0)
    assert float(from_counts("entity_f1", few)) == pytest.approx(SEQEVAL_FEW, abs=1e-12)
    drawn = _drawn(500, 7)
    many = entity_counts(_padded(_noisy(drawn, 8)).clamp_min(0), _padded(drawn), CLASSES).sum(0)
    assert float(from_counts("entity_f1", many)) == pytest.approx(SEQEVAL_MANY, abs=1e-12)


SEQEVAL_FEW = 0.4
SEQEVAL_MANY = 0.716671727907683


def _batch(rows: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B T V] and labels [B T] with labels at some positions only, as first pieces of words."""
    made = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (rows, 9), generator=made)
    labels = labels.masked_fill(torch.rand(labels.shape, generator=made) < 0.4, IGNORED)
    return torch.randn(rows, 9, 5, generator=made), labels


def test_accuracy_and_f1_are_those_of_torchmetrics():
    logits, labels = _batch()
    places, gold = labelled_places(labels, 9)
    found = score("tagging", logits.gather(1, places[..., None].expand(-1, -1, 5)), gold, CLASSES)
    here = labels != IGNORED
    accuracy = classification.multiclass_accuracy(logits[here], labels[here], 5, average="micro")
    macro = classification.multiclass_f1_score(logits[here], labels[here], 5, average="macro")
    assert found["accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    assert found["f1_macro"] == pytest.approx(float(macro), abs=1e-6)


@pytest.mark.parametrize("kind", ["tagging", "masked_lm"])
def test_batches_give_the_score_of_the_whole(kind):
    logits, labels = _batch(12)
    whole, parts = TokenMetrics(kind, 5, CLASSES), TokenMetrics(kind, 5, CLASSES)
    whole.update(logits, labels)
    for rows in (slice(0, 5), slice(5, 12)):
        parts.update(logits[rows], labels[rows])
    assert parts.compute() == pytest.approx(whole.compute())
    assert set(whole.compute()) == set(names(kind, CLASSES))


def test_places_keep_their_order_and_end_with_none():
    labels = torch.tensor([[IGNORED, 3, IGNORED, 1], [2, 0, 4, 1]])
    places, gold = labelled_places(labels, 5)
    assert gold.tolist() == [[3, 1, IGNORED, IGNORED, IGNORED], [2, 0, 4, 1, IGNORED]]
    assert places[0, :2].tolist() == [1, 3] and places[1, :4].tolist() == [0, 1, 2, 3]


def test_hidden_tokens_are_scored_by_rank_and_likelihood():
    logits, labels = _batch(4)
    places, gold = labelled_places(labels, 9)
    taken = logits.gather(1, places[..., None].expand(-1, -1, 5))
    found = score("masked_lm", told(taken, gold), gold, ())
    here = labels != IGNORED
    own = torch.nn.functional.cross_entropy(logits[here], labels[here])
    assert found["log_prob"] == pytest.approx(-float(own), abs=1e-6)
    assert found["perplexity"] == pytest.approx(float(own.exp()), abs=1e-5)
    assert found["masked_accuracy"] == pytest.approx(float((logits[here].argmax(-1) == labels[here]).double().mean()))


def test_counts_of_rows_add_up():
    logits, labels = _batch(8)
    for name in names("tagging", CLASSES):
        each = torch.stack([row_counts(name, logits[i : i + 1], labels[i : i + 1], CLASSES)[0] for i in range(8)])
        assert torch.equal(each, row_counts(name, logits, labels, CLASSES))


def test_names_are_scored_where_classes_are_iob2_tags_only():
    assert is_iob2(CLASSES) and not is_iob2(("NOUN", "VERB")) and not is_iob2(("O", "I-PER")) and not is_iob2(())
    assert names("tagging", ("NOUN", "VERB")) == ("accuracy", "f1_macro")


def test_without_a_label_there_is_no_score():
    with pytest.raises(DataError, match="none of the rows"):
        score("tagging", torch.zeros(2, 3, 5), torch.full((2, 3), IGNORED), CLASSES)
