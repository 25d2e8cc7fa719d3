"""A recorded teacher says what the live one says, and is written once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.data import Task
from configs.objective import HiddenTerm
from distill.data.collate import collate
from distill.data.table import TokenTable
from distill.errors import DataError, ModelError, UnmetNeeds
from distill.models import ModelSource, fingerprint, load
from distill.objective import build
from distill.types import Needs, Outputs
from teachers import recording
from teachers.cached import CachedTeacher
from teachers.live import LiveTeacher
from teachers.record import parts_of, read_record
from teachers.recording import Recording, write_record
from tests.helpers import tiny
from tests.helpers.recorded import made_up_table

TASK = Task(labels=tiny.LABELS)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> LiveTeacher:
    source = ModelSource(str(tiny.model_folder(tmp_path_factory.mktemp("teacher"))))
    return LiveTeacher(load(source, TASK, tiny.LABELS, "teacher"), TASK, fingerprint(source))


@pytest.fixture(scope="module")
def table() -> TokenTable:
    return made_up_table()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(recording, "ROWS_A_PART", 8)
    monkeypatch.setattr(recording, "ROWS_A_BATCH", 3)


def _write(teacher, table, folder) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    rows = write_record(Recording(teacher, table, 0, CPU), folder, progress=lambda *done: told.append(done))
    assert rows == 30 and told[-1] == (4, 4)
    return told


def test_says_what_the_live_teacher_says(live, table, tmp_path):
    _write(live, table, tmp_path)
    cached = CachedTeacher(live.shape, "x", read_record(tmp_path), "answers")
    for rows in (np.array([3, 35, 7]), np.arange(40), np.array([0])):
        batch = collate(table, rows, pad_id=0)
        expected = live(batch, Needs(logits=True)).logits
        assert cached(batch, Needs(logits=True)).logits.shape == (len(rows), 2)
        torch.testing.assert_close(cached(batch, Needs(logits=True)).logits, expected, atol=1e-5, rtol=1e-5)
        assert cached(batch, Needs()) == Outputs()


def test_offers_logits_alone_and_names_its_stage(live):
    cached = CachedTeacher(live.shape, "x", None, "answers")
    assert cached.offers == Needs(logits=True) and "answers" in cached.describe() and cached.fingerprint == "x"


def test_layers_of_a_recorded_teacher_are_refused_at_set_up(live):
    cached = CachedTeacher(live.shape, "x", None, "answers")
    with pytest.raises(UnmetNeeds) as caught:
        build([HiddenTerm(kind="hidden", layers="last")], student=live.shape, teacher=cached, task=TASK)
    assert str(caught.value) == (
        "stage.objective[0] (hidden) needs hidden states of teacher layer 4; "
        "the teacher as recorded by stage answers offers logits"
    )


def test_a_row_nobody_recorded_is_an_error(live, table, tmp_path):
    _write(live, table, tmp_path)
    ids = torch.tensor([int(table.example_ids[0]), 1, 2**62 + 5])
    with pytest.raises(DataError, match="lacks 2 of 3 rows"):
        read_record(tmp_path).of(ids)


def test_goes_on_where_it_was_cut_and_writes_the_same(live, table, tmp_path):
    _write(live, table, tmp_path / "whole")
    parts = parts_of(tmp_path / "whole")
    assert len(parts) == 4
    _write(live, table, tmp_path / "cut")
    (tmp_path / "cut" / parts[2].name).unlink()
    kept = tmp_path / "cut" / parts[0].name
    written = kept.stat().st_mtime_ns
    (tmp_path / "cut" / parts[1].name).write_bytes(b"half a fi")
    _write(live, table, tmp_path / "cut")
    assert kept.stat().st_mtime_ns == written
    assert all((tmp_path / "cut" / part.name).read_bytes() == part.read_bytes() for part in parts)


def test_parts_are_made_once_by_any_number_of_ranks(live, table, tmp_path):
    _write(live, table, tmp_path / "whole")

    class Mortal(CachedTeacher):
        asked = 0

        def __call__(self, batch, needs):
            self.asked += 1
            if self.asked == 5:
                raise KeyboardInterrupt
            return live(batch, needs)

    dies = Mortal(live.shape, live.fingerprint, None, "x")
    with pytest.raises(KeyboardInterrupt):
        write_record(Recording(dies, table, 0, CPU), tmp_path / "cut", rank=1, ranks=2)
    there = {part.name: part.stat().st_mtime_ns for part in parts_of(tmp_path / "cut")}
    assert list(there) == ["part-00001.safetensors"]
    for rank in (2, 0, 1):
        write_record(Recording(live, table, 0, CPU), tmp_path / "cut", rank=rank, ranks=3)
    whole = {part.name: part.read_bytes() for part in parts_of(tmp_path / "whole")}
    found = {part.name: part.read_bytes() for part in parts_of(tmp_path / "cut")}
    assert found == whole
    assert all((tmp_path / "cut" / name).stat().st_mtime_ns == when for name, when in there.items())


def test_two_that_record_different_teachers_in_one_folder_are_told(live, table, tmp_path):
    class Other(CachedTeacher):
        def __call__(self, batch, needs):
            return live(batch, needs)

    def overwrite(done: int, total: int) -> None:
        if done == total:
            write_record(Recording(Other(live.shape, "other", None, "x"), table, 0, CPU), tmp_path)

    with pytest.raises(DataError, match="written over by a run of another configuration"):
        write_record(Recording(live, table, 0, CPU), tmp_path, progress=overwrite)


def test_another_teacher_or_fewer_rows_leave_nothing_of_the_old_ones(live, table, tmp_path):
    _write(live, table, tmp_path)
    first = TokenTable.of([table.tokens[:4].tolist()], np.full(1, -100), np.array([7]))
    assert write_record(Recording(live, first, 0, CPU), tmp_path) == 1
    assert read_record(tmp_path).ids.tolist() == [7]


def test_rows_of_the_same_ids_and_other_tokens_are_recorded_again(live, table, tmp_path):
    """As they have with another tokenizer, or in another language."""
    other = replace(table, tokens=np.where(table.tokens == 2, 4, table.tokens))
    _write(live, table, tmp_path)
    _write(live, other, tmp_path / "alone")
    _write(live, other, tmp_path)
    ids = torch.from_numpy(table.example_ids)
    again, alone = read_record(tmp_path).of(ids), read_record(tmp_path / "alone").of(ids)
    torch.testing.assert_close(again, alone, atol=0, rtol=0)


def test_logits_that_are_no_numbers_are_refused(live, table, tmp_path):
    class Broken(CachedTeacher):
        def __call__(self, batch, needs):
            return Outputs(logits=torch.full((len(batch["input_ids"]), 2), float("nan")))

    with pytest.raises(ModelError, match="not finite"):
        write_record(Recording(Broken(live.shape, "x", None, "x"), table, 0, CPU), tmp_path)
    assert not list(tmp_path.glob("part-*"))


def test_a_folder_without_a_record_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no record"):
        read_record(tmp_path)
    (tmp_path / "part-00000.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="part-00000"):
        read_record(tmp_path)
