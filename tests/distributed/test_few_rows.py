"""Windows are the same where they have fewer rows than there are devices and micro-batches."""

from pathlib import Path

import pytest

from distill.data.windows import Plan
from tests.helpers.many import Job, train_all
from tests.helpers.same import is_the_same
from tests.helpers.spread import overrides_of, spread_run
from tests.helpers.training import stage

TRAINING = "stages.student.training."
ROWS = (f"{TRAINING}batch_size=7",)  # in windows of 7 or 8 rows
TOKENS = (f"{TRAINING}tokens_per_batch=30",)  # in windows of 1 to 6 rows
WINDOWS = {"rows": ROWS, "tokens": TOKENS}
SPLITS = {
    "rows, 2 × 1": ("rows", "live", "ddp", 1),
    "tokens, 2": ("tokens", "live", "ddp", None),
    "tokens, 2 × 1": ("tokens", "live", "ddp", 1),
    "tokens, 2 × 2, FSDP": ("tokens", "sharded", "fsdp", 2),
    "tokens, 2 × 1, ZeRO-3": ("tokens", "sharded", "deepspeed_3", 1),
}
"""What makes a window, the teacher, the strategy of two processes, and rows of their micro-batches."""


def _micro(rows: int | None) -> tuple[str, ...]:
    return () if rows is None else (f"{TRAINING}micro_batch_size={rows}",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {kind: spread_run(folder / kind, kind, "full") for kind in ("live", "sharded")}


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    jobs: list[Job] = [(runs["live"], folder / name, how) for name, how in WINDOWS.items()]
    train_all([*jobs, (runs["live"], folder / "tokens-by-1", (*TOKENS, *_micro(1)))], folder)
    return folder


@pytest.fixture(scope="module")
def split(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    jobs: list[Job] = [
        (runs[kind], folder / name, (*WINDOWS[windows], *overrides_of(strategy, folder), *_micro(micro)))
        for name, (windows, kind, strategy, micro) in SPLITS.items()
    ]
    train_all(jobs, folder, processes=2)
    return folder


@pytest.mark.parametrize("name", SPLITS)
def test_devices_without_a_row_change_nothing(whole, split, name):
    is_the_same(split / name, whole / SPLITS[name][0], terms=4)


def test_a_token_budget_is_split_to_the_same_weights(whole):
    is_the_same(whole / "tokens-by-1", whole / "tokens", terms=4)


@pytest.mark.parametrize("name", SPLITS)
def test_there_are_such_devices(runs, name):
    windows, kind, _, micro = SPLITS[name]
    plan = _plan(runs[kind], *WINDOWS[windows], *_micro(micro), "machine.devices=2")
    assert any(not len(part) for step in range(plan.steps) for part in plan.parts(step))


def test_a_micro_batch_of_a_token_budget_has_so_many_rows_at_most(runs):
    plans = [_plan(runs["live"], *TOKENS, *_micro(rows)) for rows in (None, 2)]
    largest = [max(len(part) for step in range(plan.steps) for part in plan.parts(step)) for plan in plans]
    assert largest[0] > 2 == largest[1]


def _plan(run: Path, *overrides: str) -> Plan:
    return stage(str(run), "student", overrides)._data().plan
