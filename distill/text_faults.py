"""How often texts that a model writes go wrong, as anyone can see: loops, copies, hallucinations, nothing at all."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOOP_WORDS, LOOPS_MORE = 4, 3
NGRAM_WORDS, NGRAMS_MORE = 4, 2
DETACHED_SOURCES = 3

_CJK, _ASIA = "\u3040-\u30ff\u3400-\u9fff", "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_MARKS = r"!-/:-@\[-`{-~\u00a1-\u00bf\u2010-\u205e\u3000-\u303f\uff01-\uff0f"
_WORD = re.compile(rf"[{_CJK}{_ASIA}]|[^\s{_CJK}{_ASIA}{_MARKS}]+")
_TOKEN = re.compile(rf"{_WORD.pattern}|\S")
_UNSPACED = {2: re.compile(f"[{_CJK}]"), 4: re.compile(f"[{_ASIA}]")}
"""Letters that count as a word where words are not written apart: in Chinese, Japanese; Thai, Lao, Burmese, Khmer."""


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
    empty: nothing but white space.
    """
    return {name: sum(rule(rows)) / len(rows) for name, rule in _RULES.items()}


def bare(text: str) -> str:
    """Return a text's words, without case and punctuation."""
    return " ".join(_WORD.findall(text.casefold()))


def longest_loop(text: str) -> int:
    """Return how often, at most, an n-gram of 1 to 4 words stands in a row; 1 where none is repeated."""
    tokens, longest = _tokens(text), 1
    for n in range(1, LOOP_WORDS * _word_length(tokens) + 1):
        streak = 0
        for token, before in zip(tokens[n:], tokens, strict=False):
            streak = streak + 1 if token == before else 0
            longest = max(longest, streak // n + 1)
    return longest


def top_ngram(text: str) -> int:
    """Return how often the most frequent 4-gram comes; 0 where the text is shorter."""
    tokens = _tokens(text)
    shifted = (tokens[start:] for start in range(NGRAM_WORDS * _word_length(tokens)))
    return max(Counter(zip(*shifted, strict=False)).values(), default=0)


def _tokens(text: str) -> list[str]:
    """Return words and punctuation marks."""
    return _TOKEN.findall(text.casefold())


def _word_length(tokens: Sequence[str]) -> int:
    """Return how many tokens make a word."""
    for length, letter in _UNSPACED.items():
        if 2 * sum(letter.match(token) is not None for token in tokens) > len(tokens):
            return length
    return 1


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
        (len(sources[bare(row.text)]) >= DETACHED_SOURCES or _oscillates(row)) and _says(row) and not row.is_reference
        for row in rows
    ]


def _oscillates(row: Written) -> bool:
    top = top_ngram(row.text)
    return top >= NGRAMS_MORE and top >= top_ngram(row.source) + NGRAMS_MORE


def _empty(rows: Sequence[Written]) -> list[bool]:
    return [not _says(row) for row in rows]


def _says(row: Written) -> bool:
    return bool(row.text.strip())


_RULES: dict[str, Callable[[Sequence[Written]], list[bool]]] = {
    "repetition": _repetition,
    "copies": _copies,
    "hallucinated": _hallucinated,
    "empty": _empty,
}
FAULTS = tuple(_RULES)
