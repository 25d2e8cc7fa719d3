"""Sources by name: parts held out, limits, what other stages wrote, the data set that comes with the package."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.data import Columns, Embedded, Files, Held, Source, StageData, Task
from distill.data import splits
from distill.data.rows import Row, Rows
from distill.data.sources import METADATA, read
from distill.errors import DataError

TASK = Task()
PLAIN = Columns(label=None)


def text_file(folder: Path, texts: list[str], name: str = "train.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def rows(name: str, sources: dict[str, Source], seed: int = 0, outputs: dict[str, Path] | None = None) -> Rows:
    return read(name, sources, TASK, stage_outputs=outputs or {}, seed=seed)


def problem(name: str, sources: dict[str, Source], outputs: dict[str, Path] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        rows(name, sources, outputs=outputs)
    return str(caught.value)


def texts(found: Rows) -> list[str]:
    return [row.text for row in found]


def held_sources(path: Path, *fractions: float) -> dict[str, Source]:
    files = Files(path=str(path), columns=PLAIN)
    held = {f"part{number}": Held(kind="held_out", of="train", fraction=f) for number, f in enumerate(fractions)}
    return {"train": files, **held}


def test_parts_never_meet_and_leave_nothing_out(tmp_path: Path) -> None:
    path = text_file(tmp_path, [f"row {number}" for number in range(2000)])
    sources = held_sources(path, 0.1, 0.3)
    parts = [texts(rows(name, sources)) for name in ("train", "part0", "part1")]
    assert sorted(text for part in parts for text in part) == sorted(texts(rows("train", {"train": sources["train"]})))
    assert [len(part) for part in parts] == pytest.approx([1200, 200, 600], abs=80)


def test_a_part_does_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    lines = [f"row {number}" for number in range(300)]
    shuffled = random.Random(0).sample(lines, len(lines))
    first = rows("part0", held_sources(text_file(tmp_path, lines), 0.2))
    second = rows("part0", held_sources(text_file(tmp_path, shuffled, "other.txt"), 0.2))
    assert set(texts(first)) == set(texts(second))


def test_duplicates_fall_on_one_side(tmp_path: Path) -> None:
    sources = held_sources(text_file(tmp_path, [f"row {number % 50}" for number in range(500)]), 0.3)
    assert splits.overlap(rows("train", sources), rows("part0", sources)) == 0


def test_another_seed_holds_out_other_rows(tmp_path: Path) -> None:
    sources = held_sources(text_file(tmp_path, [f"row {number}" for number in range(300)]), 0.2)
    assert texts(rows("part0", sources, seed=0)) != texts(rows("part0", sources, seed=1))


def test_a_part_of_a_part(tmp_path: Path) -> None:
    sources = held_sources(text_file(tmp_path, [f"row {number}" for number in range(1000)]), 0.5)
    sources["deeper"] = Held(kind="held_out", of="part0", fraction=0.5)
    parts = [set(texts(rows(name, sources))) for name in ("train", "part0", "deeper")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1000
    assert len(parts[2]) == pytest.approx(250, abs=50)


def test_a_limit_keeps_rows_by_content_in_their_order(tmp_path: Path) -> None:
    lines = [f"row {number}" for number in range(100)]
    limited = Files(path=str(text_file(tmp_path, lines)), columns=PLAIN, limit=10)
    kept = texts(rows("train", {"train": limited}))
    backwards = Files(path=str(text_file(tmp_path, lines[::-1], "other.txt")), columns=PLAIN, limit=10)
    assert texts(rows("train", {"train": backwards})) == kept[::-1]
    assert kept == [line for line in lines if line in kept]
    assert len(kept) == 10


def test_a_limit_and_a_part_are_drawn_independently(tmp_path: Path) -> None:
    lines = [f"row {number}" for number in range(2000)]
    sources = held_sources(text_file(tmp_path, lines), 0.2)
    sources["train"] = Files(path=str(tmp_path / "train.txt"), columns=PLAIN, limit=1000)
    assert len(rows("part0", sources)) == pytest.approx(200, abs=45)


@given(st.lists(st.tuples(st.text(min_size=1), st.none() | st.text()), min_size=1, max_size=30))
def test_contents_differ_exactly_where_texts_do(given_pairs: list[tuple[str, str | None]]) -> None:
    usable = [(a, b) for a, b in given_pairs if (a + (b or "")).isprintable()]
    found = splits.contents(Rows.of([Row(text, pair, None, 0) for text, pair in usable]))
    assert len(set(found.tolist())) == len(set(usable))


def test_many_rows_come_back_whole_and_in_order(tmp_path: Path) -> None:
    lines = [f"row {number}" for number in range(70_000)]
    found = rows("train", {"train": Files(path=str(text_file(tmp_path, lines)), columns=PLAIN)})
    assert texts(found) == lines
    assert found.documents == [0] * len(lines)


def test_errors_of_parts(tmp_path: Path) -> None:
    path = text_file(tmp_path, ["one", "two", "three"])
    greedy = held_sources(path, 0.5, 0.6)
    expected = "data.train: part0, part1 hold out 110% together; something has to remain"
    assert problem("train", greedy) == expected
    tiny = held_sources(path, 0.0001)
    assert problem("part0", tiny) == "data.part0: none of 3 rows falls into a fraction of 0.0001"
    ring: dict[str, Source] = {
        "a": Held(kind="held_out", of="b", fraction=0.1),
        "b": Held(kind="held_out", of="a", fraction=0.1),
    }
    assert problem("a", ring) == "data.a: held out of itself: a of b of a"
    lost: dict[str, Source] = {"train": Held(kind="held_out", of="trian"), "trains": Files(path=str(path))}
    assert problem("train", lost) == "data.trian: no such source; did you mean `train`? Choices: train, trains"
    nearly_all = held_sources(text_file(tmp_path, ["one"], "one.txt"), 0.999999)
    assert problem("train", nearly_all) == "data.train: no row is left: part0 hold out all 1"


def stage_folder(folder: Path, parts: list[list[Row]], total: int | None = None) -> Path:
    folder.mkdir()
    for number, part in enumerate(parts):
        about = {"part": number, "parts": total or len(parts), "fingerprint": "x", "notes": {"rows added": len(part)}}
        table = Rows.of(part).table.replace_schema_metadata({METADATA: json.dumps(about)})
        pq.write_table(table, folder / f"part-{number:05d}.parquet")
    return folder


def test_rows_of_a_stage_keep_ids_and_labels_and_add_up_notes(tmp_path: Path) -> None:
    parts = [[Row("a", "b", "x", 1), Row("a2", "b", None, 2)], [Row("c", "d", None, 3)]]
    outputs = {"augment": stage_folder(tmp_path / "out", parts)}
    found = rows("more", {"more": StageData(kind="stage", stage="augment")}, outputs=outputs)
    assert list(found) == [row for part in parts for row in part]
    assert found.notes == {"rows added": 3}


def test_errors_of_a_stage(tmp_path: Path) -> None:
    sources: dict[str, Source] = {"more": StageData(kind="stage", stage="augment")}
    assert problem("more", sources) == "data.more: stage `augment` has written nothing yet"
    empty = tmp_path / "empty"
    empty.mkdir()
    expected = f"data.more: {empty} holds no rows; run stage `augment` again"
    assert problem("more", sources, {"augment": empty}) == expected
    half = stage_folder(tmp_path / "half", [[Row("a", None, None, 1)]], total=2)
    expected = f"data.more: {half} holds 1 of 2 parts; run stage `augment` again"
    assert problem("more", sources, {"augment": half}) == expected
    part = half / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    assert problem("more", sources, {"augment": half}).startswith(f"data.more: {part}: damaged: ")
    pq.write_table(Rows.of([Row("a", None, None, 1)]).table, part)
    assert problem("more", sources, {"augment": half}) == f"data.more: {part} was not written by a stage"


def test_nothing_is_held_out_of_copies() -> None:
    sources: dict[str, Source] = {
        "more": StageData(kind="stage", stage="augment"),
        "part": Held(kind="held_out", of="more"),
    }
    assert problem("part", sources).startswith("data.more: part holds out of what stage `augment` wrote, ")


@pytest.mark.parametrize(("part", "labelled"), [("train", True), ("transfer", False)])
def test_the_data_set_that_comes_with_the_package(part: Any, labelled: bool) -> None:
    found = rows("train", {"train": Embedded(kind="embedded", name="support-desk", part=part, limit=50)})
    assert len(found) == 50
    assert found.has_labels == labelled


def test_rows_of_different_files_are_joined() -> None:
    first = Rows.of([Row("a", None, "x", 1)], {"mended": 1})
    second = Rows.of([Row("b", "c", None, 2)], {"mended": 2})
    joined = Rows.concatenate([first, second])
    assert list(joined) == [Row("a", None, "x", 1), Row("b", "c", None, 2)]
    assert joined.notes == {"mended": 3}
    assert joined.ids.tolist() == [1, 2]
    assert list(joined.take(np.array([False, True]))) == [Row("b", "c", None, 2)]
    assert list(joined.part(0, 1)) == [Row("a", None, "x", 1)]
    assert len(Rows.of([])) == 0
