"""TinyBERT's data augmentation (Jiao et al. 2020, section 3.3 and algorithm 1): words of a text replaced at random.

As pseudocode, for a text x and each copy of it::

    for each word w of x that is no stop word:
        C(w) = top-K words of the masked language model at w's place     if w is a single piece of its vocabulary
               top-K neighbours of w's embedding, by cosine              otherwise
    repeat N_a times:
        replace each w, with probability p_t, by a word drawn from C(w)

As in the authors' code, stop words and all that is not letters only are left alone, copies equal to the original or to
an earlier copy are left out, and of a pair each side is replaced by itself, so that it gets N_a new rows a side. Unlike
there, words are replaced where they stand, so that spacing, capitals and punctuation stay; candidates are whole words,
never punctuation or special tokens; and while one side of a pair is replaced the other is the original's (their code
left the last copy of the first side in place).

What a row becomes depends on the seed and the row alone, whatever the rows around it, their order and their number.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from configs.stages import AugmentStage
from distill.data.hashing import fractions, hash_text, mix
from distill.data.rows import Row, Rows
from distill.data.words import Span, content_words, with_case_of

ROWS_AT_ONCE = 256
"""Rows whose words are put to the proposers together."""

BY_MASKED_LM = "words with proposals of the masked language model"
BY_NEIGHBOURS = "words with proposals of the embeddings"
BY_NEIGHBOURS_ALONE = "words with proposals of the embeddings alone, for want of a masked language model"
BY_NOBODY = "words without proposals, left as they are"
COPIES = "rows added"


class Question(NamedTuple):
    """What could stand in place of a word?"""

    text: str
    span: Span

    @property
    def word(self) -> str:
        """The word as it is written."""
        return self.text[self.span.start : self.span.end]


class Proposer(ABC):
    """A source of words that could stand in place of another."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of all that decides what it proposes."""

    @abstractmethod
    def propose(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """Return for each question words, best first; none where this proposer is not the one to ask."""


class _Side(NamedTuple):
    """One text of a row, cut at its words."""

    gaps: list[str]
    """What stands before, between and after the words: one more than words."""
    words: list[str]
    candidates: list[tuple[str, ...]]


def augment(
    rows: Rows,
    settings: AugmentStage,
    *,
    masked_lm: Proposer | None,
    neighbours: Proposer,
    seed: int,
    notes: Counter[str] | None = None,
) -> Iterator[Row]:
    """Yield each row, followed by its copies; without a masked language model `neighbours` proposes for all words.

    Who proposed for how many words is added to `notes`.
    """
    counts = Counter[str]() if notes is None else notes
    for start in range(0, len(rows), ROWS_AT_ONCE):
        batch = list(rows.part(start, start + ROWS_AT_ONCE))
        texts = list(dict.fromkeys(text for row in batch for text in (row.text, row.pair) if text is not None))
        spans = [content_words(text) for text in texts]
        questions = [Question(text, span) for text, found in zip(texts, spans, strict=True) for span in found]
        proposals = iter(_ask(questions, masked_lm, neighbours, counts))
        sides = {text: _cut(text, found, proposals) for text, found in zip(texts, spans, strict=True)}
        for row in batch:
            yield row
            for copy in _copies(row, sides, settings, seed):
                counts[COPIES] += 1
                yield copy


def _ask(
    questions: Sequence[Question], masked_lm: Proposer | None, neighbours: Proposer, counts: Counter[str]
) -> list[tuple[str, ...]]:
    answers = [()] * len(questions) if masked_lm is None else masked_lm.propose(questions)
    open_questions = [number for number, answer in enumerate(answers) if not answer]
    counts[BY_MASKED_LM] += len(questions) - len(open_questions)
    found = neighbours.propose([questions[number] for number in open_questions])
    answers = list(answers)
    for number, answer in zip(open_questions, found, strict=True):
        answers[number] = answer
        kind = BY_NEIGHBOURS_ALONE if masked_lm is None else BY_NEIGHBOURS
        counts[kind if answer else BY_NOBODY] += 1
    return answers


def _cut(text: str, spans: Sequence[Span], proposals: Iterator[tuple[str, ...]]) -> _Side:
    """Cut a text at the words that have candidates; take one answer for each of its words."""
    asked = [(span, next(proposals)) for span in spans]
    answered = [(span, answer) for span, answer in asked if answer]
    ends = [0, *(span.end for span, _ in answered)]
    starts = [*(span.start for span, _ in answered), len(text)]
    words = [text[span.start : span.end] for span, _ in answered]
    return _Side(
        gaps=[text[end:start] for end, start in zip(ends, starts, strict=True)],
        words=words,
        candidates=[tuple(with_case_of(w, c) for c in answer) for w, (_, answer) in zip(words, answered, strict=True)],
    )


def _copies(row: Row, sides: dict[str, _Side], settings: AugmentStage, seed: int) -> Iterator[Row]:
    label = row.label if settings.labels == "keep" else None
    for text in _replaced(sides[row.text], settings, _key(seed, row, 0)):
        yield Row(text, row.pair, label, hash_text(text, row.pair))
    if row.pair is not None:
        for pair in _replaced(sides[row.pair], settings, _key(seed, row, 1)):
            yield Row(row.text, pair, label, hash_text(row.text, pair))


def _key(seed: int, row: Row, side: int) -> NDArray[np.uint64]:
    return np.array([hash_text("augment", str(seed), str(row.id), str(side))], dtype=np.uint64)


def _replaced(side: _Side, settings: AugmentStage, key: NDArray[np.uint64]) -> Iterator[str]:
    """Yield up to `copies` new texts, all different, none the original."""
    counter = np.arange(2 * settings.copies * len(side.words), dtype=np.uint64)
    draws = fractions((mix(key) + counter).astype(np.uint64)).reshape(2, settings.copies, len(side.words))
    sizes = np.array([len(found) for found in side.candidates])
    choices = (draws[0] * sizes).astype(np.int64).tolist()
    replaced = (draws[1] < settings.probability).tolist()
    seen = {_joined(side.gaps, side.words)}
    for chosen, flags in zip(choices, replaced, strict=True):
        picks = zip(side.words, side.candidates, chosen, flags, strict=True)
        text = _joined(side.gaps, [found[choice] if flag else word for word, found, choice, flag in picks])
        if text not in seen:
            seen.add(text)
            yield text


def _joined(gaps: Sequence[str], words: Sequence[str]) -> str:
    return gaps[0] + "".join([part for pair in zip(words, gaps[1:], strict=True) for part in pair])
