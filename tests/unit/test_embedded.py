"""The support-desk set: sizes, balance, and that no part has seen another."""

import re
from collections import Counter
from importlib.resources import files
from itertools import combinations

import pytest

from distill.data.embedded import LABELS, PARTS, load, templates
from distill.errors import DataError

SIZES = {"train": 391, "validation": 357, "test": 612, "transfer": 4420}
LABELLED = ("train", "validation", "test")
ALIKE = 0.65
"""Share of words two templates may have in common."""


def words(text: str) -> frozenset[str]:
    """Return the words of a template, slots left out."""
    return frozenset(re.findall(r"[a-z']+", re.sub(r"\{\w+\}", " ", text.lower())))


def essence(text: str) -> str:
    """Reduce a text to its letters and digits."""
    return "".join(re.findall("[a-z0-9]", text.lower()))


@pytest.mark.parametrize("part", PARTS)
def test_every_class_has_the_same_share_of_a_part(part: str) -> None:
    rows = load("support-desk", part)
    assert len(rows) == SIZES[part]
    if part in LABELLED:
        assert Counter(row["label"] for row in rows) == dict.fromkeys(LABELS, SIZES[part] // len(LABELS))


def test_the_transfer_set_carries_no_labels() -> None:
    assert {row["label"] for row in load(part="transfer")} == {None}


def test_every_intent_has_its_file_and_every_file_is_an_intent() -> None:
    folder = files("distill.data.embedded").joinpath("support_desk", "intents")
    assert sorted(file.name for file in folder.iterdir()) == sorted(f"{label}.yaml" for label in LABELS)
    assert len(set(LABELS)) == len(LABELS) >= 14


def test_no_text_stands_twice() -> None:
    seen = Counter(essence(row["text"]) for part in PARTS for row in load(part=part))
    assert [text for text, count in seen.items() if count > 1] == []


@pytest.mark.parametrize(("one", "other"), combinations(PARTS, 2))
def test_no_template_is_shared_by_two_parts(one: str, other: str) -> None:
    assert not set(templates(part=one)) & set(templates(part=other))


@pytest.mark.parametrize(("one", "other"), combinations(PARTS, 2))
def test_no_template_is_nearly_one_of_another_part(one: str, other: str) -> None:
    ours, theirs = ({template: words(template) for template in templates(part=part)} for part in (one, other))
    near = [
        (mine, yours)
        for mine, left in ours.items()
        for yours, right in theirs.items()
        if len(left & right) > ALIKE * len(left | right)
    ]
    assert near == []


@pytest.mark.parametrize("part", PARTS)
def test_rows_are_varied(part: str) -> None:
    """No template gives more than a quarter of a class."""
    rows, counts = len(load(part=part)), Counter(templates(part=part))
    assert max(counts.values()) <= rows / len(LABELS) / 4
    assert len(counts) >= 8 * len(LABELS)


def test_twenty_lines_of_each_class_are_written_by_hand() -> None:
    written: Counter[str | None] = Counter()
    for part in LABELLED:
        pairs = zip(load(part=part), templates(part=part), strict=True)
        written.update(row["label"] for row, template in pairs if row["text"] == template)
    assert min(written.values()) >= 20 and len(written) == len(LABELS)


@pytest.mark.parametrize("part", PARTS)
def test_texts_are_plain_and_of_a_sentence_or_two(part: str) -> None:
    texts = [row["text"] for row in load(part=part)]
    assert all(text.isascii() and text == " ".join(text.split()) and 5 <= len(text) <= 200 for text in texts)
    assert not [text for text in texts if re.search(r"[{}\[\]|#]", text)]


def test_classes_are_mixed_in_the_order_of_rows() -> None:
    labels = [row["label"] for row in load(part="train")]
    assert len(set(labels[: 3 * len(LABELS)])) > len(LABELS) // 2


def test_a_caller_cannot_spoil_the_next_one() -> None:
    load(part="test")[0]["text"] = "spoilt"
    assert load(part="test")[0]["text"] != "spoilt"


def test_a_wrong_name_or_part_is_named() -> None:
    with pytest.raises(DataError, match=r"`suport-desk`; did you mean `support-desk`\?"):
        load("suport-desk")
    with pytest.raises(DataError, match=r"no part `tests`; did you mean `test`\?"):
        load(part="tests")
