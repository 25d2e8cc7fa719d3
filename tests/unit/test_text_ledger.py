"""What was paid for outlives whoever paid, and is asked for once."""

from pathlib import Path

from distill.types import Text
from teachers.text.ledger import Ledger, Usage

TEXT, COST = Text("a\u2028b \ud83d", None, None, True), Usage(1, 3, 2)


def test_an_answer_is_known_to_the_next_process_once_a_row_and_only_for_its_plan(tmp_path: Path) -> None:
    shard = tmp_path / "shard.parquet"
    first = Ledger()
    first.begin(shard, "k")
    first.note("x", (TEXT,), COST)
    first.note("x", (), Usage(3, 9, 0))
    second = Ledger()
    second.begin(shard, "k")
    assert second.spent() == {"requests": 4, "tokens_in": 12, "tokens_out": 2}
    assert (second.known("x"), second.known("x"), second.known("y")) == ((TEXT,), None, None)
    second.begin(shard, "other")
    assert second.known("x") is None and second.spent()["requests"] == 0


def test_a_line_its_writer_died_in_costs_no_other(tmp_path: Path) -> None:
    shard = tmp_path / "shard.parquet"
    ledger = Ledger()
    ledger.begin(shard, "k")
    ledger.note("x", (TEXT,), COST)
    ledger.note("y", (TEXT,), COST)
    (path,) = (tmp_path / ".answers").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    ledger.begin(shard, "k")
    ledger.note("z", (TEXT,), COST)
    ledger.begin(shard, "k")
    assert [ledger.known(source) for source in "xyz"] == [(TEXT,), None, (TEXT,)]
    ledger.end(shard, "k")
    assert not path.exists()
