"""What fills the frames of the translation set: the German says what the English says, as a grammar book has it."""

import re
from decimal import Decimal
from functools import cache
from importlib.resources import files
from itertools import chain

import pytest
import yaml

from distill.data.embedded import calendar_fillers, clock_fillers, fillers, number_fillers, unit_fillers
from distill.data.embedded.dates import frames

ONES = ["", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"]
TEENS = ["dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn"]
TENS = ["", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]


def in_german(number: int) -> str:
    """Spell a number below a thousand: the ones before the tens, a one at the end is `eins`."""
    hundreds, rest = divmod(number, 100)
    if rest < 20:
        end = "eins" if rest == 1 else [*ONES, *TEENS][rest]
    else:
        ones = ONES[rest % 10]
        end = (f"{ones}und" if ones else "") + TENS[rest // 10]
    return (f"{ONES[hundreds]}hundert" if hundreds else "") + end


NUMBERS = {in_german(number): number for number in range(1, 1000)} | {"ein": 1, "null": 0}
ENGLISH = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@cache
def all_slots() -> fillers.Slots:
    """Return the fillers of every slot."""
    folder = files("distill.data.embedded").joinpath("dates_en_de")
    found = yaml.safe_load(folder.joinpath("words.yaml").read_text(encoding="utf-8"))
    words = fillers.from_words(found)
    numbers = number_fillers.slots() | unit_fillers.slots(found["goods"])
    return words | calendar_fillers.slots(words) | clock_fillers.slots() | numbers


def test_every_slot_is_filled_and_used() -> None:
    named = set(re.findall(r"\{(\w+)", " ".join(frames("train"))))
    assert all_slots().keys() - {"soon", "ago"} == named  # those two are part of `day` and `past`


def minutes_of_english(text: str) -> int:
    """Return the minutes after midnight, or after twelve where no part of the day is told."""
    if match := re.fullmatch(r"(\d+)(?::(\d\d))? ([AP])M", text):
        return (int(match[1]) % 12 + 12 * (match[3] == "P")) * 60 + int(match[2] or 0)
    said, _, period = text.partition(" in the ")
    twelve = 720 * (period in ("afternoon", "evening"))
    if said.endswith(" o'clock"):
        return ENGLISH.index(said.split()[0]) % 12 * 60 + twelve
    amount, side, hour = re.fullmatch(r"(.+) (past|to) (\w+)", said).groups()
    minutes = {"five": 5, "ten": 10, "a quarter": 15, "twenty": 20, "twenty-five": 25, "half": 30}[amount]
    return (ENGLISH.index(hour) * 60 + (minutes if side == "past" else -minutes)) % 720 + twelve


def minutes_of_german(text: str) -> int:
    """Return the minutes after midnight, or after twelve where no part of the day is told."""
    if match := re.fullmatch(r"(\d+)(?::(\d\d))? Uhr", text):
        return int(match[1]) * 60 + int(match[2] or 0)
    said, _, period = re.fullmatch(r"(.+?)( (morgens|vormittags|mittags|nachmittags|abends))?", text).groups()
    twelve = 720 * (period in ("mittags", "nachmittags", "abends"))
    if match := re.fullmatch(r"(\w+) Uhr(?: (\w+))?", said):
        minutes = NUMBERS[match[1]] * 60 + (NUMBERS[match[2]] if match[2] else 0)
        return minutes % 720 + twelve if period else minutes
    shift, half, hour = re.fullmatch(r"(?:(\w+ (?:vor|nach)) )?(halb )?(\w+)", said).groups()
    minutes = NUMBERS[hour] * 60 - (30 if half else 0)
    if shift:
        amount, side = shift.split()
        minutes += (15 if amount == "Viertel" else NUMBERS[amount]) * (1 if side == "nach" else -1)
    return minutes % 720 + twelve


def test_times_are_the_same_in_all_their_renderings() -> None:
    times = all_slots()["time"]
    assert {minutes_of_english(time.english) for time in times} >= set(range(6 * 60, 22 * 60, 5)) - {720}
    for time in times:
        told = "M" in time.english or " in the " in time.english
        for german in time.german[""]:
            found, wanted = minutes_of_german(german), minutes_of_english(time.english)
            assert found == wanted if told else found % 720 == wanted, (time.english, german)


def test_numbers_in_words_are_those_of_a_plain_table() -> None:
    found = dict(zip(range(2, 1000), all_slots()["number"], strict=True))
    assert {number: filler.german[""] for number, filler in found.items()} == {
        number: (in_german(number),) for number in found
    }
    assert found[21].english == "twenty-one" and found[784].english == "seven hundred and eighty-four"


def ordinal_in_german(number: int) -> str:
    """Spell a place: four irregular ones, `-te` up to nineteen, `-ste` from twenty on."""
    irregular = {1: "erste", 3: "dritte", 7: "siebte", 8: "achte"}
    return irregular.get(number) or in_german(number) + ("te" if number < 20 else "ste")


def test_places_end_as_their_case_asks() -> None:
    for place in all_slots()["ordinal"]:
        (nominative, digits), (oblique, same) = place.german["e"], place.german["en"]
        assert nominative == ordinal_in_german(int(digits.removesuffix(".")))
        assert (oblique, same) == (f"{nominative}n", digits)


def swapped(number: str) -> Decimal:
    """Read a German number: points part thousands, a comma the decimals."""
    return Decimal(number.replace(".", "").replace(",", "."))


@pytest.mark.parametrize("slot", ["price", "rent", "percent", "population"])
def test_digits_keep_their_value(slot: str) -> None:
    found = 0
    for filler in all_slots()[slot]:
        english = re.search(r"[\d.,]*\d", filler.english)
        for german in filler.german[""]:
            digits = re.search(r"[\d.,]*\d", german)
            if english and digits:
                found += 1
                assert swapped(digits[0]) == Decimal(english[0].replace(",", ""))
    assert found > 100


def test_measures_keep_their_value_and_take_the_dative() -> None:
    slots = all_slots()
    for filler in chain(slots["stay"], slots["distance"], slots["weight"], slots["height"]):
        english = re.match(r"[\d.]+", filler.english)
        assert not english or swapped(filler.german[""][0].split()[0]) == Decimal(english[0])
    stays = {filler.english: filler.german for filler in slots["stay"]}
    assert stays["three days"] == {"": ("drei Tage",), "dat": ["drei Tagen"]}
    assert stays["20 years"] == {"": ("20 Jahre",), "dat": ["20 Jahren"]}
    assert stays["thirteen months"]["dat"] == ["dreizehn Monaten", "13 Monaten"]


RENDERED = {
    "Monday, March 3": {
        "on": ["am Montag, dem 3. März", "am Montag, den 3. März"],
        "by": ["bis Montag, den 3. März"],
        "of": ["vom Montag, dem 3. März"],
        "dat": ["Montag, dem 3. März"],
        "acc": ["Montag, den 3. März"],
        "nom": ["Montag, der 3. März"],
    },
    "the third of March": {
        "on": ["am dritten März", "am 3. März"],
        "by": ["bis zum dritten März", "bis zum 3. März"],
        "of": ["vom dritten März", "vom 3. März"],
        "dat": ["dem dritten März", "dem 3. März"],
        "acc": ["den dritten März", "den 3. März"],
        "nom": ["der dritte März", "der 3. März"],
    },
    "next Monday": {"": ("nächsten Montag", "am nächsten Montag", "am kommenden Montag")},
    "on Mondays, Wednesdays, and Fridays": {
        "": ("montags, mittwochs und freitags", "jeden Montag, Mittwoch und Freitag")
    },
    "from March 28 to April 5": {"": ("vom 28. März bis zum 5. April", "vom 28. März bis 5. April")},
    "from March 3 to March 6": {"": ("vom 3. bis zum 6. März", "vom 3. bis 6. März")},
    "nineteen eighty-seven": {
        "in": ["im Jahr neunzehnhundertsiebenundachtzig", "im Jahre neunzehnhundertsiebenundachtzig"]
    },
    "3:30 PM": {"": ("15:30 Uhr", "fünfzehn Uhr dreißig", "halb vier nachmittags")},
    "twenty-five past one": {"": ("fünf vor halb zwei", "ein Uhr fünfundzwanzig", "1:25 Uhr")},
    "from 9:30 AM to 5 PM": {
        "": ("von 9:30 bis 17 Uhr", "von 9:30 Uhr bis 17 Uhr", "von neun Uhr dreißig bis siebzehn Uhr")
    },
    "€12.50": {"": ("12,50 €", "12,50 Euro")},
    "1,240 Swiss francs": {"": ("1.240 Schweizer Franken", "1.240 Franken")},
    "twelve euros and fifty cents": {"": ("zwölf Euro fünfzig", "zwölf Euro und fünfzig Cent")},
    "two and a half million": {"": ("zweieinhalb Millionen", "2,5 Millionen")},
    "3.5%": {"": ("3,5 %", "3,5 Prozent")},
    "Polish, Danish, and Greek": {"": ("Polnisch, Dänisch und Griechisch",)},
    "Switzerland": {"dat": ["der Schweiz"], "to": ["in die Schweiz"]},
    "Italy": {"dat": ["Italien"], "to": ["nach Italien"]},
    "120 kilometers per hour": {"dat": ["120 km/h", "120 Kilometern pro Stunde"]},
    "an 8-day": {"": ["achttägige", "8-tägige"], "en": ["achttägigen", "8-tägigen"]},
    "an hour and a half": {
        "": ("eineinhalb Stunden", "anderthalb Stunden"),
        "dat": ["eineinhalb Stunden", "anderthalb Stunden"],
    },
    "2.5 kilograms of potatoes": {"": ("2,5 Kilogramm Kartoffeln", "zweieinhalb Kilogramm Kartoffeln")},
    "the party": {
        "": ["die Feier", "das Fest"],
        "acc": ["die Feier", "das Fest"],
        "to": ["zur Feier", "zum Fest"],
    },
    "the lecture": {"": ["der Vortrag"], "acc": ["den Vortrag"], "to": ["zum Vortrag"]},
}


def test_fillers_are_what_a_grammar_book_says() -> None:
    found = {filler.english: dict(filler.german) for filler in chain.from_iterable(all_slots().values())}
    assert {english: found[english] for english in RENDERED} == RENDERED
