"""A budget of tokens is told to fit in as few parts as it can be cut into."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from configs.load import load
from pipelines.batches import plan_of
from pipelines.fitting import fitting
from pipelines.machine import Device
from pipelines.memory_batches import Asked
from pipelines.room import Free
from pipelines.run import Run
from pipelines.stage_plan import StagePlan, plan_stage
from tests.helpers import tiny

TRAINING = "stages.student.training"
WORDS = [48] * 32 + [1] * 400
"""Of the rows; with two special tokens each, 16 long ones or 266 short ones are spent on the budget."""
BUDGET, LONG, SHORT = 800, 16, 266


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., StagePlan]:
    source = tmp_path / "rows.csv"
    texts = [" ".join((tiny.WORDS * 6)[row : row + words]) for row, words in enumerate(WORDS)]
    source.write_text("\n".join(["text,label", *(f"{text},{tiny.LABELS[0]}" for text in texts)]), encoding="utf-8")
    stage = {"kind": "train", "teacher": "none", "data": ["train"], "objective": [{"kind": "task"}]}
    path = tiny.run_file(tmp_path, {"student": {**stage, "training": {"max_steps": 2}}})

    def plan(*overrides: str, look: bool = True) -> StagePlan:
        given = [f"data.train.path={source}", "task.max_length=60", f"{TRAINING}.tokens_per_batch={BUDGET}"]
        config = load(str(path), [*given, *overrides]).pipeline
        device = Device("gpu", 1, 1, fast_fp32=False)
        run = Run(config, device, Console(quiet=True), cache=tmp_path / "cache")
        return plan_stage(Asked(run, "student", config.stages["student"], device.trainers, "cuda", look=look))

    return plan


def parts(plan: StagePlan) -> int:
    """Return the micro-batches a window of the training is cut into."""
    run, stage = plan.asked.run, plan.asked.stage
    return plan_of(stage.training, run.config.task, run.table(stage.data, stage.trains), 1, 0).accumulate


def told(plan: StagePlan, free: Free) -> int:
    """Return the one size of a micro-batch that is told."""
    (one,) = fitting(plan, free)
    found = re.fullmatch(rf"{TRAINING}\.micro_batch_size=(\d+) \(\S+ GB\)", one)
    assert found, one
    return int(found[1])


@pytest.mark.parametrize("wanted", [2, 4])
def test_a_budget_of_tokens_is_cut_into_the_fewest_parts_that_fit(planned, wanted: int) -> None:
    whole = planned()
    assert (whole.traced.rows, whole.traced.cut.share, parts(whole)) == (LONG, SHORT, 1)
    free = Free(planned(f"{TRAINING}.micro_batch_size={SHORT // wanted + 1}").most)
    size = told(whole, free)
    cut, coarser = (planned(f"{TRAINING}.micro_batch_size={rows}") for rows in (size, 2 * size))
    assert cut.fits(free) and not coarser.fits(free)
    assert parts(cut) == cut.traced.cut.parts == wanted and parts(coarser) == wanted // 2


def test_a_budget_that_is_cut_already_is_cut_further(planned) -> None:
    half = planned(f"{TRAINING}.micro_batch_size={SHORT // 2}")
    size = told(half, Free(half.most - 1))
    assert parts(half) == 2 and parts(planned(f"{TRAINING}.micro_batch_size={size}")) == 4


def test_of_rows_that_are_not_known_nobody_says_into_how_many_parts_they_are_cut(planned) -> None:
    whole = planned(look=False)
    assert not [*fitting(whole, Free(whole.most - 1))]
    cut = planned(f"{TRAINING}.micro_batch_size=50", look=False)
    assert cut.layout.accumulates  # 13 rows of the longest would be one part, those of the shortest are more
