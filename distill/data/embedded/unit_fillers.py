"""Slots of the English–German set that measure: durations, distances, weights, degrees, shopping lists."""

from collections.abc import Iterable, Mapping
from itertools import product
from random import Random
from typing import Literal

from babel.lists import format_list
from babel.units import format_unit

from distill.data.embedded.fillers import (
    SMALL,
    Filler,
    Slots,
    counted,
    half_spelled,
    in_digits,
    in_words,
    joined,
    plain,
    spelled,
)

_LISTS = 900
"""Shopping lists."""
_PARTS_OF_HOURS = [
    Filler("a quarter of an hour", {"": ["eine Viertelstunde"], "dat": ["einer Viertelstunde"]}),
    Filler("half an hour", {"": ["eine halbe Stunde"], "dat": ["einer halben Stunde"]}),
    Filler("three quarters of an hour", {"": ["eine Dreiviertelstunde"], "dat": ["einer Dreiviertelstunde"]}),
    counted("an hour and a half", "eineinhalb Stunden", "anderthalb Stunden"),
]
_ADJECTIVES = {"day": "tägige", "week": "wöchige", "month": "monatige"}
_AN = (8, 11)
"""Numbers before which English says `an`."""
_HALVES = [number + 0.5 for number in range(2, SMALL)]
_GRAMS = range(100, 1000, 50)


def slots(goods: Mapping[str, Mapping[str, str]]) -> Slots:
    """Return the slots of measures; `goods` is what is bought, by how it is measured."""
    amounts = _amounts(goods)
    return {
        "duration": [
            *_PARTS_OF_HOURS,
            *_measured(range(2, 60), "duration-minute"),
            *_measured([*range(2, 10), *_HALVES[:5]], "duration-hour"),
        ],
        "stay": [
            *_measured(range(2, 21), "duration-day"),
            *_measured(range(2, 13), "duration-week"),
            *_measured(range(2, 19), "duration-month"),
            *_measured(range(2, 31), "duration-year"),
        ],
        "long": [
            _long(number, unit, words) for number in range(1, 13) for unit in _ADJECTIVES for words in (True, False)
        ],
        "distance": [
            *_measured([*range(2, 43), *_HALVES], "length-kilometer"),
            *_measured(range(150, 1000, 50), "length-meter"),
        ],
        "height": _measured(range(5, 100), "length-meter"),
        "weight": [*_measured([*range(2, 31), *_HALVES], "mass-kilogram"), *_measured(_GRAMS, "mass-gram")],
        "speed": [*_speeds("long"), *_speeds("short")],
        "warm": _measured(range(5, 39), "temperature-celsius"),
        "cold": [_cold(number) for number in range(2, 21)],
        "oven": [filler for number in range(140, 250, 10) for filler in _oven(number)],
        "amount": amounts,
        "shopping": _lists(amounts),
    }


def _measured(numbers: Iterable[float], unit: str) -> list[Filler]:
    """Return measures in digits, and the same in words."""
    fillers = []
    for number in numbers:
        digits = [format_unit(number, unit, locale=language) for language in ("en", "de")]
        nouns = [text.split(maxsplit=1)[1] for text in digits]
        whole, small = int(number), number < SMALL + 1
        spell = spelled if number == whole else half_spelled
        words = f"{spell(whole, 'en')} {nouns[0]}", f"{spell(whole, 'de')} {nouns[1]}"
        fillers.append(counted(digits[0], digits[1], *([words[1]] if small else [])))
        fillers.append(counted(*words, *([] if number == whole and small else [digits[1]])))
    return fillers


def _long(number: int, unit: str, words: bool) -> Filler:
    article = "an" if number in _AN else "a"
    german = f"{joined(number)}{_ADJECTIVES[unit]}"
    shown = spelled(number, "en") if words else number
    both = [german] if words else [german, f"{number}-{_ADJECTIVES[unit]}"]
    return Filler(f"{article} {shown}-{unit}", {"": both, "en": [f"{text}n" for text in both]})


def _speeds(length: Literal["long", "short"]) -> list[Filler]:
    # German is written by hand: its dative stands in the middle of the unit
    return [
        Filler(
            format_unit(number, "speed-kilometer-per-hour", length, locale="en"),
            {"dat": [f"{number} km/h", f"{number} Kilometern pro Stunde"]},
        )
        for number in range(30, 301, 5)
    ]


def _cold(number: int) -> Filler:
    word = spelled(number, "de")
    return plain(f"minus {spelled(number, 'en')} degrees", f"minus {word} Grad", f"{word} Grad unter null")


def _oven(number: int) -> tuple[Filler, Filler]:
    words = spelled(number, "de")
    return (
        plain(f"{number} degrees", f"{number} Grad"),
        plain(f"{spelled(number, 'en')} degrees", f"{words} Grad", f"{number} Grad"),
    )


def _amounts(goods: Mapping[str, Mapping[str, str]]) -> list[Filler]:
    """Return what is bought, with its amount: all plurals, so that a list that opens with one takes a plural verb."""
    sizes = {
        "kilogram": _measured([2, 2.5, 3, 4, 5], "mass-kilogram"),
        "gram": _measured(_GRAMS, "mass-gram"),
        "liter": _measured([1.5, 2, 3, 4, 5], "volume-liter"),
        "piece": [filler for number in range(2, 13) for filler in (in_words(number), in_digits(number))],
    }
    return [
        plain(
            f"{size.english}{' ' if unit == 'piece' else ' of '}{english}",
            *(f"{text} {german}" for text in size.german[""]),
        )
        for unit, names in goods.items()
        for (english, german), size in product(names.items(), sizes[unit])
    ]


def _lists(amounts: list[Filler]) -> list[Filler]:
    """Return lists of two or three things, each written as it is on its own, all in words or all in digits."""
    random = Random("shopping lists")
    drawn = [[amounts[int(random.random() * len(amounts))] for _ in range(2 + number % 2)] for number in range(_LISTS)]
    return [_list(things) for things in drawn if len({_last(thing) for thing in things}) == len(things)]


def _list(things: list[Filler]) -> Filler:
    english = format_list([thing.english for thing in things], locale="en")
    german = [format_list([thing.german[""][place] for thing in things], locale="de") for place in (0, -1)]
    return plain(english, *dict.fromkeys(german))


def _last(thing: Filler) -> str:
    return thing.english.split()[-1]
