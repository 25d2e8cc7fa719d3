"""The translation set: sizes, parts that share no source, and German drawn among its renderings."""

import re
import subprocess
import sys
import unicodedata
from collections import Counter
from datetime import date, datetime
from importlib.resources import files
from itertools import chain

import pytest
import yaml

from distill.data.embedded.dates import NAME, frames, load_pairs, renderings
from distill.data.embedded.grammar import PARTS, Part
from distill.errors import DataError

SIZES = {"train": 6_000, "validation": 300, "test": 600, "transfer": 12_000}
TRANSLATED: tuple[Part, ...] = ("train", "validation", "test")
FOLDER = files("distill.data.embedded").joinpath("dates_en_de")
TEXT = re.compile(r"[A-Za-z0-9ÄÖÜäöüß€£$%.,:'?/ -]+")
MONTHS = ["Januar", "Februar", "März", "April", "Mai", "Juni"]
MONTHS += ["Juli", "August", "September", "Oktober", "November", "Dezember"]
DAYS = ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"]


def pairs() -> list[tuple[str, str]]:
    """Return all pairs that have German."""
    return [(english, german or "") for part in TRANSLATED for english, german in load_pairs(part)]


def read(*names: str) -> dict:
    """Read one of the set's files."""
    return yaml.safe_load(FOLDER.joinpath(*names).read_text(encoding="utf-8"))


def all_frames() -> dict[str, list[str]]:
    """Return the German frames of every English one."""
    topics = [read("frames", file.name) for file in FOLDER.joinpath("frames").iterdir()]
    return {english: german.splitlines() for topic in topics for english, german in topic.items()}


@pytest.mark.parametrize("part", PARTS)
def test_parts_have_their_sizes_and_transfer_no_german(part: Part) -> None:
    rows = load_pairs(part)
    assert len(rows) == SIZES[part]
    assert all((german is None) == (part == "transfer") for _, german in rows)


def test_no_source_stands_twice_in_a_part_or_in_two_parts() -> None:
    seen = Counter(english.casefold() for part in PARTS for english, _ in load_pairs(part))
    assert len(seen) == sum(SIZES.values())


def test_texts_are_written_in_one_way() -> None:
    for text in chain.from_iterable(pairs() + [(english, "") for english, _ in load_pairs("transfer")]):
        assert text == " ".join(text.split()) == unicodedata.normalize("NFC", text)
        assert not text or (TEXT.fullmatch(text) and text[-1] in ".?" and text[0] == text[0].upper())
        assert not re.search(r" [.,?]|\.\.|,,", text)


def test_sentences_have_a_length_a_small_model_can_learn() -> None:
    lengths = [[len(text.split()) for text in texts] for texts in zip(*pairs(), strict=True)]
    for found in lengths:
        assert min(found) >= 3 and max(found) <= 25 and 6 < sum(found) / len(found) < 12


@pytest.mark.parametrize("part", PARTS)
def test_every_frame_gives_its_share_of_every_part(part: Part) -> None:
    counts, equal = Counter(frames(part)), SIZES[part] / len(all_frames())
    assert counts.keys() == all_frames().keys()
    assert min(counts.values()) > 0.6 * equal and max(counts.values()) < 1.4 * equal


def test_frames_say_the_same_in_both_languages() -> None:
    def slots(frame: str) -> list[str]:
        return sorted(re.findall(r"\{(\w+)", frame))

    for english, german in all_frames().items():
        assert len(set(german)) == len(german) > 0
        assert [slots(line) for line in german] == [slots(english)] * len(german), english


def test_no_english_word_is_met_for_the_first_time_after_training() -> None:
    def words(part: Part) -> set[str]:
        return {word for english, _ in load_pairs(part) for word in re.findall("[A-Za-z]+", english.lower())}

    assert words("validation") | words("test") | words("transfer") <= words("train")


@pytest.mark.parametrize("part", TRANSLATED)
def test_german_is_one_of_several_renderings(part: Part) -> None:
    found = renderings(part)
    assert all(len(set(texts)) == len(texts) for texts in found)
    assert all(german in texts for (_, german), texts in zip(load_pairs(part), found, strict=True))
    several = sum(len(texts) > 1 for texts in found) / len(found)
    assert 0.7 < several < 1.0


def test_every_rendering_is_drawn_about_as_often_as_the_others() -> None:
    drawn = Counter(
        found.index(german or "") / len(found)
        for (_, german), found in zip(load_pairs("train"), renderings("train"), strict=True)
        if len(found) == 2
    )
    assert drawn.keys() == {0.0, 0.5}
    assert abs(drawn[0.0] - drawn[0.5]) < 4 * sum(drawn.values()) ** 0.5


def test_days_of_the_week_are_those_of_the_calendar() -> None:
    pattern = re.compile(rf"({'|'.join(DAYS)}), de[mnr] (\d+)\. ({'|'.join(MONTHS)}) (\d{{4}})")
    found = [match.groups() for _, german in pairs() for match in pattern.finditer(german)]
    assert len(found) > 100
    for weekday, day, month, year in found:
        assert DAYS[date(int(year), MONTHS.index(month) + 1, int(day)).weekday()] == weekday


def test_german_dates_are_the_english_ones() -> None:
    pattern = re.compile(r"([A-Z][a-z]+ \d{1,2}, \d{4})")
    found = [(match[1], german) for english, german in pairs() if (match := pattern.search(english))]
    assert len(found) > 300
    for english, german in found:
        day = datetime.strptime(english, "%B %d, %Y")
        assert f"{day.day}. {MONTHS[day.month - 1]} {day.year}" in german or f"{day:%d.%m.%Y}" in german


def test_a_caller_cannot_spoil_the_next_one() -> None:
    load_pairs("test").clear()
    renderings("test")[0].clear()
    assert len(load_pairs("test")) == SIZES["test"] and renderings("test")[0]


def test_a_wrong_part_is_named() -> None:
    with pytest.raises(DataError, match=r"^`dates-en-de` has no part `tests`; did you mean `test`\?"):
        load_pairs("tests")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packages", "named"),
    [(["babel"], "Babel"), (["num2words"], "num2words"), (["babel", "num2words"], "Babel, num2words")],
)
def test_missing_packages_are_named_with_what_brings_them(packages, named, monkeypatch) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError) as error:
        load_pairs("train")
    assert str(error.value) == f"{NAME}: {named} not installed; pip install 'distill-pipeline[demo]'"


def test_neither_package_is_imported_before_it_is_needed() -> None:
    program = "import sys, distill.data.embedded.dates; print({'babel', 'num2words'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
