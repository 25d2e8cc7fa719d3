"""What can be counted on a text by itself: its width, its words, its repetitions, its script.

Words are compared without case and punctuation. Where a script writes none apart, each character is a unit of its own,
and some units make a word.
"""

import re
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


def width(text: str) -> int:
    """Count characters, the wide ones of East Asia twice (Unicode annex 11)."""
    return len(text) if text.isascii() else len(text) + sum(map(_is_wide, text))


def key(text: str) -> str:
    """Return what makes one text the same as another: its words, or all of it where it has none."""
    return " ".join(_units(text)) or text.strip()


def likeness(one: str, other: str) -> float:
    """Return 2 |a ∩ b| / (|a| + |b|) of the sets of character trigrams (Dice 1945); equals have 1, however short."""
    if one == other:
        return 1.0
    ours, theirs = (set(zip(text, text[1:], text[2:], strict=False)) for text in (one, other))
    return 2 * len(ours & theirs) / max(len(ours) + len(theirs), 1)


def may_be_name(text: str, shortest: int) -> bool:
    """Tell whether a text may stand in any language: a number, a word, `Vincent van Gogh`, `Lord of the Rings`.

    In a name, words without a capital are short and at most half of all; where case tells nothing, names have less
    than the shortest width.
    """
    if text == text.upper():
        return width(text) < shortest or not any(map(str.isalpha, text))
    words = text.split()
    small = [word for word in words if word.islower()]
    return len(words) == 1 or (2 * len(small) <= len(words) and all(len(word) <= 3 for word in small))


def most_frequent(text: str, ngram: int) -> int:
    """Return how often the most frequent phrase of so many words comes; 1 where the text is shorter."""
    units = _units(text)
    if len(set(units)) == len(units):
        return 1
    length = ngram * _units_per_word(units)
    phrases = Counter(zip(*(units[start:] for start in range(length)), strict=False))
    return max(phrases.values(), default=1)


def words_loop(text: str, longest: int, limit: int) -> bool:
    """Tell whether up to `longest` words come more than `limit` times in a row."""
    units = _units(text)
    size = _units_per_word(units)
    if len(units) - len(set(units)) < limit * size:
        return False
    return any(_in_row(units, period, limit * size) for period in range(1, longest * size + 1))


def characters_loop(text: str, longest: int, limit: int) -> bool:
    """Tell whether up to `longest` characters come more than `limit` times in a row, white space aside."""
    return bool(re.search(rf"(.{{1,{longest}}})\1{{{limit}}}", "".join(_normal(text).split())))


def script_share(text: str, scripts: frozenset[str]) -> float:
    """Return the part of a text's letters that are of these scripts; 1 where it has none."""
    found = [_script(character) in scripts for character in _normal(text) if character.isalpha()]
    return sum(found) / len(found) if found else 1.0


def _in_row(units: Sequence[str], period: int, limit: int) -> bool:
    """In a loop of `period` units that comes once more than `limit`, `period` × `limit` equal those a period before."""
    return b"\1" * (period * limit) in bytes(map(eq, units, units[period:]))


@lru_cache(maxsize=8)
def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


@lru_cache(maxsize=8)
def _units(text: str) -> tuple[str, ...]:
    return tuple("".join(map(_spaced, _normal(text))).split())


def _units_per_word(units: Sequence[str]) -> int:
    """Return the median over the units."""
    sizes = sorted(_PER_WORD.get(_block(unit[0]), 1) for unit in units)
    return sizes[len(sizes) // 2] if sizes else 1


@cache
def _spaced(character: str) -> str:
    """Return letters, marks and digits, set apart where the script does not do it; a space for all else."""
    if unicodedata.category(character)[0] not in "LMN":
        return " "
    return f" {character} " if _block(character) in _PER_WORD else character


@cache
def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


@cache
def _block(character: str) -> str:
    """Return what a character's name begins with: `LATIN`, `CJK`, `KATAKANA`."""
    return unicodedata.name(character, "").split(" ")[0].split("-")[0]


@cache
def _script(character: str) -> str:
    block = _block(character)
    return "Han" if block == "CJK" else block.capitalize()
