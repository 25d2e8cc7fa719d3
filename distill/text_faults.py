"""How often texts that a model writes go wrong, as anyone can see: loops, copies, hallucinations, nothing at all."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill import text_units
from distill.text_units import is_empty

LOOP_WORDS, LOOPS_MORE = 4, 3
NGRAM_WORDS, NGRAMS_MORE = 4, 2
DETACHED_SOURCES = 3


@dataclass(frozen=True)
class Written:
    """A text, and what it was to be."""

    text: str
    source: str
    references: Sequence[str]

    @property
    def is_reference(self) -> bool:
        """Whether it has the words of a reference."""
        return bare(self.text) in map(bare, self.references)


def fault_shares(rows: Sequence[Written]) -> dict[str, float]:
    """Return the shares of rows with each fault. Case never counts; a text in the words of a reference has none.

    repetition: some n-gram of 1 to 4 words stands in a row at least 3 times more often than any does in the source,
    and more often than any does in a reference.
    copies: the words are those of the source, punctuation aside.
    hallucinated: natural hallucinations as Raunak et al. 2021 find them. Oscillatory: the top n-gram comes at least t
    times more often than the source's, with n = 4, t = 2 of Guerreiro et al. 2023 (Dankers and Raunak 2025 take
    bigrams that come more than 10 times, and more than 4 times more often, for corpora of millions of rows).
    Detached: the text, punctuation aside, is that of at least 3 different sources.
    empty: nothing to be seen.
    """
    return {name: sum(rule(rows)) / len(rows) for name, rule in _RULES.items()}


def bare(text: str) -> str:
    """Return a text's words, without case and punctuation."""
    return " ".join(text_units.words(text))


def longest_loop(text: str) -> int:
    """Return how often, at most, an n-gram of 1 to 4 words stands in a row; 1 where none is repeated."""
    return text_units.longest_loop(text_units.tokens(text), LOOP_WORDS)


def top_ngram(text: str) -> int:
    """Return how often the most frequent 4-gram comes; 0 where the text is shorter."""
    return text_units.top_phrase(text_units.tokens(text), NGRAM_WORDS)


def _repetition(rows: Sequence[Written]) -> list[bool]:
    loops = [longest_loop(row.text) for row in rows]
    return [
        loop >= 1 + LOOPS_MORE
        and loop >= longest_loop(row.source) + LOOPS_MORE
        and loop > max(map(longest_loop, row.references))
        for loop, row in zip(loops, rows, strict=True)
    ]


def _copies(rows: Sequence[Written]) -> list[bool]:
    return [bare(row.text) == bare(row.source) != "" and not row.is_reference for row in rows]


def _hallucinated(rows: Sequence[Written]) -> list[bool]:
    sources = defaultdict(set)
    for row in rows:
        sources[bare(row.text)].add(bare(row.source))
    return [
        (len(sources[bare(row.text)]) >= DETACHED_SOURCES or _oscillates(row))
        and not is_empty(row.text)
        and not row.is_reference
        for row in rows
    ]


def _oscillates(row: Written) -> bool:
    top = top_ngram(row.text)
    return top >= NGRAMS_MORE and top >= top_ngram(row.source) + NGRAMS_MORE


def _empty(rows: Sequence[Written]) -> list[bool]:
    return [is_empty(row.text) for row in rows]


_RULES: dict[str, Callable[[Sequence[Written]], list[bool]]] = {
    "repetition": _repetition,
    "copies": _copies,
    "hallucinated": _hallucinated,
    "empty": _empty,
}
FAULTS = tuple(_RULES)
