"""Shards of texts: the same table however often the writers are killed, and nothing torn, foreign or edited in it."""

import math
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data.hashing import hash_text
from distill.data.rows import Row, Rows
from distill.errors import DataError
from distill.types import Completion, Text
from teachers.text.store import Plan, collect, footer, missing, write_shards

COUNT, SIZE = 120, 400


def rows(count: int = COUNT) -> Rows:
    texts = [" ".join(["word"] * (number % 9 + 1)) + f" {number}" for number in range(count)]
    return Rows.of([Row(text, None, None, hash_text(text)) for text in texts])


def plan(given: Rows | None = None, **parts: str) -> Plan:
    return Plan.of(rows() if given is None else given, {"teacher": "t", "decoding": "d", **parts}, SIZE)


def write(places) -> list[Completion]:
    """Two hypotheses: the text turned round, and in capitals."""
    texts = [row.text for row in rows()]
    return [
        Completion(
            (
                Text(texts[place][::-1], (int(place), 1), -0.5 - place / 1000, True),
                Text(texts[place].upper(), (int(place), 2), -1.5, False),
            )
        )
        for place in places
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_every_row_is_in_one_shard_of_about_the_size():
    made = plan()
    assert sorted(np.concatenate(made.shards).tolist()) == list(range(COUNT))
    sizes = [sum(len(row.text) for place, row in enumerate(rows()) if place in shard) for shard in made.shards]
    assert all(SIZE - 60 <= size <= SIZE + 60 for size in sizes[:-1]) and len(sizes) > 5


def test_the_plan_depends_on_rows_teacher_and_decoding_alone():
    assert plan().key == plan().key
    assert len({plan().key, plan(teacher="u").key, plan(decoding="e").key, plan(rows(COUNT - 1)).key}) == 4


def test_rows_that_come_twice_are_refused():
    twice = Rows.concatenate([rows(), rows(3)])
    with pytest.raises(DataError, match="3 rows come twice"):
        plan(twice)


def test_collects_all_rows_in_their_order(tmp_path):
    told = []
    write_shards(plan(), tmp_path, write, about={"engine": "e"}, progress=lambda *done: told.append(done))
    table = collect(plan(), tmp_path)
    assert table["id"].to_pylist() == rows().ids.tolist()
    assert [texts[0][::-1] for texts in table["texts"].to_pylist()] == [row.text for row in rows()]
    assert table["tokens"].to_pylist()[7] == [[7, 1], [7, 2]] and table["ended"].to_pylist()[7] == [True, False]
    assert told[-1] == (len(plan().shards),) * 2
    assert footer(plan().place(tmp_path, 0))["engine"] == "e"


def test_finished_shards_are_left_alone_and_the_number_of_ranks_may_change(tmp_path):
    write_shards(plan(), tmp_path / "whole", write)
    asked: list[int] = []

    def counted(places):
        asked.extend(places.tolist())
        if len(asked) > COUNT // 2:
            raise KeyboardInterrupt
        return write(places)

    with pytest.raises(KeyboardInterrupt):
        write_shards(plan(), tmp_path / "cut", counted, rank=1, ranks=2)
    there = files(tmp_path / "cut")
    for rank in (2, 0, 1):
        write_shards(plan(), tmp_path / "cut", write, rank=rank, ranks=3)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert there.items() <= files(tmp_path / "whole").items() and there


def test_a_torn_a_foreign_and_an_edited_shard_are_written_again(tmp_path):
    write_shards(plan(), tmp_path / "whole", write)
    write_shards(plan(), tmp_path / "other", write)
    places = [plan().place(tmp_path / "other", number) for number in range(4)]
    places[0].write_bytes(places[0].read_bytes()[:-7])
    write_shards(plan(teacher="u"), tmp_path / "foreign", write)
    places[1].write_bytes(plan().place(tmp_path / "foreign", 1).read_bytes())
    edited = pq.read_table(places[2])
    texts = edited["texts"].to_pylist()
    texts[0][0] += "!"
    column = edited.schema.field("texts")
    pq.write_table(edited.set_column(1, column, pa.array(texts, column.type)), places[2])
    places[3].write_bytes(plan().place(tmp_path / "whole", 4).read_bytes())
    assert missing(plan(), tmp_path / "other") == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"4 of \d+ shards are not written: 0, 1, 2, 3"):
        collect(plan(), tmp_path / "other")
    write_shards(plan(), tmp_path / "other", write)
    assert files(tmp_path / "other") == files(tmp_path / "whole")


def test_a_score_that_is_no_number_and_a_missing_completion_are_refused(tmp_path):
    with pytest.raises(DataError, match="no finite number"):
        write_shards(plan(), tmp_path, lambda places: [Completion((Text("", (), math.nan, True),))] * len(places))
    with pytest.raises(DataError, match=r"wrote 1 completions for \d+ rows"):
        write_shards(plan(), tmp_path, lambda places: write(places[:1]))
    assert not files(tmp_path)


def test_no_rows_make_no_shards(tmp_path):
    empty = plan(rows(0))
    write_shards(empty, tmp_path, write)
    assert len(collect(empty, tmp_path)) == 0


def _share(folder: Path, log: Path, die_at: int | None) -> None:
    """Write beside others, as one of equals; note the shards; die in the middle of one if told so."""

    def slowly(places):
        with log.open("a", encoding="utf-8") as notes:
            notes.write(f"{places[0]}\n")
        if die_at is not None and len(log.read_text(encoding="utf-8").splitlines()) >= die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return write(places)

    write_shards(Plan.of(rows(), {"teacher": "t"}, 40), folder, slowly)


def test_workers_share_the_shards_and_take_over_those_of_the_dead(tmp_path):
    """Four that know nothing of each other: every shard is written once, but for the one its writer died in."""
    small = Plan.of(rows(), {"teacher": "t"}, 40)
    write_shards(small, tmp_path / "whole", write)
    fork = multiprocessing.get_context("fork")
    logs = [tmp_path / f"log-{number}" for number in range(4)]
    workers = [
        fork.Process(target=_share, args=(tmp_path / "shared", log, 2 if log is logs[0] else None)) for log in logs
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL, 0, 0, 0]
    assert files(tmp_path / "shared") == files(tmp_path / "whole")
    begun = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    lost = logs[0].read_text(encoding="utf-8").splitlines()[-1]
    expected = sorted([str(shard[0]) for shard in small.shards] + [lost])
    assert sorted(begun) == expected
    assert min(len(log.read_text(encoding="utf-8").splitlines()) for log in logs) >= 2  # all of them took part


def test_two_configurations_in_one_folder_are_found_out(tmp_path):
    first, other = plan(), plan(teacher="u")
    write_shards(other, tmp_path / "other", write)
    foreign = other.place(tmp_path / "other", 0).read_bytes()

    def overwrite(done, total):
        if done == total:
            first.place(tmp_path, 0).write_bytes(foreign)

    said = f"1 of {len(first.shards)} shards were written over by a run of another configuration"
    with pytest.raises(DataError, match=said):
        write_shards(first, tmp_path, write, progress=overwrite)


def _work(folder: Path, rank: int) -> None:
    def slowly(places):
        time.sleep(0.02)
        return write(places)

    write_shards(Plan.of(rows(), {"teacher": "t"}, 10), folder, slowly, rank=rank, ranks=2)


def test_a_hundred_kills_change_nothing(tmp_path):
    """Two workers, a shard for each row, killed at random moments; then one worker alone ends the work."""
    small = Plan.of(rows(), {"teacher": "t"}, 10)
    write_shards(small, tmp_path / "whole", write)
    fork = multiprocessing.get_context("fork")
    draw, kills, folder = random.Random(0), 0, tmp_path / "killed"
    while kills < 100:
        workers = [fork.Process(target=_work, args=(folder, rank)) for rank in (0, 1)]
        for worker in workers:
            worker.start()
        time.sleep(draw.uniform(0.005, 0.04))
        for worker in workers:
            kills += worker.is_alive()
            worker.kill()
            worker.join()
    there = len(files(folder))
    assert 0 < there < len(small.shards)  # the kills fell into the work
    write_shards(small, folder, write)
    assert files(folder) == files(tmp_path / "whole")
