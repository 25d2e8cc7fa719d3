"""Slots of the English–German set that count: numbers, places, prices, percentages, scores."""

from decimal import Decimal
from itertools import combinations

from babel.core import Locale
from babel.lists import format_list
from babel.numbers import format_decimal, format_percent, get_currency_name, get_currency_symbol

from distill.data.embedded.fillers import (
    LANGUAGES,
    SMALL,
    Filler,
    Slots,
    half_spelled,
    in_digits,
    in_words,
    numbered_place,
    ordinal,
    plain,
    spelled,
)

_CENTS = (20, 49, 50, 75, 80, 95, 99)
_COINED = 40
"""Prices from here on have no cents."""
_SPOKEN = "en fr it es pt pl sv da fi el ja hu"
_COUNTRIES = "AT AU BE BR CA CH DK EG ES FI FR GR HU IE IN IT JP MX"
_WITH_ARTICLE = ("CH",)
"""Countries that keep their article in German."""
_BRIEFLY = {"USD": "Dollar", "GBP": "Pfund", "CHF": "Franken"}
"""What a currency is called where no other of that name is near."""


def slots() -> Slots:
    """Return the slots of numbers."""
    places = {number: [ordinal(number, "en"), numbered_place(number)] for number in range(2, 41)}
    return {
        "count": [*map(in_words, range(2, 100)), *map(in_digits, range(2, 100))],
        "hundreds": [*map(in_words, range(100, 1000, 20)), *map(in_digits, range(100, 1000, 20))],
        "number": [plain(spelled(number, "en"), spelled(number, "de")) for number in range(2, 1000)],
        "code": [plain(str(number), str(number)) for number in range(100, 1000)],
        "platform": [plain(str(number), str(number)) for number in range(2, 16)],
        "ordinal": [_place(number, english) for number in places for english in places[number]],
        "century": [_place(number, english) for number in range(11, 21) for english in places[number]],
        "percent": _percentages(),
        "price": _prices(),
        "rent": [_price(Decimal(amount), code) for amount in range(400, 2500, 20) for code in ("EUR", "CHF")],
        "population": _populations(),
        "score": [filler for more in range(1, 7) for less in range(more) for filler in _scores(more, less)],
        "languages": [_languages(chosen) for count in (1, 2, 3) for chosen in combinations(_SPOKEN.split(), count)],
        "country": list(map(_country, _COUNTRIES.split())),
    }


def _place(number: int, english: str) -> Filler:
    words = ordinal(number, "de")
    return Filler(english, {"e": [words, f"{number}."], "en": [f"{words}n", f"{number}."]})


def _percentages() -> list[Filler]:
    whole = [_percent(Decimal(number), spelled(number, "en"), spelled(number, "de")) for number in range(2, 96)]
    halves = [(number + Decimal("0.5"), number) for number in range(1, SMALL)]
    broken = [_percent(value, half_spelled(number, "en"), half_spelled(number, "de")) for value, number in halves]
    return [filler for fillers in whole + broken for filler in fillers]


def _percent(value: Decimal, english: str, german: str) -> tuple[Filler, Filler]:
    written = format_percent(value / 100, "#,##0.#%", locale="en")
    number = format_decimal(value, locale="de")
    return (
        plain(written, f"{number} %", f"{number} Prozent"),
        plain(f"{english} percent", f"{german} Prozent", f"{number} Prozent"),
    )


def _prices() -> list[Filler]:
    whole = [Decimal(number) for number in range(2, 100)]
    coined = [number + Decimal(cents) / 100 for number in whole[: _COINED - 2] for cents in _CENTS]
    written = [_price(amount, code) for code in ("EUR", "USD", "GBP", "CHF") for amount in whole + coined]
    return written + [_spelled_price(amount) for amount in whole + coined]


def _price(amount: Decimal, code: str) -> Filler:
    """Write a price in digits: by the currency's symbol, or by its name where English has no symbol."""
    pattern = "#,##0" if amount == int(amount) else "#,##0.00"
    english, german = (format_decimal(amount, pattern, locale=language) for language in LANGUAGES)
    symbol = get_currency_symbol(code, locale="en")
    names = [get_currency_name(code, 2, locale=language) for language in LANGUAGES]
    if symbol == code:
        return plain(f"{english} {names[0]}", f"{german} {names[1]}", f"{german} {_BRIEFLY[code]}")
    return plain(f"{symbol}{english}", f"{german} {symbol}", f"{german} {_BRIEFLY.get(code, names[1])}")


def _spelled_price(amount: Decimal) -> Filler:
    euros, cents = divmod(int(amount * 100), 100)
    english, german = spelled(euros, "en"), spelled(euros, "de")
    if cents == 0:
        return plain(f"{english} euros", f"{german} Euro", f"{euros} Euro")
    coins = spelled(cents, "de")
    english = f"{english} euros and {spelled(cents, 'en')} cents"
    return plain(english, f"{german} Euro {coins}", f"{german} Euro und {coins} Cent")


def _populations() -> list[Filler]:
    thousands = [1000 * number for number in range(2, 100)]
    written = [(format_decimal(number, locale="en"), format_decimal(number, locale="de")) for number in thousands]
    spoken = [(spelled(number, "en"), spelled(number, "de")) for number in thousands]
    halves = [(f"{number}.5 million", f"{number},5 Millionen") for number in range(2, 10)]
    said = [(f"{half_spelled(n, 'en')} million", f"{half_spelled(n, 'de')} Millionen") for n in range(2, 10)]
    pairs = [*zip(written, spoken, strict=True), *zip(halves, said, strict=True)]
    in_digits = [plain(digits[0], digits[1]) for digits, _ in pairs]
    return in_digits + [plain(words[0], words[1], digits[1]) for digits, words in pairs]


def _scores(more: int, less: int) -> tuple[Filler, Filler]:
    german = f"{spelled(more, 'de')} zu {spelled(less, 'de')}"
    english = f"{spelled(more, 'en')} to {spelled(less, 'en')}"
    return plain(english, german), plain(f"{more}-{less}", f"{more}:{less}", german)


def _languages(codes: tuple[str, ...]) -> Filler:
    named = [[Locale(language).languages[code] for code in codes] for language in LANGUAGES]
    return plain(*(format_list(names, locale=language) for names, language in zip(named, LANGUAGES, strict=True)))


def _country(code: str) -> Filler:
    english, german = (Locale(language).territories[code] for language in LANGUAGES)
    if code in _WITH_ARTICLE:
        return Filler(english, {"dat": [f"der {german}"], "to": [f"in die {german}"]})
    return Filler(english, {"dat": [german], "to": [f"nach {german}"]})
