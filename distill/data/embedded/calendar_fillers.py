"""Slots of the English–German set that tell the day: dates, weekdays, months, years."""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import combinations

from babel.dates import format_date, get_day_names, get_month_names
from babel.lists import format_list
from num2words import num2words

from distill.data.embedded.fillers import LANGUAGES, Filler, Slots, ordinal, plain

_MONTHS = {language: get_month_names("wide", locale=language) for language in LANGUAGES}
_DAYS = {language: get_day_names("wide", locale=language) for language in LANGUAGES}
_FROM = date(2025, 1, 1)
_DATES = 730
"""Days from which dates are taken: two years, so that a weekday belongs to a date."""

_BARE = {
    "on": ["am {dative}"],
    "by": ["bis zum {dative}"],
    "of": ["vom {dative}"],
    "dat": ["dem {dative}"],
    "acc": ["den {dative}"],
    "nom": ["der {nominative}"],
}
"""Forms of a date; its accusative is its dative: den, dem dritten März."""
_NAMED = {
    "on": ["am {day}, dem {dative}", "am {day}, den {dative}"],
    "by": ["bis {day}, den {dative}"],
    "of": ["vom {day}, dem {dative}"],
    "dat": ["{day}, dem {dative}"],
    "acc": ["{day}, den {dative}"],
    "nom": ["{day}, der {nominative}"],
}
"""Forms of a date with its weekday."""
_HALVES = (("morning", ("morgen", "vormittag")), ("afternoon", ("nachmittag",)), ("evening", ("abend",)))


def slots(words: Slots) -> Slots:
    """Return the slots of time; `words` holds the hand-written days, which join the weekdays."""
    days, past, half_days = _weekdays()
    return {
        "date": _dates(),
        "birthday": [_date(date(1950, 1, 1) + timedelta(12 * number), "MMMM d, y") for number in range(1200)],
        "period": _periods(),
        "day": [*days, *words["soon"]],
        "past": [*past, *words["ago"]],
        "half_day": [*half_days, *words["half_day"]],
        "weekdays": [_every(chosen) for count in (1, 2, 3) for chosen in combinations(range(7), count)],
        "year": [*map(_year, range(1850, 2020)), *map(_spelled_year, range(1901, 2000))],
        "month": [_month(month, year) for month in range(1, 13) for year in range(2010, 2031)],
    }


def _dates() -> list[Filler]:
    days = [_FROM + timedelta(number) for number in range(_DATES)]
    patterns = ("MMMM d", "EEEE, MMMM d", "MMMM d, y", "EEEE, MMMM d, y")
    return [_date(day, pattern) for pattern in patterns for day in days] + [_spelled_date(day) for day in days]


def _date(day: date, pattern: str) -> Filler:
    year = f" {day.year}" if "y" in pattern else ""
    numbered = f"{day.day}. {_MONTHS['de'][day.month]}{year}"
    other = format_date(day, "dd.MM.y", locale="de") if year else None
    english = format_date(day, pattern, locale="en")
    if "EEEE" in pattern:
        return _dated(english, [(numbered, numbered)], _DAYS["de"][day.weekday()])
    return _dated(english, [(numbered, numbered), (other, other) if other else _in_words(day)])


def _spelled_date(day: date) -> Filler:
    numbered = f"{day.day}. {_MONTHS['de'][day.month]}"
    english = f"the {ordinal(day.day, 'en')} of {_MONTHS['en'][day.month]}"
    return _dated(english, [_in_words(day), (numbered, numbered)])


def _in_words(day: date) -> tuple[str, str]:
    nominative, month = ordinal(day.day, "de"), _MONTHS["de"][day.month]
    return f"{nominative} {month}", f"{nominative}n {month}"


def _dated(english: str, days: Sequence[tuple[str, str]], weekday: str = "") -> Filler:
    """Put a date into all its forms, from its renderings in the nominative and the dative."""
    forms = {
        form: [
            pattern.format(day=weekday, nominative=nominative, dative=dative)
            for nominative, dative in days
            for pattern in patterns
        ]
        for form, patterns in (_NAMED if weekday else _BARE).items()
    }
    return Filler(english, forms)


def _periods() -> list[Filler]:
    starts = [_FROM + timedelta(number) for number in range(_DATES // 2)]
    return [_period(start, start + timedelta(length)) for length in (3, 5, 8, 12) for start in starts]


def _period(start: date, end: date) -> Filler:
    (first, one), (last, other) = ((f"{day.day}.", _MONTHS["de"][day.month]) for day in (start, end))
    english = " to ".join(format_date(day, "MMMM d", locale="en") for day in (start, end))
    opened = f"vom {first}" if one == other else f"vom {first} {one}"
    return plain(f"from {english}", f"{opened} bis zum {last} {other}", f"{opened} bis {last} {other}")


def _weekdays() -> tuple[list[Filler], list[Filler], list[Filler]]:
    """Return days to come, days gone by, and halves of days."""
    days, past, half_days = [], [], []
    for number in range(7):
        english, german = _DAYS["en"][number], _DAYS["de"][number]
        days += [
            plain(f"on {english}", f"am {german}"),
            plain(f"next {english}", *_beside(german, "nächsten", "kommenden")),
        ]
        past += [plain(f"last {english}", *_beside(german, "letzten", "vergangenen"))]
        half_days += [plain(f"on {english} {half}", *(f"am {german}{de}" for de in names)) for half, names in _HALVES]
    return days, past, half_days


def _beside(day: str, one: str, other: str) -> list[str]:
    return [f"{one} {day}", f"am {one} {day}", f"am {other} {day}"]


def _every(chosen: Sequence[int]) -> Filler:
    english, german = ([_DAYS[language][number] for number in chosen] for language in LANGUAGES)
    plural = format_list([f"{day}s" for day in english], locale="en")
    adverbs = format_list([f"{day.lower()}s" for day in german], locale="de")
    return plain(f"on {plural}", adverbs, f"jeden {format_list(german, locale='de')}")


def _year(year: int) -> Filler:
    return Filler(str(year), {"in": [str(year), f"im Jahr {year}", f"im Jahre {year}"]})


def _spelled_year(year: int) -> Filler:
    english, german = (str(num2words(year, lang=language, to="year")) for language in LANGUAGES)
    return Filler(english, {"in": [f"im Jahr {german}", f"im Jahre {german}"]})


def _month(month: int, year: int) -> Filler:
    english, german = (f"{_MONTHS[language][month]} {year}" for language in LANGUAGES)
    return Filler(english, {"in": [f"im {german}"]})
