"""What may stand in a slot of the English–German set: an English text with the German ones that are as good."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from num2words import num2words

Language = Literal["en", "de"]
LANGUAGES: tuple[Language, Language] = ("en", "de")
SMALL = 12
"""German writes numbers up to this one in words as readily as in digits."""

_CASES = {
    "der": {"": "der", "acc": "den", "to": "zum"},
    "die": {"": "die", "acc": "die", "to": "zur"},
    "das": {"": "das", "acc": "das", "to": "zum"},
}
"""The definite article in the nominative and accusative, and joined to `zu`."""


@dataclass(frozen=True)
class Filler:
    """One English text; for each form, the German texts."""

    english: str
    german: Mapping[str, Sequence[str]]
    """Form → renderings; "" is the plain form, the others are cases, endings and prepositions"""


Slots = dict[str, Sequence[Filler]]


def plain(english: str, *german: str) -> Filler:
    """Return a filler of one form."""
    return Filler(english, {"": german})


def declined(english: str, *german: str) -> Filler:
    """Return a filler of nouns with their definite article: singular, none of the weak declension."""
    nouns = [noun.split(" ", 1) for noun in german]
    forms = _CASES["der"]
    return Filler(english, {form: [f"{_CASES[article][form]} {noun}" for article, noun in nouns] for form in forms})


def counted(english: str, *german: str) -> Filler:
    """Return a filler in the nominative and the dative, from plurals that end in what is counted."""
    return Filler(english, {"": german, "dat": [dative(text) for text in german]})


def dative(plural: str) -> str:
    """Put a plural without article into the dative: three days are `drei Tage`, in three days `in drei Tagen`."""
    return f"{plural}n" if plural.endswith(("e", "er")) else plural


@cache
def spelled(number: int, language: Language) -> str:
    """Write a number in words: 21 is `twenty-one`, `einundzwanzig`."""
    return str(num2words(number, lang=language))


def in_words(number: int) -> Filler:
    """Return a number written in English words; a large one may stand in digits in German."""
    return plain(spelled(number, "en"), spelled(number, "de"), *([] if number <= SMALL else [str(number)]))


def in_digits(number: int) -> Filler:
    """Return a number written in English digits; a small one may stand in words in German."""
    return plain(str(number), str(number), *([spelled(number, "de")] if number <= SMALL else []))


@cache
def ordinal(number: int, language: Language) -> str:
    """Write the number of a place in words: 21 is `twenty-first`, `einundzwanzigste`."""
    return str(num2words(number, lang=language, to="ordinal"))


@cache
def numbered_place(number: int) -> str:
    """Write the number of a place in English digits: 21 is `21st`."""
    return str(num2words(number, lang="en", to="ordinal_num"))


def half_spelled(number: int, language: Language) -> str:
    """Write a number and a half in words: 2.5 is `two and a half`, `zweieinhalb`."""
    return f"{spelled(number, 'en')} and a half" if language == "en" else f"{joined(number)}einhalb"


def joined(number: int) -> str:
    """Write a German number as it stands before `Uhr` or inside a word, where one is `ein`."""
    return "ein" if number == 1 else spelled(number, "de")


def from_words(found: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Slots:
    """Return the slots of hand-written words: `declined` ones and `plain` ones, renderings parted by slashes."""
    slots: Slots = {}
    for make, kind in ((declined, "declined"), (plain, "plain")):
        for name, words in found[kind].items():
            slots[name] = [make(english, *german.split(" / ")) for english, german in words.items()]
    return slots
