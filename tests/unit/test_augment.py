"""Augmentation: which words are replaced, by what, how often, and that nothing but seed and row decides it."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from configs.data import StageData, Task
from configs.stages import AugmentStage
from distill.data.augment import (
    BY_MASKED_LM,
    BY_NEIGHBOURS,
    BY_NEIGHBOURS_ALONE,
    BY_NOBODY,
    COPIES,
    Proposer,
    Question,
    augment,
)
from distill.data.augmented import ROWS_A_PART, Augmentation, write_augmented
from distill.data.rows import Row, Rows
from distill.data.sources import read
from distill.data.words import STOP_WORDS, content_words, with_case_of

CANDIDATES = {"good": ("fine", "nice"), "film": ("movie",), "plot": ("story", "tale", "yarn", "script")}


class Listed(Proposer):
    """Proposes from a table."""

    def __init__(self, table: dict[str, tuple[str, ...]]) -> None:
        self.table = table

    @property
    def fingerprint(self) -> str:
        return repr(self.table)

    def propose(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        return [self.table.get(question.word.lower(), ()) for question in questions]


WORDS = Listed(CANDIDATES)


def stage(**fields: Any) -> AugmentStage:
    return AugmentStage(kind="augment", data="train", **fields)


def rows_of(*texts: str, pairs: Sequence[str] | None = None, label: str | None = "x") -> Rows:
    seconds = [None] * len(texts) if pairs is None else pairs
    return Rows.of([Row(a, b, label, n) for n, (a, b) in enumerate(zip(texts, seconds, strict=True))])


def augmented(rows: Rows, seed: int = 0, proposer: Proposer = WORDS, **fields: Any) -> list[Row]:
    return list(augment(rows, stage(**fields), masked_lm=None, neighbours=proposer, seed=seed))


def by_row(made: list[Row], rows: Rows) -> dict[int, list[Row]]:
    """Cut what was made at the originals."""
    starts = [made.index(row) for row in rows] + [len(made)]
    return {row.id: made[a:b] for row, a, b in zip(rows, starts, starts[1:], strict=False)}


def test_words_that_may_be_replaced() -> None:
    text = "The 2nd film isn't good, naïve_ or x2 - हिन्दी Köln's plot"
    assert [text[a:b] for a, b in content_words(text)] == ["film", "good", "Köln", "plot"]
    assert content_words(" ".join(STOP_WORDS)) == []
    assert [with_case_of(word, "nice") for word in ("good", "Good", "GOOD", "G")] == ["nice", "Nice", "NICE", "Nice"]


def test_each_row_is_followed_by_copies_of_it() -> None:
    rows = rows_of("The good film has a 2nd plot.", "Nothing to replace", "Good plot!")
    made = by_row(augmented(rows, copies=30), rows)
    allowed = {"fine", "nice", "good", "film", "movie", "plot", *CANDIDATES["plot"]}
    for row in rows:
        original, *copies = made[row.id]
        texts = [copy.text for copy in copies]
        assert original == row
        assert row.text not in texts
        assert len(set(texts)) == len(texts) <= 30
    for copy in made[0][1:]:
        start, good, film, *middle, plot = copy.text.split(" ")
        assert (start, middle, plot[-1]) == ("The", ["has", "a", "2nd"], ".")
        assert {good, film, plot[:-1]} <= allowed
    assert made[1] == [next(iter(rows.part(1, 2)))]
    assert all(copy.text[0].isupper() and copy.text[-1] == "!" for copy in made[2])


def test_a_word_is_replaced_with_the_given_probability_by_any_candidate() -> None:
    rows = rows_of(*(f"plot {number}" for number in range(4000)))
    made = augmented(rows, copies=1, probability=0.4)
    words = Counter(row.text.split()[0] for row in made[1:] if not row.text.startswith("plot"))
    assert sum(words.values()) == pytest.approx(1600, abs=150)
    assert set(words) == set(CANDIDATES["plot"])
    assert all(count == pytest.approx(400, abs=80) for count in words.values())


def test_never_and_always() -> None:
    rows = rows_of("good plot")
    assert augmented(rows, probability=0.0) == list(rows)
    copies = augmented(rows, probability=1.0, copies=60)[1:]
    assert {copy.text for copy in copies} == {f"{a} {b}" for a in ("fine", "nice") for b in CANDIDATES["plot"]}


def test_nothing_but_seed_and_row_decides() -> None:
    texts = [f"{a} good {b} plot film" for a in "bcdefg" for b in "bcdefghk"] * 12
    rows = rows_of(*dict.fromkeys(texts), *(f"good plot {number}" for number in range(300)))
    whole = by_row(augmented(rows), rows)
    backwards = Rows(rows.table.take(list(range(len(rows)))[::-1]))
    assert by_row(augmented(backwards), rows=backwards) == whole
    for row in list(rows)[::97]:
        assert augmented(Rows.of([row])) == whole[row.id]
    assert by_row(augmented(rows, seed=1), rows) != whole


def test_each_side_of_a_pair_is_replaced_beside_the_original_other() -> None:
    rows = rows_of("good plot", pairs=["plot and film"])
    (row,) = rows
    copies = augmented(rows, copies=8)[1:]
    first, second = [c for c in copies if c.pair == row.pair], [c for c in copies if c.text == row.text]
    assert len(first) + len(second) == len(copies)
    assert 0 < len(first) <= 8 and 0 < len(second) <= 8


@pytest.mark.parametrize(("labels", "expected"), [("drop", None), ("keep", "x")])
def test_labels_of_copies(labels: str, expected: str | None) -> None:
    original, *copies = augmented(rows_of("good plot"), labels=labels)
    assert original.label == "x"
    assert {copy.label for copy in copies} == {expected}


def test_the_masked_model_is_asked_first_and_the_notes_say_who_answered() -> None:
    notes: Counter[str] = Counter()
    model = Listed({"good": ("great",)})
    rows = rows_of("good plot unknown")
    made = list(augment(rows, stage(probability=1.0), masked_lm=model, neighbours=WORDS, seed=0, notes=notes))
    assert {row.text.split()[0] for row in made[1:]} == {"great"}
    assert {row.text.split()[1] for row in made[1:]} <= set(CANDIDATES["plot"])
    assert notes == {BY_MASKED_LM: 1, BY_NEIGHBOURS: 1, BY_NOBODY: 1, COPIES: len(made) - 1}
    notes.clear()
    list(augment(rows, stage(), masked_lm=None, neighbours=WORDS, seed=0, notes=notes))
    assert notes[BY_NEIGHBOURS_ALONE] == 2


def many(count: int) -> Rows:
    return rows_of(*(f"good plot {number}" for number in range(count)))


def written(folder: Path, rows: Rows, neighbours: Proposer = WORDS, **fields: Any) -> dict[str, int]:
    return write_augmented(rows, folder, Augmentation(stage(copies=3, **fields), None, neighbours, 0))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def test_written_rows_are_those_that_were_made(tmp_path: Path) -> None:
    rows = many(2 * ROWS_A_PART + 10)
    notes = written(tmp_path, rows)
    source = {"more": StageData(kind="stage", stage="augment")}
    found = read("more", source, Task(), stage_outputs={"augment": tmp_path}, seed=0)
    assert list(found) == augmented(rows, copies=3)
    assert found.notes == notes
    assert notes[COPIES] == len(found) - len(rows)
    assert len(bytes_of(tmp_path)) == 3


def test_processes_share_the_parts(tmp_path: Path) -> None:
    rows = many(3 * ROWS_A_PART)
    notes = written(tmp_path / "one", rows)
    how = Augmentation(stage(copies=3), None, WORDS, 0)
    with ThreadPoolExecutor(2) as both:
        shared = both.map(lambda rank: write_augmented(rows, tmp_path / "two", how, rank=rank, ranks=2), (1, 0))
    assert [*shared] == [notes, notes]
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    rows = many(3 * ROWS_A_PART)
    notes = written(tmp_path, rows)
    before = bytes_of(tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}
    (tmp_path / "part-00001.parquet").unlink()
    (tmp_path / "part-00002.parquet").write_bytes(b"cut short")
    assert written(tmp_path, rows) == notes
    assert bytes_of(tmp_path) == before
    untouched = [path.name for path in sorted(tmp_path.glob("part-*")) if path.stat().st_mtime_ns == times[path.name]]
    assert untouched == ["part-00000.parquet"]


@pytest.mark.parametrize("change", ["settings", "proposer", "rows", "label"])
def test_what_is_there_of_another_augmentation_is_replaced(tmp_path: Path, change: str) -> None:
    written(tmp_path / "old", many(5))
    before = bytes_of(tmp_path / "old")
    match change:
        case "settings":
            written(tmp_path / "old", many(5), probability=0.9)
        case "proposer":
            written(tmp_path / "old", many(5), Listed({"good": ("fine",)}))
        case "rows":
            written(tmp_path / "old", many(6))
        case "label":
            written(tmp_path / "old", rows_of(*(row.text for row in many(5)), label="y"))
    assert bytes_of(tmp_path / "old") != before


def test_parts_of_a_longer_run_are_removed_and_progress_is_told(tmp_path: Path) -> None:
    written(tmp_path, many(ROWS_A_PART + 1))
    seen: list[tuple[int, int]] = []
    how = Augmentation(stage(copies=3), None, WORDS, 0)
    write_augmented(many(5), tmp_path, how, progress=lambda done, total: seen.append((done, total)))
    assert [*bytes_of(tmp_path)] == ["part-00000.parquet"]
    assert seen == [(1, 1)]
