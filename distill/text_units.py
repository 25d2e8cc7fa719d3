"""What a word is, in any script, and how often phrases of them come: the one measure of filters and of reports.

Where a script writes no words apart, each character is a unit of its own, and some units make a word.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from operator import eq

_PER_WORD = {"CJK": 2, "HIRAGANA": 2, "KATAKANA": 2, "THAI": 4, "LAO": 4, "KHMER": 4, "MYANMAR": 4}
"""Script as the names of its characters begin → characters that count as a word."""


def is_empty(text: str) -> bool:
    """Tell whether there is nothing to be seen: control and zero-width characters do not count."""
    return not any(character.isprintable() and not character.isspace() for character in text)


@lru_cache(maxsize=8)
def normal(text: str) -> str:
    """Return a text without what is only another way to write it: case, width, ligatures."""
    return unicodedata.normalize("NFKC", text).casefold()


@lru_cache(maxsize=8)
def words(text: str) -> tuple[str, ...]:
    """Return the units of a text, without case and punctuation."""
    return tuple("".join(map(_spaced, normal(text))).split())


@lru_cache(maxsize=8)
def tokens(text: str) -> tuple[str, ...]:
    """Return the units of a text, without case, and each of its punctuation marks; `…` is one mark, not three."""
    marked = unicodedata.normalize("NFC", text).casefold()
    return tuple("".join(_spaced(one) if _is_word(one) else f" {one} " for one in marked).split())


def units_per_word(units: Sequence[str]) -> int:
    """Return the median over the units; 1 where there are none."""
    sizes = sorted(_PER_WORD.get(block(unit[0]), 1) for unit in units)
    return sizes[len(sizes) // 2] if sizes else 1


def top_phrase(units: Sequence[str], length: int) -> int:
    """Return how often the most frequent phrase of so many words comes; 0 where there are fewer."""
    size = length * units_per_word(units)
    if len(set(units)) == len(units):
        return int(len(units) >= size)
    return max(Counter(zip(*(units[start:] for start in range(size)), strict=False)).values(), default=0)


def longest_loop(units: Sequence[str], longest: int) -> int:
    """Return how often, at most, a phrase of up to so many words stands in a row; 1 where none is repeated.

    A phrase of n units stands in a row k times where n·(k − 1) units one after the other equal those n before them.
    """
    most = 1
    for period in range(1, min(longest * units_per_word(units), len(units) - 1) + 1):
        same = bytes(map(eq, units, units[period:]))
        most = max(most, max(map(len, same.split(b"\0"))) // period + 1)
    return most


@cache
def block(character: str) -> str:
    """Return what a character's name begins with: `LATIN`, `CJK`, `KATAKANA`."""
    return unicodedata.name(character, "").split(" ")[0].split("-")[0]


@cache
def _is_word(character: str) -> bool:
    """Tell whether a character is a letter, a mark of one, or a digit."""
    return unicodedata.category(character)[0] in "LMN"


@cache
def _spaced(character: str) -> str:
    """Return letters, marks and digits, set apart where the script does not do it; a space for all else."""
    if not _is_word(character):
        return " "
    return f" {character} " if block(character) in _PER_WORD else character
