"""Slots of the English–German set that tell the time: 3:30 PM, half past three in the afternoon, from 9 AM to 5 PM."""

from datetime import time

from babel.dates import format_time

from distill.data.embedded.fillers import Filler, Slots, joined, plain, spelled

_CLOCK = {
    0: ("{hour} o'clock", "{hour} Uhr"),
    5: ("five past {hour}", "fünf nach {hour}"),
    10: ("ten past {hour}", "zehn nach {hour}"),
    15: ("a quarter past {hour}", "Viertel nach {hour}"),
    20: ("twenty past {hour}", "zwanzig nach {hour}"),
    25: ("twenty-five past {hour}", "fünf vor halb {next}"),
    30: ("half past {hour}", "halb {next}"),
    35: ("twenty-five to {next}", "fünf nach halb {next}"),
    40: ("twenty to {next}", "zwanzig vor {next}"),
    45: ("a quarter to {next}", "Viertel vor {next}"),
    50: ("ten to {next}", "zehn vor {next}"),
    55: ("five to {next}", "fünf vor {next}"),
}
"""Minutes as they are said."""
_PERIODS = (
    (10, "in the morning", "morgens"),
    (12, "in the morning", "vormittags"),
    (13, "in the afternoon", "mittags"),
    (18, "in the afternoon", "nachmittags"),
    (24, "in the evening", "abends"),
)
"""Parts of the day, each with the hour it ends at."""


def slots() -> Slots:
    """Return the times of the day, and the hours from one to another."""
    moments = [(hour, minute) for hour in range(6, 22) for minute in _CLOCK if (hour, minute) != (12, 0)]
    ambiguous = [_bare(hour, minute) for hour in range(1, 13) for minute in _CLOCK]
    half_hours = [time(half // 2, 30 * (half % 2)) for half in range(12, 44)]
    return {
        "time": [*(_digital(time(*moment)) for moment in moments), *(_said(*moment) for moment in moments), *ambiguous],
        "hours": [_hours(start, end) for start in half_hours if start.hour < 12 for end in half_hours if end.hour > 12],
    }


def _digital(moment: time) -> Filler:
    hour, minute = moment.hour, moment.minute
    said = f"{_clock(hour, minute)[1]} {_period_of(hour)[1]}"
    return plain(_shown(moment), _digits(hour, minute), _official(hour, minute), said)


def _said(hour: int, minute: int) -> Filler:
    (english, german), periods = _clock(hour, minute), _period_of(hour)
    return plain(f"{english} {periods[0]}", f"{german} {periods[1]}", _digits(hour, minute))


def _bare(hour: int, minute: int) -> Filler:
    english, german = _clock(hour, minute)
    return plain(english, *dict.fromkeys((german, _official(hour, minute), _digits(hour, minute))))


def _clock(hour: int, minute: int) -> tuple[str, str]:
    """Say a time of the twelve-hour clock in both languages."""
    english, german = _CLOCK[minute]
    this, coming = (hour - 1) % 12 + 1, hour % 12 + 1
    number = spelled(this, "de") if minute else joined(this)
    return (
        english.format(hour=spelled(this, "en"), next=spelled(coming, "en")),
        german.format(hour=number, next=spelled(coming, "de")),
    )


def _official(hour: int, minute: int) -> str:
    return f"{joined(hour)} Uhr {spelled(minute, 'de')}" if minute else f"{joined(hour)} Uhr"


def _digits(hour: int, minute: int) -> str:
    return f"{hour}:{minute:02} Uhr" if minute else f"{hour} Uhr"


def _period_of(hour: int) -> tuple[str, str]:
    return next((english, german) for end, english, german in _PERIODS if hour < end)


def _hours(start: time, end: time) -> Filler:
    english = " to ".join(map(_shown, (start, end)))
    first, last = (_digits(moment.hour, moment.minute) for moment in (start, end))
    one, other = (_official(moment.hour, moment.minute) for moment in (start, end))
    bare = first.removesuffix(" Uhr")
    return plain(f"from {english}", f"von {bare} bis {last}", f"von {first} bis {last}", f"von {one} bis {other}")


def _shown(moment: time) -> str:
    return format_time(moment, "h:mm a" if moment.minute else "h a", locale="en")
