"""What filters ask of a text by itself: its width, its likeness to another, its repetitions, its script."""

import re
import unicodedata
from functools import cache

from distill.text_units import block, longest_loop, normal, top_phrase, units_per_word, words


def width(text: str) -> int:
    """Count characters, the wide ones of East Asia twice (Unicode annex 11)."""
    return len(text) if text.isascii() else len(text) + sum(map(_is_wide, text))


def key(text: str) -> str:
    """Return what makes one text the same as another: its words, or all of it where it has none."""
    return " ".join(words(text)) or text.strip()


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
    found = text.split()
    small = [word for word in found if word.islower()]
    return len(found) == 1 or (2 * len(small) <= len(found) and all(len(word) <= 3 for word in small))


def most_frequent(text: str, ngram: int) -> int:
    """Return how often the most frequent phrase of so many words comes; 1 where the text is shorter."""
    return max(top_phrase(words(text), ngram), 1)


def words_loop(text: str, longest: int, limit: int) -> bool:
    """Tell whether up to `longest` words come more than `limit` times in a row; where characters are units, so many
    times more as make a word.
    """
    units = words(text)
    limit *= units_per_word(units)
    if len(units) - len(set(units)) < limit:
        return False  # too few come again: nearly all texts need no search
    return longest_loop(units, longest) > limit


def characters_loop(text: str, longest: int, limit: int) -> bool:
    """Tell whether up to `longest` characters come more than `limit` times in a row, white space aside."""
    return bool(re.search(rf"(.{{1,{longest}}})\1{{{limit}}}", "".join(normal(text).split())))


def script_share(text: str, scripts: frozenset[str]) -> float:
    """Return the part of a text's letters that are of these scripts; 1 where it has none."""
    found = [_script(character) in scripts for character in normal(text) if character.isalpha()]
    return sum(found) / len(found) if found else 1.0


@cache
def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


@cache
def _script(character: str) -> str:
    name = block(character)
    return "Han" if name == "CJK" else name.capitalize()
