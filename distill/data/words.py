"""Words: where they stand in a text, which are left alone, which pieces of a vocabulary are whole ones."""

import re
import unicodedata
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from distill.data.tokenise import plain

_RUN_OF_LETTERS = re.compile(r"(?<!\w)[^\W\d_]++(?!\w)")

_STOP_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its
itself they them their theirs themselves this that these those
am is are was were be been being have has had having do does did doing can will should
ain aren couldn didn doesn don hadn hasn haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn
d ll m o re s t ve y
a an the and but if or because as until while of at by for with about against between into through during before after
above below to from up down in out on off over under
again further then once here there all any both each few more most other some such no nor not only own same so than too
very just now
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English words whose replacement changes a sentence's grammar more than its wording: pronouns, auxiliaries and what is
left of their contractions (don't, they'll), articles, conjunctions, prepositions, adverbs and quantifiers."""


class Span(NamedTuple):
    """A word of a text."""

    start: int
    end: int


def content_words(text: str) -> list[Span]:
    """Return the words that may be replaced: runs of letters, touching no digit or mark, that are no stop words."""
    found = (Span(*match.span()) for match in _RUN_OF_LETTERS.finditer(text))
    plain = text.isascii()
    return [
        span
        for span in found
        if text[span.start : span.end].lower() not in STOP_WORDS and (plain or not _touches_mark(text, span))
    ]


def with_case_of(word: str, candidate: str) -> str:
    """Return a candidate written as the word it replaces: Capital first, or ALL CAPITALS."""
    if word.isupper() and len(word) > 1:
        return candidate.upper()
    return candidate[:1].upper() + candidate[1:] if word[0].isupper() else candidate


def whole_words(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    """Return the pieces of a vocabulary that are whole words of letters: {token id: word}.

    A piece is a whole word where the word, after another one, becomes this piece and no other; so the marks that
    tokenizers set at beginnings or continuations need not be known.
    """
    special = set(tokenizer.all_special_ids)
    numbers = [number for number in range(len(tokenizer)) if number not in special]
    texts = [tokenizer.convert_tokens_to_string([token]).strip() for token in tokenizer.convert_ids_to_tokens(numbers)]
    likely = [(number, text) for number, text in zip(numbers, texts, strict=True) if text.isalpha()]
    core = plain(tokenizer)
    before = core.encode("a", add_special_tokens=False).ids
    encoded = core.encode_batch([f"a {text}" for _, text in likely], add_special_tokens=False)
    return {
        number: text for (number, text), found in zip(likely, encoded, strict=True) if found.ids == [*before, number]
    }


def _touches_mark(text: str, span: Span) -> bool:
    """Whether a combining mark stands beside a run of letters, which then is part of a word only."""
    beside = text[max(0, span.start - 1) : span.start] + text[span.end : span.end + 1]
    return any(unicodedata.category(character).startswith("M") for character in beside)
